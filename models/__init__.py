"""Everything that needs torch. Independent of Prefect and MLflow."""
