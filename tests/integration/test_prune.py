"""`effnet prune` on the real store and registry: what is kept, what is deleted, and what comes into use meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from conf import compose, schema
from conf.data_set import EvalTransform
from flows.__main__ import main
from infra import store
from infra.errors import ConfigError
from infra.tracking import client, registry, removal, runs
from models.networks import export
from models.networks.build import build_model
from tasks.registry.prune import (
    CHECKPOINTS,
    UNFINISHED,
    UNFINISHED_DATA,
    UNUSED_DATA,
    UNUSED_JOB,
    UNUSED_SET,
    UNUSED_VERSION,
    UNUSED_WEIGHTS,
    plan_removals,
    remove,
    remove_unchanged,
)
from tasks.registry.register import WEIGHTS, describe_network, new_version

pytestmark = pytest.mark.services
DAY_S = 86400.0
LATER = time.time() + 40 * DAY_S  # the store sets the times of objects, so the clock of the test is ahead
SHA = "c" * 64
WHOLE, HALF = "1" * 16, "2" * 16  # folders of data sets


@pytest.fixture
def storage(mlflow_uri: str, tmp_path: Path) -> Iterator[str]:
    root = f"s3://effnet/prune-{abs(hash(str(tmp_path)))}"
    yield root
    store.delete_prefix(root)


def make_job(storage: str, key: str, *, done: bool = True, run: bool = False, start: str | None = None) -> str:
    """A run folder as a trainer leaves it, with one checkpoint."""
    uri = f"{storage}/jobs/{key}"
    job = schema.Job("train", data_name="made", manifest_uri="s3://x", manifest_sha256="0", init_weights_uri=start)
    store.write(f"{uri}/config.yaml", compose.to_yaml(job).encode())
    store.write(f"{uri}/checkpoints/step-1.safetensors", b"12345")
    if done:
        store.write(f"{uri}/weights.safetensors", b"weights")
        store.write(f"{uri}/result.json", b"{}")
    if run:
        runs.start_run("prune", key, f"{storage} {key}", params={}, tags={"job_uri": uri})
    return uri


def make_known(storage: str) -> str:
    """A finished job without checkpoints that MLflow knows, as the store of this MLflow has; returns its result."""
    uri = f"{storage}/jobs/known"
    store.write(f"{uri}/result.json", b"{}")
    runs.start_run("prune", "known", f"{storage} known", params={}, tags={"job_uri": uri})
    return f"{uri}/result.json"


def register(name: str, **tags: str) -> None:
    with client.connection() as mlflow:
        mlflow.create_registered_model(name)
        mlflow.create_model_version(name, "s3://nowhere/model", tags=tags)


def settings(storage: str, *words: str) -> schema.Config:
    return compose.compose([f"storage={storage}", "prune.older_than_days=30", "run_dir=/nowhere", *words])


def planned(storage: str, now: float = LATER) -> dict[str, str]:
    return {entry.folder.removeprefix(f"{storage}/"): entry.what for entry in plan_removals(settings(storage), now)}


def test_only_what_nothing_points_to_is_deleted(storage: str) -> None:
    registered = make_job(storage, "registered")
    register(f"kept-{storage[-6:]}", job_uri=registered, weights_sha256=SHA)
    make_job(storage, "tracked", run=True)
    parent = make_job(storage, "parent")
    copied = f"{storage}/weights/{'a' * 64}.safetensors"
    make_job(storage, "child", run=True, start=f"{parent}/weights.safetensors")
    make_job(storage, "from-copy", run=True, start=copied)
    make_job(storage, "forgotten")
    make_job(storage, "killed", done=False, run=True)
    rung = make_job(storage, "rung", done=False)
    store.write(f"{rung}/until-00002.json", b"{}")
    make_job(storage, "evaluate-b0-v1-made")
    for digest in ("a" * 64, "b" * 64, SHA):
        store.write(f"{storage}/weights/{digest}.safetensors", b"copy")
    store.write(f"{storage}/data/whole/{WHOLE}/manifest.json", b"{}")
    store.write(f"{storage}/data/whole/{WHOLE}/train-0.tar", b"tar")
    store.write(f"{storage}/data/half/{HALF}/train-0.tar", b"tar")
    store.write(f"{storage}/data/whole/val/first.json", b"{}")  # a frozen val
    store.write(f"{storage}/data/theirs/tars/train-0.tar", b"tar")  # of the user, who may read them in place
    store.write(f"{storage}/champions/name/000001.json", b"{}")
    store.write(f"{storage}/reports/laptop/summary.json", b"{}")

    assert planned(storage) == {
        "jobs/registered": CHECKPOINTS,
        "jobs/tracked": CHECKPOINTS,
        "jobs/parent": CHECKPOINTS,
        "jobs/child": CHECKPOINTS,
        "jobs/from-copy": CHECKPOINTS,
        "jobs/forgotten": UNUSED_JOB,
        "jobs/killed": UNFINISHED,
        f"weights/{'b' * 64}.safetensors": UNUSED_WEIGHTS,
        f"data/half/{HALF}": UNFINISHED_DATA,
    }
    before = store.list_uris(storage)
    removals = plan_removals(settings(storage), LATER)
    assert remove(removals, settings(storage), LATER) == removals
    gone = {uri.removeprefix(f"{storage}/") for uri in set(before) - set(store.list_uris(storage))}
    assert gone == {
        *(f"jobs/{key}/checkpoints/step-1.safetensors" for key in ("registered", "tracked", "parent", "child")),
        "jobs/from-copy/checkpoints/step-1.safetensors",
        *(f"jobs/forgotten/{name}" for name in ("config.yaml", "result.json", "weights.safetensors")),
        "jobs/forgotten/checkpoints/step-1.safetensors",
        "jobs/killed/config.yaml",
        "jobs/killed/checkpoints/step-1.safetensors",
        f"weights/{'b' * 64}.safetensors",
        f"data/half/{HALF}/train-0.tar",
    }
    assert plan_removals(settings(storage), LATER) == []


def test_versions_of_a_data_set_that_no_job_was_made_for_are_deleted_but_for_the_first_and_the_newest(
    storage: str,
) -> None:
    make_known(storage)
    folder = f"{storage}/data/grown/{WHOLE}"
    names = ["manifest.json", *(f"manifest-000{number}.json" for number in (2, 3, 4))]
    for name in names:
        store.write_json(f"{folder}/{name}", {"shards": [], "table": "0" * 64})
    job = schema.Job("train", data_name="grown", manifest_uri=f"{folder}/manifest-0002.json", manifest_sha256="0")
    uri = make_job(storage, "of-second", run=True)
    store.write(f"{uri}/config.yaml", compose.to_yaml(job).encode())
    assert planned(storage, time.time() + 29 * DAY_S) == {}
    assert planned(storage) == {f"data/grown/{WHOLE}": UNUSED_DATA, "jobs/of-second": CHECKPOINTS}
    (removal,) = [one for one in plan_removals(settings(storage), LATER) if one.what == UNUSED_DATA]
    assert [entry.uri for entry in removal.entries] == [f"{folder}/manifest-0003.json"]
    assert removal.size == len(store.read(f"{folder}/manifest-0003.json"))
    assert remove([removal], settings(storage), LATER) == [removal]
    names.remove("manifest-0003.json")
    assert store.list_uris(folder) == sorted(f"{folder}/{name}" for name in names)


def test_whole_data_sets_of_old_nights_are_deleted_with_the_trainings_whose_versions_are_gone(
    mlflow_uri: str, tmp_path: Path
) -> None:
    storage = f"file://{tmp_path}/store"
    make_known(storage)
    roots = [f"{storage}/data/grown/{number:016x}" for number in range(5)]
    for number, root in enumerate(roots):
        store.write_json(f"{root}/manifest.json", {"shards": [], "table": "0" * 64})
        store.write(f"{root}/train-00000-of-00001.tar", b"tar")
        store.write_json(
            f"{root}/unaccepted-0001-5f0c9a31.json", {"version": "0001-5f0c9a31", "state": "refused", "reason": "x"}
        )
        for file in Path(root.removeprefix("file://")).iterdir():
            os.utime(file, (number, number))

    def train(key: str, root: str, **tags: str) -> str:
        uri = make_job(storage, key)
        job = schema.Job("train", data_name="grown", manifest_uri=f"{root}/manifest.json", manifest_sha256="0")
        store.write(f"{uri}/config.yaml", compose.to_yaml(job).encode())
        store.delete(f"{uri}/checkpoints/step-1.safetensors")
        runs.start_run("prune", key, f"{storage} {key}", params={}, tags={"job_uri": uri, **tags})
        return uri

    train("of-lost-night", roots[0], role="nightly")
    register(f"night-{abs(hash(storage))}", job_uri=train("of-night", roots[1], role="nightly"), weights_sha256=SHA)
    train("by-hand", roots[2])
    words = ["prune.keep_nights=1"]

    def plan() -> dict[str, str]:
        removals = plan_removals(settings(storage, *words), LATER)
        return {one.folder.removeprefix(f"{storage}/"): one.what for one in removals}

    of_sets = {f"data/grown/{number:016x}": UNUSED_SET for number in (0, 3)}
    assert plan() == {"jobs/of-lost-night": UNUSED_JOB, **of_sets}
    removals = plan_removals(settings(storage, *words), LATER)
    assert remove(removals, settings(storage, *words), LATER) == removals
    assert store.list_uris(roots[0]) == [f"{roots[0]}/unaccepted-0001-5f0c9a31.json"]
    assert plan() == {}
    words = []
    assert plan() == {}


@pytest.mark.slow
def test_a_version_that_a_night_refused_is_deleted_with_its_files_once_nothing_points_to_it(
    storage: str, tmp_path: Path
) -> None:
    make_known(storage)
    name = f"line-{storage[-6:]}"
    model = compose.compose([]).model
    run = runs.start_run("prune", "night", f"{storage} night", params={}, tags={"role": "nightly"})
    versions = []
    for seed in range(4):
        torch.manual_seed(seed)
        export.save_weights(build_model(model, 5).state_dict(), tmp_path / WEIGHTS)
        description = describe_network(model, 24, list("abcde"), EvalTransform(0))
        tags = {"job_uri": f"{storage}/jobs/of-night-{seed}", "promotion": "refused"}
        versions.append(new_version(run, name, tmp_path, description, {"dataset": "letters"} | tags, storage))
    store.delete_prefix(f"{storage}/challengers")
    removals = plan_removals(settings(storage), LATER)
    of_line = [f"models:/{name}/{number}" for number in (3, 2, 1)]
    assert [(one.folder, one.what) for one in removals] == [(uri, UNUSED_VERSION) for uri in of_line]
    assert removals[0].size > len((tmp_path / WEIGHTS).read_bytes()) / 2

    interrupted = client.library().MlflowClient().get_model_version(name, "3").source
    client.library().MlflowClient().delete_logged_model(interrupted.removeprefix("models:/"))
    removals = plan_removals(settings(storage), LATER)
    assert [(one.folder, one.size > 0) for one in removals] == [
        (of_line[0], False),
        *((uri, True) for uri in of_line[1:]),
    ]

    source = client.library().MlflowClient().get_model_version(name, "1").source
    files = removal._open_files(client.library().MlflowClient(), source.removeprefix("models:/"))
    assert removal._measure(files, None) == removals[2].size
    assert remove(removals, settings(storage), LATER) == removals
    assert [version.version for version in registry.versions(name)] == [4]
    assert removal._measure(files, None) == 0
    removal.delete_version(name, 1)  # again, as after an interruption

    torch.manual_seed(0)
    export.save_weights(build_model(model, 5).state_dict(), tmp_path / WEIGHTS)
    again = new_version(run, name, tmp_path, description, {"dataset": "letters"}, storage)
    assert (again.version, again.reused) == (5, False)
    assert registry.fetch_weights(f"{name}/5", tmp_path / "fetched")[0].exists()


def test_what_was_written_lately_is_kept_even_if_nothing_points_to_it(storage: str) -> None:
    make_known(storage)
    make_job(storage, "running", done=False)
    make_job(storage, "new", start=f"{storage}/weights/{'b' * 64}.safetensors")
    store.write(f"{storage}/weights/{'b' * 64}.safetensors", b"copy")
    store.write(f"{storage}/data/sharding/{HALF}/train-0.tar", b"tar")
    assert planned(storage, time.time() + 29 * DAY_S) == {}
    assert len(planned(storage, time.time() + 31 * DAY_S)) == 4


def test_one_young_object_keeps_the_folder_of_a_job(mlflow_uri: str, tmp_path: Path) -> None:
    """E.g. its lease, which the machine renews that runs it, or its status."""
    storage = f"file://{tmp_path}"
    for key in ("leased", "reported", "silent"):
        make_job(storage, key, done=False)
    for path in tmp_path.rglob("*"):
        os.utime(path, (time.time() - 40 * DAY_S,) * 2)
    store.write(f"{storage}/jobs/leased/lease.json", b"{}")
    store.write(f"{storage}/jobs/reported/status.json", b"{}")
    assert planned(storage, time.time()) == {"jobs/silent": UNFINISHED}


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The queue of a stand-in for Slurm: a file that squeue prints, ``ID|STATE|COMMENT`` a line."""
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat {tmp_path}/queue\n")
    (tmp_path / "squeue").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "queue"


