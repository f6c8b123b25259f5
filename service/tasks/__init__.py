"""Tasks: their schemas and operations, lists, bulk creation and history."""
