"""The outside: one thin file for each thing that is not ours."""
