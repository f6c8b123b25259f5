"""Counts over tasks, in all and by time."""
