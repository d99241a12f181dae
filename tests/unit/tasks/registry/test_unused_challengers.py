"""Which versions of nights nothing points to."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from infra import store
from infra.tracking.champions import AliasMove
from infra.tracking.queries import References
from infra.tracking.registry import Version
from tasks.registry.unused_challengers import find_unused

LINE, OLD = "b0-pets", 1000.0
REFERENCES = References(frozenset(), frozenset({f"{LINE}/3"}), frozenset({"night"}))


def made(number: int, state: str = "refused", aliases: tuple[str, ...] = (), **tags: str) -> Version:
    tags = {"promotion": state, "job_uri": f"s3://other/jobs/{number}", "weights_sha256": f"{number}" * 64, **tags}
    return Version(LINE, number, "night", aliases, tags, created=OLD)


def unused(
    versions: list[Version], storage: str, *started_from: str, limit: float = 2 * OLD, nights: int = 1
) -> list[int]:
    ours = [replace(one, tags={**one.tags, "job_uri": f"{storage}/jobs/{one.version}"}) for one in versions]
    return [one.version for one in find_unused(ours, storage, REFERENCES, started_from, limit, nights)]


def test_versions_that_lost_and_that_nothing_points_to_are_unused(tmp_path: Path) -> None:
    storage = f"file://{tmp_path}"
    versions = [
        made(1, "promoted"),
        made(2),
        made(3),  # a later night started from it
        made(4, "tied"),
        made(5, "waiting"),
        made(6, "pending"),
        made(7, aliases=("mine",)),
        made(8),
        made(9),
        made(10),  # the newest
    ]
    assert unused(versions, storage) == [2, 4, 8, 9]
    weights = f"{storage}/weights/{'2' * 64}.safetensors"
    assert unused(versions, storage, weights, f"{storage}/jobs/8/weights.safetensors") == [4, 9]
    assert unused(versions, storage, limit=OLD - 1) == []
    by_hand = [replace(one, run_id="effnet train") for one in versions]
    assert unused(by_hand, storage) == []
    assert find_unused(versions, storage, REFERENCES, [], 2 * OLD, 1) == [], "their jobs are in another store"


def test_versions_that_were_champion_by_other_means_and_those_of_nights_of_late_are_kept(tmp_path: Path) -> None:
    storage = f"file://{tmp_path}"
    versions = [made(number) for number in range(1, 6)]
    move = AliasMove(1, LINE, None, 1, "unknown", "2026-11-29", "moved by other means than effnet")
    store.write_json(f"{storage}/champions/{LINE}/000001.json", vars(move))
    store.write_json(f"{storage}/nights/{LINE}/2026-11-29.json", {"outcome": "refused", "verdict": "", "version": 2})
    assert unused(versions, storage) == [4]
    later = [replace(one, created=0.0) for one in versions]
    store.write_json(f"{storage}/nights/{LINE}/2026-11-30.json", {"outcome": "skipped", "verdict": ""})
    assert unused(later, storage, limit=time.time() + 1) == [2, 4]
    assert unused(later, storage, limit=time.time() + 1, nights=2) == [4], "of the last two nights"


@pytest.mark.parametrize("place", [f"champions/{LINE}/000001.json", f"nights/{LINE}/2026-11-29.json"])
def test_all_versions_of_a_line_are_kept_whose_history_cannot_be_read(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(f"file://{tmp_path}/{place}", b"damaged")
    assert unused([made(number) for number in range(1, 6)], f"file://{tmp_path}") == []
    assert f"the versions of {LINE} are kept: " in caplog.text
