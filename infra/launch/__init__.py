"""Training jobs on an engine: the command, the guard, and where it runs."""
