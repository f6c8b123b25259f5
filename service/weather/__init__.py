"""The weather in a task's city: the provider's client, its cache and circuit breaker, and the backfill."""
