"""The wheel alone, installed without the checkout: the command, a data set, a training and a deployment's run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

PACKAGES = ("conf", "flows", "infra", "models", "tasks")
FOREIGN = ("PYTHON", "PREFECT_", "MLFLOW_", "AWS_", "EFFNET_")
SMALL = ["profile=laptop", "data=digits", "data.limit=300", "recipe.epochs=1", "launch.nproc_per_node=1"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "effnet_cli.py", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(path, folder / name)
    argv = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "."]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return path


class Installation:
    """A virtual environment with the wheel, in which only what effnet needs is found beside it.

    Commands run in an empty home, in a folder with modules of the user's that have the names of effnet's packages.
    """

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.home, bin_folder = folder / "home", folder / "venv" / "bin"
        self.home.mkdir()
        for name in PACKAGES:
            (self.home / f"{name}.py").write_text("raise ImportError('a module of the user')\n")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        [site] = (folder / "venv" / "lib").glob("python*/site-packages")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        path = os.pathsep.join([str(bin_folder), sysconfig.get_path("scripts"), os.environ["PATH"]])
        self.env = {**kept, "HOME": str(self.home), "PATH": path}
        pip = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python")]
        subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True, env=self.env)
        # Only now: pip would take an effnet among the dependencies for this one. Their own .pth files are not read.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    def run(self, *argv: str) -> str:
        done = subprocess.run(argv, cwd=self.home, env=self.env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation(wheel, tmp_path_factory.mktemp("installation"))
    yield installation
    installation.run("effnet", "down")


@pytest.mark.slow
def test_the_wheel_holds_every_file_that_is_read_at_run_time(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    needed = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    built = {".c", ".h", ".so", ".pyc"}  # compiled, or not in the repository
    containers = {ROOT / "infra/docker", ROOT / "infra/kubernetes"}  # used from a checkout
    needed = [path for path in needed if not containers & {*path.parents}]
    missing = [str(path.relative_to(ROOT)) for path in needed if path.suffix not in built]
    assert sorted(set(missing) - held) == []


def test_the_wheel_is_imported_and_not_the_checkout(installation: Installation) -> None:
    code = "import flows, models.data.loading.native as native; print(flows.__file__, native.__file__)"
    assert str(ROOT) not in installation.run("python", "-P", "-c", code)


def test_the_command_answers_and_counts(installation: Installation) -> None:
    assert "reproduce" in installation.run("effnet", "--help")
    assert "efficientnet_b7" in installation.run("effnet", "plan", "profile=laptop")


@pytest.mark.services
@pytest.mark.torchrun
@pytest.mark.slow
def test_a_data_set_is_sharded_and_a_network_trained(installation: Installation) -> None:
    assert "manifest   s3://" in installation.run("effnet", "shard", *SMALL)
    assert "weights    s3://" in installation.run("effnet", "train", *SMALL)
    assert (installation.home / "runs").is_dir()


@pytest.mark.services
@pytest.mark.slow
def test_a_deployment_s_run_imports_its_flow_from_the_wheel(installation: Installation) -> None:
    deployment = 'prefect deployment run shard/shard --param overrides=\'["data=mnist5k","data.limit=300"]\' --watch'
    shown = installation.run("bash", "-ec", f'effnet up >&2; eval "$(effnet env)"; python -P -m {deployment}')
    assert "Completed" in shown or "finished successfully" in shown
