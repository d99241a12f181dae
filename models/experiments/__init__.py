"""Computations of the experiments: architecture space, scaling study, transfer, activation maps, latency."""
