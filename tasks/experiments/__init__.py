"""The experiments of the paper beside training: searches, scaling study, activation maps, latency."""
