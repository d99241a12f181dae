"""The alias champion with a real MLflow and the real object store: compare-and-set, audit chain, verbs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra import store
from infra.errors import ArtifactError, ConfigError
from infra.tracking import champions, client, registry, rest
from infra.tracking.champions import move_challenger, move_champion, read_history

pytestmark = pytest.mark.services


def make_versions(name: str, count: int, *, of_effnet: bool = True) -> None:
    """Versions without files; only their numbers matter here."""
    with client.connection() as mlflow:
        mlflow.create_registered_model(name)
        for number in range(count):
            tags = {registry.WEIGHTS_TAG: f"{number:064x}"} if of_effnet else {}
            mlflow.create_model_version(name, "s3://nowhere/model", tags=tags)


@pytest.fixture
def storage(object_store: str, mlflow_uri: str, tmp_path: Path) -> str:
    return f"{object_store}/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}"


def champion(name: str) -> int | None:
    version = registry.champion(name)
    return None if version is None else version.version


def moves(storage: str, name: str) -> list[tuple[int | None, int | None]]:
    return [(move.old, move.new) for move in read_history(storage, name)]


def test_a_move_is_recorded_and_leaves_the_version_before_as_previous(storage: str) -> None:
    make_versions("recorded", 2)
    assert move_champion(storage, "recorded", 1, expected=None, why="the first") is not None
    second = move_champion(storage, "recorded", 2, expected=1, why="better", evidence={"compared_n": "120"})
    assert second is not None
    assert (champion("recorded"), registry.resolve_version("recorded@previous").version) == (2, 1)
    first, last = read_history(storage, "recorded")
    assert last == second
    assert (last.old, last.new, last.why, last.evidence) == (1, 2, "better", {"compared_n": "120"})
    assert "@" in last.who
    assert last.when.endswith("UTC")
    stored = store.read(f"{storage}/champions/recorded/000001.json")
    assert (first.before_sha256, last.before_sha256) == ("", hashlib.sha256(stored).hexdigest())


def test_a_move_from_a_version_that_is_not_champion_changes_nothing(storage: str) -> None:
    make_versions("expected", 2)
    move_champion(storage, "expected", 1, expected=None, why="the first")
    assert move_champion(storage, "expected", 2, expected=None, why="late") is None
    assert (champion("expected"), moves(storage, "expected")) == (1, [(None, 1)])


def challenger(name: str) -> int:
    return registry.resolve_version(f"{name}@challenger").version


def test_a_version_that_is_registered_again_does_not_take_the_alias_challenger_back(storage: str) -> None:
    make_versions("repeated", 3)
    assert move_challenger(storage, "repeated", 1, "registered") is not None
    assert move_challenger(storage, "repeated", 3, "registered", {"n": "120"}) is not None
    assert move_challenger(storage, "repeated", 2, "registered") is None
    assert move_challenger(storage, "repeated", 3, "registered") is None
    assert challenger("repeated") == 3
    chain = read_history(storage, "repeated", "challenger")
    assert [(move.old, move.new, move.evidence) for move in chain] == [(None, 1, {}), (1, 3, {"n": "120"})]
    assert moves(storage, "repeated") == [], "the chain of the champion is another one"
    with pytest.raises(ConfigError):
        registry.resolve_version("repeated@previous")


def test_versions_that_are_registered_at_the_same_time_leave_the_newest_as_challenger(storage: str) -> None:
    make_versions("registered", 8)
    order = [3, 8, 1, 6, 2, 7, 5, 4]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: move_challenger(storage, "registered", number, "registered"), order))
    assert challenger("registered") == 8
    chain = [(move.old, move.new) for move in read_history(storage, "registered", "challenger")]
    assert [old for old, _ in chain] == [None, *(new for _, new in chain[:-1])]
    assert [new for _, new in chain] == sorted(new for _, new in chain if new is not None)


def test_a_move_in_mlflow_is_recorded_before_the_next_one(storage: str) -> None:
    make_versions("outside", 3)
    move_champion(storage, "outside", 1, expected=None, why="the first")
    registry.promote("outside", 2, registry.CHAMPION)
    assert move_champion(storage, "outside", 3, expected=1, why="late") is None
    assert move_champion(storage, "outside", 3, expected=2, why="better") is not None
    assert moves(storage, "outside") == [(None, 1), (1, 2), (2, 3)]
    assert read_history(storage, "outside")[1].why == champions.OUTSIDE


def test_a_move_whose_process_ended_before_the_alias_moved_is_completed(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_versions("ended", 3)
    move_champion(storage, "ended", 1, expected=None, why="the first")

    def end(name: str, version: int, alias: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(registry, "promote", end)
        with pytest.raises(KeyboardInterrupt):
            move_champion(storage, "ended", 2, expected=1, why="better")
    assert champion("ended") == 1
    monkeypatch.setattr(champions, "TAKEOVER_S", 0.2)
    assert move_champion(storage, "ended", 3, expected=2, why="better still") is not None
    assert (champion("ended"), moves(storage, "ended")) == (3, [(None, 1), (1, 2), (2, 3)])


@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_a_chain_with_a_changed_or_deleted_entry_is_refused(storage: str, damage: str) -> None:
    name = f"damage-{damage}"
    make_versions(name, 3)
    for number in (1, 2, 3):
        move_champion(storage, name, number, expected=number - 1 or None, why="better")
    uri = f"{storage}/champions/{name}/000002.json"
    if damage == "changed":
        store.write(uri, store.read(uri).replace(b"better", b"worse!"))
    else:
        store.delete(uri)
    with pytest.raises(ArtifactError, match=r"000003\.json does not follow entry"):
        read_history(storage, name)


MOVER = """
import sys
from infra.tracking import champions, registry
storage, name, rank, count, rounds = *sys.argv[1:3], *map(int, sys.argv[3:])
def champion():
    version = registry.champion(name)
    return None if version is None else version.version
