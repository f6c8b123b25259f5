"""A task manager's REST API over hand-written SQL."""
