"""The science: everything that needs torch or webdataset. Knows nothing of Prefect and MLflow."""
