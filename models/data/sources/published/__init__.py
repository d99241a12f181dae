"""Data sets as their authors publish them: one opener for each form."""
