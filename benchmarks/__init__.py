"""Measurements beside rivals in the same run: python -m benchmarks.NAME [--json]."""
