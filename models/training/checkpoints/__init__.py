"""Checkpoints: format, writing, resuming, and the identity of the job to which they belong."""
