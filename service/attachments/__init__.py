"""Attachments of tasks: their rows, their files, and how both stay in step."""
