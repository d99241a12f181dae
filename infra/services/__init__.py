"""The parts of ``infra/services/stack.py``: ports, keys, programs, processes, and what Prefect is told at start."""
