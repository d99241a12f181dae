"""Launches training jobs: the command line, the process guard and the engine that runs them."""
