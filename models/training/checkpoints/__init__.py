"""Checkpoints: format, writing, resuming, and the identity of the job they belong to."""
