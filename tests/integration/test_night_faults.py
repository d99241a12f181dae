"""Nights that are killed, repeated or started several times at once: one version, one training, one move."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from night_rig import add_images, night_settings, register_base

from conf.overrides import replace
from infra import store
from infra.services.stack import Addresses
from infra.tracking import champions, queries, registry

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE, LINE = "s3://effnet/night-faults", "fault-base-grown"

# Imports everything once. For every line of input, forks as many processes as it says, which run a night at the same
# time, and prints how they ended. MODULE:FUNCTION:WHEN ends a process by SIGKILL before or after that call; `tomorrow`
# moves the date of the record by a day.
NIGHTS = """
import asyncio, importlib, os, signal, sys
import datetime as datetimes
from prefect import flow
import infra.tracking.champions, mlflow, tasks.nights.batch, tasks.evaluate, tasks.nights.report, tasks.supervise
from flows.nightly import nightly
from infra.tracking import registry
from tasks.nights import record

def end_at(place):
    module, name, when = place.split(":")
    module = importlib.import_module(module)
    call = getattr(module, name)
    def killed(*args, **options):
        if when == "after":
            call(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, killed)

class Tomorrow(datetimes.datetime):
    @classmethod
    def now(cls, zone=None):
        return datetimes.datetime.now(zone) + datetimes.timedelta(days=1)

def run(place):
    if place == "tomorrow":
        record.datetime = Tomorrow
    elif place != "-":
        end_at(place)
    try:
        result = asyncio.run(nightly(sys.argv[1:]))
        run = registry.resolve_version(f"{result.name}/{result.version}").run_id
        print(result.verdict, flush=True)
        print("answer", result.version, run, flush=True)
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
        os._exit(1)
    os._exit(0)

