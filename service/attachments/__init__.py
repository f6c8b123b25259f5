"""Attachments of tasks: their rows, their files, and the reconciliation of both."""
