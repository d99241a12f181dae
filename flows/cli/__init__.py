"""The ``effnet`` command: its verbs, a command's session, progress and summary."""
