"""The sentences: Prefect's flows and the effnet command. No arithmetic, no I/O, no heavy import."""
