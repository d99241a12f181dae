"""Access to external systems: object store, MLflow, services and job engines."""