print("ready", flush=True)
for line in sys.stdin:
    count, place = line.split()
    children = [os.fork() or run(place) for _ in range(int(count))]
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print("ended", *ends, flush=True)
"""
KILLS = [  # the states of a night, in their order
    "tasks.nights.record:_open:after",
    "tasks.nights.start:resolve_start:after",
    "tasks.shard:_plan:after",
    "tasks.nights.batch:_open_batch:after",
    "tasks.shard:_write_manifest:after",
    "tasks.nights.line:_find_reason_to_skip:after",
    "tasks.nights.line:_check_data:after",
    "tasks.supervise:_checked_status:before",  # while the champion is evaluated on the new images
    "tasks.nights.batch:_check_labels:before",
    "tasks.registry.register:_fetch:after",
    "tasks.supervise:_feed_mlflow:before",
    "tasks.registry.register:_register:before",
    "infra.tracking.champions:_apply:before",  # of the challenger
    "tasks.registry.register:_publish_card:before",
    "tasks.nights.infra_gate:_try_package:after",
    "tasks.supervise:_checked_status:before",  # while the champion is evaluated on val
    "tasks.registry.promote:promote:before",
    "infra.tracking.champions:_apply:before",
    "infra.tracking.champions:_apply:after",
    "tasks.nights.batch:_close_batch:before",
    "tasks.nights.record:_close:before",
    "tasks.nights.report:publish_page:before",
]
Night = Callable[..., list[int]]
ACCEPTING = ("nightly.rule=not_worse", "nightly.margin=100", "nightly.class_margin=100")


@pytest.fixture
def answers() -> list[str]:
    """Version and MLflow run that each night answered so far."""
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_images(tmp_path / "images", 0, 240)
    return tmp_path / "images"


@pytest.fixture
def start_nights(
    request: pytest.FixtureRequest,
    services: Addresses,
    services_dir: Path,
    folder: Path,
    alerted: list[str],
    answers: list[str],
    tmp_path: Path,
) -> Iterator[Night]:
    """Runs nights at the same time; returns their exit codes. By default an equal challenger replaces the champion."""
    base = register_base("fault-base", STORAGE, tmp_path / "base")
    chosen = getattr(request, "param", ACCEPTING)
    common = [*night_settings(base, folder, STORAGE), "transfer.data.append=true", f"run_dir={services_dir}"]
    settings = replace(common, chosen)
    environment = {**os.environ, "PREFECT_LOGGING_LEVEL": "ERROR"}
    with subprocess.Popen(
        [sys.executable, "-c", NIGHTS, *settings],
        text=True,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said: list[str] = []

        def read(word: str) -> str:
            for line in process.stdout or ():
                said.append(line)
                if line.startswith(word):
                    return line
            raise AssertionError("".join(said[-60:]))

        def start(count: int = 1, place: str = "-") -> list[int]:
            assert process.stdin is not None
            process.stdin.write(f"{count} {place}\n")
            process.stdin.flush()
            codes = [int(code) for code in read("ended").split()[1:]]
            print("".join(said[-200:]))
            answers[:] = [line.removeprefix("answer ").strip() for line in said if line.startswith("answer ")]
            return codes

        read("ready")
        yield start
        process.stdin.close()


def finished_jobs() -> set[str]:
    return {
        key
        for uri in store.list_uris(f"{STORAGE}/jobs")
        if uri.endswith("/result.json") and (key := uri.split("/")[-2]).startswith("finetune-")
    }


def trainings() -> int:
    """Runs of trainings in MLflow, however they ended."""
    return sum(run.key.startswith("finetune-") for run in queries.list_runs("night-faults", 100))


def moves() -> list[tuple[int | None, int | None]]:
    return [(move.old, move.new) for move in champions.read_history(STORAGE, LINE)]


def records() -> list[str]:
    return [str(store.read_json(uri)["outcome"]) for uri in store.list_uris(f"{STORAGE}/nights/{LINE}")]


@pytest.mark.slow
def test_a_night_killed_in_every_state_and_then_repeated_ends_with_one_training_one_version_and_one_move(
    start_nights: Night, folder: Path, alerted: list[str]
) -> None:
    assert start_nights() == [0]
    assert (moves(), trainings()) == ([(None, 1)], 1)
    add_images(folder, 240, 300)
    for place in KILLS:
        assert start_nights(1, place) == [-signal.SIGKILL], place
    assert start_nights() == [0]
    first = registry.versions(LINE)[1]
    assert start_nights(2) == [0, 0]  # the same night again
    assert start_nights(1, "tomorrow") == [0]

    assert [version.version for version in registry.versions(LINE)] == [1, 2]
    assert registry.versions(LINE)[1] == first
    assert len(finished_jobs()) == trainings() == 2
    assert moves() == [(None, 1), (1, 2)]
    assert registry.resolve_version(f"{LINE}@champion").version == 2
    assert records() == ["promoted", "skipped"]
    assert alerted == []


@pytest.mark.slow
@pytest.mark.parametrize("start_nights", [("transfer.data.name=declined", "nightly.chance_margin=100")], indirect=True)
def test_a_night_killed_while_its_version_is_declined_ends_with_one_version_and_one_alert(
    start_nights: Night, alerted: list[str]
) -> None:
    for place in ("tasks.registry.promote:decline:before", "tasks.registry.promote:decline:after"):
        assert start_nights(1, place) == [-signal.SIGKILL], place
    assert start_nights() == [0]
    assert start_nights() == [0]
    (version,) = registry.versions("fault-base-declined")
    assert version.tags["promotion"] == "refused"
    assert registry.champion("fault-base-declined") is None
    (uri,) = store.list_uris(f"{STORAGE}/nights/fault-base-declined")
    record = store.read_json(uri)
    assert (record["outcome"], record["version"]) == ("refused", 1)
    assert len([text for text in alerted if ": refused: fault-base-declined/1: " in text]) == 1


@pytest.mark.slow
def test_eight_nights_started_at_once_and_one_after_them_train_once_and_answer_the_same(
    start_nights: Night, folder: Path, answers: list[str]
) -> None:
    before = trainings()
    add_images(folder, 300, 340)  # a line of its own: other images than those of the other test
    assert start_nights(8) == [0] * 8
    assert start_nights() == [0]
    assert trainings() == before + 1
    assert len(registry.versions(LINE)) == len(moves())
    assert len(answers) == 9
    assert len(set(answers)) == 1, answers
