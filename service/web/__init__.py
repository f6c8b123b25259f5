"""HTTP: the only room besides `app` that knows of it."""
