"""The recipe and its machinery: optimizer, average, loop, checkpoints, ranks."""
