"""Events of tasks: how they are read from the table and handed to subscribers."""
