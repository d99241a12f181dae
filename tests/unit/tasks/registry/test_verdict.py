"""Verdicts, and versions whose alias or state another process has written, or was killed before it wrote it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from conf import compose, schema
from flows.cli import champions
from flows.cli.command import Command
from infra.tracking import champions as champion_moves
from infra.tracking import registration, registry
from infra.tracking.registry import Version
from tasks.nights import approval, line
from tasks.registry import family
from tasks.registry.promote import is_pending
from tasks.registry.register import new_version
from tasks.registry.verdict import PENDING, REASON, STATE, WAITING, WAITING_UNTIL, add_notes

KILLED = {STATE: PENDING, REASON: "promoted: better"}
LINE = "b0-pets"


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, str]]:
    """Tags of the versions of a line in a registry in memory; version 2 is champion, version 1 was it before."""
    versions: dict[int, dict[str, str]] = {1: {STATE: "promoted"}, 2: dict(KILLED)}
    aliases = {"champion": 2, "previous": 1}
    base = Version("b0", 7, "", (), {}, created=0.0)

    def resolve(ref: str) -> Version:
        name, _, number = ref.partition("/")
        name, _, alias = name.partition("@")
        version = aliases[alias] if alias else int(number)
        held = tuple(alias for alias, number in aliases.items() if number == version)
        return Version(name, version, "", held, dict(versions[version]), created=0.0)

    def find_alias(name: str, alias: str) -> Version | None:
        return resolve(f"{name}@{alias}") if name == LINE and alias in aliases else None

    def set_tags(name: str, version: int, new: Mapping[str, str]) -> None:
        versions[version].update(new)

    functions: dict[str, Callable[..., object]] = {
        "resolve_version": lambda ref: base if ref == "b0@champion" else resolve(ref),
        "find_alias": find_alias,
        "champion": lambda name: find_alias(name, "champion"),
        "set_tags": set_tags,
        "promote": lambda name, version, alias: aliases.update({alias: version}),
        "versions": lambda name: [],  # of which no card is written
    }
    for name, function in functions.items():
        monkeypatch.setattr(registry, name, function)
    return versions


def test_notes_stand_before_the_command_that_promotes() -> None:
    assert add_notes("promoted: better", "", "not tried") == "promoted: better; not tried"
    verdict = add_notes("not promoted: worse; to promote it anyway: effnet promote b0-pets/2 --why TEXT", "a", "b")
    assert verdict == "not promoted: worse; a; b; to promote it anyway: effnet promote b0-pets/2 --why TEXT"


def test_a_challenger_whose_alias_another_process_has_moved_is_returned_with_it(
    tags: dict[int, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Version(LINE, 2, "run", ("previous",), {registry.WEIGHTS_TAG: "sha"}, reused=True)
    monkeypatch.setattr(registration, "register", lambda *_, **__: before)
    monkeypatch.setattr(champion_moves, "move_challenger", lambda *_: None)
    moved = Version(LINE, 2, "run", ("challenger",), {registry.WEIGHTS_TAG: "sha"})
    monkeypatch.setattr(registry, "resolve_version", lambda _: moved)
    version = new_version("run", LINE, tmp_path, "{}", {}, f"file://{tmp_path}")
    assert (version.aliases, version.reused) == (("challenger",), True)


def test_the_next_night_completes_the_promotion_of_its_champion(tags: dict[int, dict[str, str]]) -> None:
    config = compose.compose(["nightly.model=b0", "transfer.data.name=pets"])
    assert line._find_start(config).parent == f"{LINE}/2"
    assert tags[2] == {STATE: "promoted", REASON: "promoted: better"}
    tags[2][STATE] = "tied"
    line._find_start(config)
    assert tags[2][STATE] == "tied", "no other verdict is changed"


@pytest.mark.parametrize("verb", ["rollback", "promote"])
def test_a_champion_that_a_user_replaces_is_not_judged_again(
    verb: str, tags: dict[int, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champions, "connect", lambda *_: None)
    config = compose.compose([f"storage=file://{tmp_path}"])
    ref = LINE if verb == "rollback" else f"{LINE}/1"
    command = Command(verb, (ref,), [], config, options={"why": "it was wrong at night"})
    assert getattr(champions, verb)(command) == 0
    assert registry.resolve_version(f"{LINE}@champion").version == 1
    assert not is_pending(f"{LINE}/2")


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_version_that_a_user_promotes_while_a_night_refuses_it_for_lack_of_an_approval_is_promoted(
    when: str, tags: dict[int, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags[1] = {STATE: WAITING, WAITING_UNTIL: "2000-01-01", REASON: "passed the gate", registry.WEIGHTS_TAG: "0" * 64}
    monkeypatch.setattr(champions, "connect", lambda *_: None)
    config = compose.compose([f"storage=file://{tmp_path}"])
    command = Command("promote", (f"{LINE}/1",), [], config, options={"why": "it is needed"})
    sent: list[str] = []
    listed = [registry.resolve_version(f"{LINE}/{number}") for number in tags]
    if when == "before":
        champions.promote(command)

    def send(_: schema.Alerts, text: str) -> None:
        champions.promote(command)
        sent.append(text)

    monkeypatch.setattr(family, "describe_family", lambda _: None)  # which lists the versions, too
    monkeypatch.setattr(registry, "versions", lambda _: listed)
    monkeypatch.setattr(approval.alerts, "send", send)
    approval._refuse_overdue(LINE, config, time.time())
    assert registry.resolve_version(f"{LINE}@champion").version == 1
    assert tags[1][STATE] == "promoted"
    assert tags[1][REASON].endswith(": it is needed")
    assert len(sent) == (when == "meanwhile")


@pytest.mark.parametrize("moves", [0, 1])
def test_a_version_that_is_promoted_in_mlflow_while_a_night_refuses_it_is_promoted_by_other_means(
    moves: int, tags: dict[int, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "describe_family", lambda _: None)
    config = compose.compose([f"storage=file://{tmp_path}"])
    monkeypatch.setattr(registry, "versions", lambda _: [registry.resolve_version(f"{LINE}/1")])
    if moves:
        champion_moves.move_champion(config.storage, LINE, 2, expected=2, why="better")
    tags[1] = {STATE: WAITING, WAITING_UNTIL: "2000-01-01", REASON: "passed the gate"}
    monkeypatch.setattr(approval.alerts, "send", lambda *_: registry.promote(LINE, 1, "champion"))
    approval._refuse_overdue(LINE, config, time.time())
    assert (tags[1][STATE], tags[1][REASON]) == ("promoted", "promoted by unknown: moved by other means than effnet")
