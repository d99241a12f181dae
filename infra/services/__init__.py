"""The parts of ``infra/local.py``: ports, keys, programs, processes, and what Prefect is told at start."""
