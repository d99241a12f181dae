"""Settings, their types and their checks; imports no other package of this project."""
