"""Everything that needs torch or webdataset. Independent of Prefect and MLflow."""
