"""Requests and responses that are streamed: uploads, downloads, exports, and subscriptions to events."""
