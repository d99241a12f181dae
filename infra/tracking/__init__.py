"""MLflow: the client, runs, and the model registry."""
