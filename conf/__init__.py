"""What we ask for: settings, their types, their checks. Imports nothing of ours."""