def test_a_job_that_waits_in_a_queue_is_kept_though_its_flow_has_died(storage: str, queue: Path) -> None:
    make_known(storage)
    waiting, ended = (make_job(storage, key, done=False) for key in ("waiting", "ended"))
    how = compose.compose(["launch.engine=slurm"]).launch
    for uri in (waiting, ended):
        store.write(f"{uri}/launch.yaml", compose.to_yaml(how).encode())  # the command is not told where they were sent
    queue.write_text(f"7|PENDING|{waiting}\n8|COMPLETED|{ended}\n")
    assert planned(storage) == {"jobs/ended": UNFINISHED}
    queue.write_text(f"7|RUNNING|{waiting}\n")
    assert planned(storage) == {"jobs/ended": UNFINISHED}
    queue.write_text("")
    assert planned(storage) == {"jobs/ended": UNFINISHED, "jobs/waiting": UNFINISHED}


def test_a_job_in_a_queue_keeps_the_version_of_its_data_and_the_job_that_it_starts_from(
    storage: str, queue: Path
) -> None:
    """As of a night whose flow has died; its version of the data is not accepted yet, so that no other job has it."""
    make_known(storage)
    folder = f"{storage}/data/grown/{WHOLE}"
    for number in ("", "-0002", "-0003"):
        store.write_json(f"{folder}/manifest{number}.json", {"shards": [], "table": "0" * 64})
    parent = make_job(storage, "parent")
    waiting = make_job(storage, "waiting", done=False)
    job = schema.Job("train", data_name="grown", manifest_uri=f"{folder}/manifest-0002.json", manifest_sha256="0")
    job.init_weights_uri = f"{parent}/weights.safetensors"
    store.write(f"{waiting}/config.yaml", compose.to_yaml(job).encode())
    how = compose.compose(["launch.engine=slurm"]).launch
    store.write(f"{waiting}/launch.yaml", compose.to_yaml(how).encode())
    queue.write_text(f"7|PENDING|{waiting}\n")
    assert planned(storage) == {"jobs/parent": CHECKPOINTS}
    queue.write_text("")
    assert set(planned(storage)) == {"jobs/parent", "jobs/waiting", f"data/grown/{WHOLE}"}


