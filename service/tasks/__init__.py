"""Tasks: what clients send and get, and what they can do with them."""
