"""Rate limits: GCRA over all processes that share a Redis."""