def test_all_versions_of_data_are_kept_while_the_request_of_a_kept_job_cannot_be_read(
    storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = f"{storage}/data/grown/{WHOLE}"
    for number in ("", "-0002", "-0003"):
        store.write_json(f"{folder}/manifest{number}.json", {"shards": [], "table": "0" * 64})
    uri = make_job(storage, "of-later-effnet", run=True)
    store.write(f"{uri}/config.yaml", b"kind: train\na_setting_of_a_later_version: 1\n")
    with caplog.at_level("WARNING", "effnet"):
        assert planned(storage) == {"jobs/of-later-effnet": CHECKPOINTS}
    assert "all versions of data sets are kept, since 1 jobs cannot be read" in caplog.text
    whole = schema.Job("train", data_name="made", manifest_uri="s3://x", manifest_sha256="0")
    store.write(f"{uri}/config.yaml", compose.to_yaml(whole).encode())
    assert f"data/grown/{WHOLE}" in planned(storage)


def test_jobs_of_an_engine_that_does_not_answer_are_kept_and_it_is_named_once(
    storage: str, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_known(storage)
    for key in ("first", "second"):  # of a version that did not record how it submitted them
        make_job(storage, key, done=False)
    lines: list[str] = []
    monkeypatch.setattr("tasks.registry.prune.log.warning", lambda text, *words: lines.append(text % words))
    assert {*planned(storage)} == {"jobs/first", "jobs/second"}
    (queue.parent / "squeue").unlink()
    monkeypatch.setenv("PATH", str(queue.parent))
    assert plan_removals(settings(storage, "launch.engine=slurm"), LATER) == []
    assert lines == [
        "unfinished jobs of launch.engine=slurm are kept: launch.engine=slurm: no squeue on PATH; run this on a login "
        "node of the cluster"
    ]


def test_a_job_that_is_resumed_or_registered_after_the_question_keeps_its_files(storage: str) -> None:
    make_known(storage)
    resumed = make_job(storage, "resumed", done=False)
    forgotten = make_job(storage, "forgotten")
    late = make_job(storage, "late")
    removals = plan_removals(settings(storage), LATER)
    assert len(removals) == 3
    time.sleep(1.1)  # the store's times are whole seconds; those of a real removal are weeks apart
    store.write(f"{resumed}/config.yaml", store.read(f"{resumed}/config.yaml"))  # what a supervisor does first
    register(f"late-{storage[-6:]}", job_uri=late)
    assert [removal.folder for removal in remove(removals, settings(storage), LATER)] == [forgotten]
    assert store.exists(f"{resumed}/checkpoints/step-1.safetensors")
    assert store.exists(f"{late}/weights.safetensors")


def test_what_is_written_while_a_folder_is_deleted_survives(storage: str) -> None:
    make_known(storage)
    make_job(storage, "forgotten")
    [removal] = plan_removals(settings(storage), LATER)
    written = f"{removal.folder}/status.json"
    listed = removal.seen
    store.write(written, b"{}")
    assert remove_unchanged(removal) is False
    store.delete(written)
    assert tuple(store.list_entries(removal.folder)) == listed
    assert remove_unchanged(removal) is True
    assert store.list_uris(removal.folder) == []


def test_the_verb_prints_first_and_deletes_only_with_a_yes(
    storage: str, services_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    shutil.rmtree(services_dir / "reports", ignore_errors=True)  # of other tests, which it would delete too
    known = make_known(storage)
    make_job(storage, "forgotten")
    words = [f"storage={storage}", f"run_dir={services_dir}", "prune.older_than_days=30"]
    assert main(["prune", *words]) == 2
    assert "this is no terminal: add --yes, or --dry-run" in capsys.readouterr().err

    monkeypatch.setattr("tasks.registry.prune.DAY_S", 0.0)  # thirty days have passed
    assert main(["prune", "--dry-run", *words]) == 0
    shown = capsys.readouterr()
    printed = shown.out.splitlines()
    assert shown.err == f"effnet prune: looking through {storage} and MLflow for what is in use\n"
    assert printed[1].split()[-5:-3] == ["to", "4"]
    assert printed[-1].startswith("in total   4 objects, ")
    assert store.exists(f"{storage}/jobs/forgotten/result.json")

    assert main(["prune", "--dry-run", "--json", *words]) == 0
    (row,) = json.loads(capsys.readouterr().out)["removals"]
    assert (row["what"], row["where"], row["objects"]) == (UNUSED_JOB, f"{storage}/jobs/forgotten", 4)
    assert not row["deleted"]

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert main(["prune", "--json", *words]) == 2
    assert "effnet prune --json asks no question: add --yes, or --dry-run" in capsys.readouterr().err
    monkeypatch.setattr("flows.cli.prune.ask", lambda _: False)
    assert main(["prune", *words]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing was deleted"
    assert store.exists(f"{storage}/jobs/forgotten/result.json")

    assert main(["prune", "--yes", "--json", *words]) == 0
    shown = capsys.readouterr()
    assert "deleted    4 objects, " in shown.err
    deleted = json.loads(shown.out)
    assert [one["deleted"] for one in deleted["removals"]] == [True]
    assert (deleted["bytes_deleted"], deleted["keep_nights"]) == (deleted["bytes"], 7)
    assert store.list_uris(storage) == [known]


def test_nothing_is_planned_by_an_mlflow_that_is_not_that_of_the_jobs(storage: str) -> None:
    make_job(storage, "theirs")
    with pytest.raises(ConfigError, match="MLflow knows none of the 1 finished jobs"):
        plan_removals(settings(storage), LATER)


def test_another_spelling_of_a_local_store_is_refused(tmp_path: Path) -> None:
    make_job(f"file://{tmp_path}", "job")
    config = settings(f"file://{tmp_path}")
    config.storage += "/."  # which the settings refuse
    with pytest.raises(ConfigError, match="write storage without"):
        plan_removals(config, LATER)
