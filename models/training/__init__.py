"""Training: optimizer, weight averaging, training loop, checkpoints, ranks."""
