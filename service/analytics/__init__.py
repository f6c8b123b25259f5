"""Counts over tasks, in total and by time."""
