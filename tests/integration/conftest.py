"""MLflow on the session's object store, for the tests that do without Prefect, which starts slowest."""

from pathlib import Path

import pytest

from conf.schema import Services
from infra import local


@pytest.fixture(scope="session")
def mlflow_uri(services_dir: Path) -> str:
    """Address of a running MLflow; ``os.environ`` leads to it."""
    started = local.up(services_dir, Services(), jobs_at_once=1, say=print, only=("s3", "mlflow"))
    return started.addresses.mlflow
