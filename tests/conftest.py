"""The real services, once per test session and all in one run folder; they start when a test first asks."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.schema import Services
from infra.services import stack


def pytest_configure() -> None:
    """Collects garbage less often: with torch, MLflow and Prefect imported, a full collection visits all of theirs."""
    gc.set_threshold(50_000, 10, 10)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names bytes by their parameter: those of gzip have the time, and all processes must have the same tests."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_finish() -> None:
    """Exempts from all later collections what the modules of the tests have imported."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Collects once, which shows what was left open; pytest would do so five times and Python twice at its end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def services_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run folder of the session's services; stops them and restores ``os.environ`` at the end."""
    before = dict(os.environ)
    run_dir = tmp_path_factory.mktemp("services")
    yield run_dir
    stack.down(run_dir)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def object_store(services_dir: Path) -> str:
    """Root URI in a running object store, which alone is quick to start; ``os.environ`` leads to it."""
    stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=("s3",))
    return "s3://effnet"


@pytest.fixture(scope="session")
def services(services_dir: Path) -> stack.Addresses:
    """Object store, Prefect and MLflow, running and in ``os.environ``; without a worker."""
    only = ("s3", "prefect", "mlflow")
    return stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=only).addresses
