"""A task manager: a REST API and live events over hand-written SQL."""
