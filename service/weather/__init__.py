"""The weather of a task's city: the provider, its cache, and what arrives later."""
