"""The option ``--dry-run``: jobs as they would be submitted, without services and without a file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from matrix import with_slow_rest

from conf import compose
from flows.__main__ import main
from flows.cli.verbs import VERBS
from infra.launch import slurm
from infra.services import stack
from tasks import shard
from tasks.dry_run import describe_training
from tasks.jobs import train_job

TWO_MACHINES = ("launch.nnodes=2", "launch.nproc_per_node=1")  # two processes, which share the two slices of a batch


@pytest.fixture(autouse=True)
def no_services(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a service was prepared or started")

    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    for name in ("prepare", "environment", "up"):
        monkeypatch.setattr(stack, name, refuse)


def printed(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    assert main(["train", "--dry-run", "data=digits", f"run_dir={folder}/runs", *words]) == 0
    assert list(folder.iterdir()) == []
    return capsys.readouterr().out


def test_each_engine_prints_what_it_would_submit_and_nothing_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = shlex.split(printed(capsys, tmp_path))
    assert words[1:3] == ["-m", "models.training.agent"]
    assert words[-3:] == ["-m", "models.train", "s3://effnet/jobs/train-b0-digits-DIGEST"]
    request = json.loads(printed(capsys, tmp_path, "launch.engine=workpool"))
    assert (request["deployment"], request["parameters"]["storage"]) == ("job/job", "s3://effnet")
    script = printed(capsys, tmp_path, "launch.engine=slurm", *TWO_MACHINES)
    assert script.startswith("#!/bin/bash\n#SBATCH --job-name=train-b0-digits-DIGEST\n")
    assert script.endswith("exit $code\n")
    assert "#SBATCH --nodes=2\n" in script
    documents = yaml.safe_load_all(printed(capsys, tmp_path, "launch.engine=kubernetes", *TWO_MACHINES))
    assert [document["kind"] for document in documents] == ["Service", "Job"]


@pytest.mark.slow
def test_the_key_is_that_of_the_job_if_its_shards_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=digits", "launch.engine=slurm", f"storage=file://{tmp_path}/store", f"run_dir={tmp_path}/runs"]
    config = compose.compose(words)
    assert describe_training(config).key == "train-b0-digits-DIGEST"
    assert not (tmp_path / "store").exists()
    plan = shard._plan(config.data, config.storage)
    for numbers in plan.groups:
        shard._write_group(config.data, plan.root, numbers)
    run = train_job(config, config.data, config.recipe, shard._write_manifest(config.data, plan.root), None)
    spec = describe_training(config)
    assert (spec.key, spec.job_uri, spec.label) == (run.key, run.job_uri, run.label)
    assert main(["train", "--dry-run", *words]) == 0
    output = capsys.readouterr()
    assert output.out == f"{slurm.describe(spec)}\n"
    assert output.err == ""


@pytest.mark.parametrize(
    ("verb", "module"),
    with_slow_rest(
        [
            *((name, "models.train") for name, verb in VERBS.items() if verb.trains and name != "train"),
            ("evaluate", "models.evaluate"),
        ],
        plain=3,
    ),
)
def test_a_verb_with_many_jobs_prints_how_each_is_submitted(
    verb: str, module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = VERBS[verb].needs
    words = [f"{needs[0]}={needs[1]}"] if needs is not None else []
    cluster = ["launch.engine=slurm", *TWO_MACHINES, "launch.slurm.partition=gpu", f"run_dir={tmp_path}/runs"]
    assert main([verb, "--dry-run", *words, *cluster]) == 0
    output = capsys.readouterr()
    assert "#SBATCH --job-name=KEY\n" in output.out
    assert "#SBATCH --partition=gpu\n" in output.out
    assert f" -m {module} s3://effnet/jobs/KEY\n" in output.out
    assert output.err.startswith(f"note: each job of effnet {verb} is submitted so, with its key in place of KEY")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_is_one_line_with_exit_code_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "--dry-run", "launch.engine=slurm", f"storage=file://{tmp_path}/my store"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["train", "--dry-run", "data=folder", f"data.path={tmp_path}/absent"]) == 2
    assert "/absent' does not exist" in capsys.readouterr().err
    assert main(["train", "--dry-run", "data=folder"]) == 2
    assert "data=folder needs data.path=" in capsys.readouterr().err
    assert main(["nightly", "--dry-run", "data@transfer.data=folder"]) == 2
    assert "transfer.data: data=folder needs data.path=" in capsys.readouterr().err
    assert main(["train", "--dry-run", "model.resolution=0.01"]) == 2
    assert "2 px are too few for efficientnet_b0" in capsys.readouterr().err
    assert main(["plan", "search", "data=folder", f"data.path={tmp_path}/absent"]) == 2
    assert "/absent' does not exist" in capsys.readouterr().err
    assert main(["train", "--dry-run", "launch.nnodes=2"]) == 2
    assert "launch.nnodes=2 needs launch.rendezvous=HOST:PORT" in capsys.readouterr().err
