"""The embedded services: ports, keys, programs, processes and the initial settings of Prefect. See ``stack.py``."""