champion()  # everything is imported
print("ready", flush=True)
sys.stdin.readline()
for round in range(rounds):
    version = 1 + round * count + rank  # a later version is a better one
    while (current := champion()) is None or current < version:
        if champions.move_champion(storage, name, version, expected=current, why="better"):
            break
"""
PROCESSES, ROUNDS = 8, 20


@pytest.mark.slow
def test_eight_processes_that_promote_at_once_leave_the_best_one_linear_chain_and_no_gap(storage: str) -> None:
    make_versions("crowded", PROCESSES * ROUNDS)
    move_champion(storage, "crowded", 1, expected=None, why="the first")
    command = [sys.executable, "-c", MOVER, storage, "crowded"]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(PROCESSES), str(ROUNDS)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for rank in range(PROCESSES)
    ]
    seen: list[int | None] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            seen.append(champion("crowded"))

    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        reader = threading.Thread(target=watch)
        reader.start()
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(300) for process in started] == [0] * PROCESSES
    finally:
        stop.set()
        for process in started:
            process.kill()
            process.communicate()
    reader.join()
    assert None not in seen
    assert len(seen) > 20
    versions = [version for version in seen if version is not None]
    assert versions == sorted(versions)  # no reader saw the alias go back
    chain = moves(storage, "crowded")
    assert champion("crowded") == PROCESSES * ROUNDS == chain[-1][1]
    assert len(chain) >= 20
    assert [old for old, _ in chain[1:]] == [new for _, new in chain[:-1]]


def effnet(services_dir: Path, storage: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *words, f"storage={storage}", f"run_dir={services_dir}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)


def described_champion(name: str) -> tuple[str, str]:
    """The version that the page of a registered model names as champion, and the accuracy in the list of models."""
    model = rest.get("registered-models/get", name=name)["registered_model"]
    (version,) = re.findall(r"Champion, the version to use: version (\d+)", model["description"])
    return version, {tag["key"]: tag["value"] for tag in model["tags"]}["top1"]


def test_a_model_of_somebody_else_keeps_its_aliases_and_its_description(storage: str, services_dir: Path) -> None:
    make_versions("made-elsewhere", 1, of_effnet=False)
    with client.connection() as mlflow:
        mlflow.update_registered_model("made-elsewhere", "a model for prices")
        mlflow.set_registered_model_alias("made-elsewhere", "champion", "1")
    for words in (["promote", "made-elsewhere/1", "--why", "x"], ["rollback", "made-elsewhere"]):
        done = effnet(services_dir, storage, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: MLflow has a model made-elsewhere that is not effnet's"), done.stderr
    with client.connection() as mlflow:
        model = mlflow.get_registered_model("made-elsewhere")
        assert (model.description, model.aliases, model.tags) == ("a model for prices", {"champion": "1"}, {})


def test_a_user_promotes_a_version_and_takes_it_back_in_seconds(storage: str, services_dir: Path) -> None:
    make_versions("by-hand", 2)
    for version in (1, 2):
        shown = {"variant": "efficientnet_b0", "params": "7", "resolution": "24", "top1": f"{90 + version}"}
        registry.set_tags("by-hand", version, shown)
    refused = effnet(services_dir, storage, "rollback", "by-hand")
    assert (refused.returncode, refused.stderr) == (2, "error: by-hand has no alias 'champion'; aliases: none\n")
    move_champion(storage, "by-hand", 1, expected=None, why="the first")
    first = effnet(services_dir, storage, "rollback", "by-hand")
    assert (first.returncode, first.stderr) == (
        2,
        "error: by-hand had no champion before version 1; to make another version champion: "
        "effnet promote by-hand/VERSION --why TEXT\n",
    )
    unexplained = effnet(services_dir, storage, "promote", "by-hand/2")
    assert (unexplained.returncode, champion("by-hand")) == (2, 1)
    done = effnet(services_dir, storage, "promote", "by-hand/2", "--why", "seen on the test bench")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "champion of by-hand is by-hand/2; it was by-hand/1, now @previous\n"
    assert described_champion("by-hand") == ("2", "92")
    tags = registry.resolve_version("by-hand@champion").tags
    assert tags["promotion"] == "promoted"
    assert tags["promotion_reason"].endswith(": seen on the test bench")
    began = time.monotonic()
    back = effnet(services_dir, storage, "rollback", "by-hand", "--why", "it was slow")
    assert time.monotonic() - began < 15  # 5 s are promised on a machine that does nothing else
    assert back.returncode == 0, back.stderr
    assert back.stdout == "champion of by-hand is by-hand/1; it was by-hand/2, now @previous\n"
    assert described_champion("by-hand") == ("1", "91")
    assert [move.why for move in read_history(storage, "by-hand")] == [
        "the first",
        "seen on the test bench",
        "rollback of version 2: it was slow",
    ]
    again = effnet(services_dir, storage, "promote", "by-hand/1", "--why", "once more")
    assert (again.returncode, again.stdout) == (0, "by-hand/1 is champion already\n")
    kept = effnet(services_dir, storage, "promote", "by-hand/1", "--why", "once more", "--json")
    nobody = {"previous": None, "who": None, "when": None, "why": None, "notes": []}
    assert json.loads(kept.stdout) == {"name": "by-hand", "champion": 1, "moved": False} | nobody
    moved = effnet(services_dir, storage, "rollback", "by-hand", "--json")
    last = read_history(storage, "by-hand")[-1]
    of_move = {"previous": 1, "who": last.who, "when": last.when, "why": "rollback of version 1", "notes": []}
    assert json.loads(moved.stdout) == {"name": "by-hand", "champion": 2, "moved": True} | of_move
    assert "champion of by-hand is by-hand/2; it was by-hand/1, now @previous\n" in moved.stderr
