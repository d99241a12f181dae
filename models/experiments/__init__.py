"""The arithmetic of the experiments: searches, scaling study, transfer, activation maps, latency."""
