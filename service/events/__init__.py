"""Events of tasks: the log that stores them, the listener that polls it, and the subscribers they are sent to."""
