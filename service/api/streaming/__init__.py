"""Responses and requests that are sent in parts, and subscriptions to events."""
