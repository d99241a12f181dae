"""What several files of these tests ask for: MLflow without Prefect, which starts slowest, and the fault tests' rig."""

from pathlib import Path

import pytest
from training_rig import End, Rig, make_rig

from conf.schema import Services
from infra.services import stack


@pytest.fixture(scope="session")
def mlflow_uri(services_dir: Path) -> str:
    """Address of a running MLflow; ``os.environ`` leads to it."""
    started = stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=("s3", "mlflow"))
    return started.addresses.mlflow


@pytest.fixture(scope="session")
def rig(object_store: str, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A small real job in the session's object store."""
    return make_rig(f"{object_store}/rig", tmp_path_factory.mktemp("rig"))


@pytest.fixture(scope="session")
def reference(rig: Rig) -> End:
    """The undisturbed run."""
    end = rig.run("reference")
    assert end.code == 0, end.log
    return end
