"""A version that became champion, however it did, brings the images that it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, append_pending, refuse, shard

from conf import compose, schema
from conf.schema import Data
from flows.cli import champions
from infra import store
from infra.tracking import registry
from infra.tracking.registry import Version
from models.data.shards import acceptance
from models.results import ShardResult
from tasks.nights import line, start
from tasks.nights.start import NightStart, accept_data


@pytest.fixture
def data(tmp_path: Path) -> Data:
    add(tmp_path / "images", 0, 100)
    folder = str(tmp_path / "images")
    return Data(name="pets", source="folder", path=folder, minival_share=0.1, samples_per_shard=30, append=True)


@pytest.fixture
def refused(data: Data, tmp_path: Path) -> ShardResult:
    """Images that a night has refused."""
    shard(data, f"file://{tmp_path}/store")
    add(Path(str(data.path)), 100, 130)
    appended = append_pending(data, f"file://{tmp_path}/store")
    refuse(appended, "b0-pets/2 was refused, which was trained on them")
    return appended


def trained_on(shards: ShardResult, tmp_path: Path) -> Version:
    """A registered version that was trained on a data set."""
    job = schema.Job(
        "train", data_name="pets", manifest_uri=shards.manifest_uri, manifest_sha256=shards.manifest_sha256
    )
    store.write(f"file://{tmp_path}/jobs/of-night/config.yaml", compose.to_yaml(job).encode())
    return Version("b0-pets", 2, "", (), {"job_uri": f"file://{tmp_path}/jobs/of-night"})


def test_a_version_that_a_user_promotes_has_its_refused_images_accepted_once(
    refused: ShardResult, data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = trained_on(refused, tmp_path)
    mark = acceptance.find(refused.manifest_uri)
    assert mark is not None
    for _ in range(2):
        champions._accept_data(version)
    said = f"its data pets/{mark.version}, which a night had refused or not judged, are accepted\n"
    assert capsys.readouterr().out == said
    assert append_pending(data, f"file://{tmp_path}/store") == replace(refused, reused=True)


def test_a_champion_that_was_moved_by_other_means_has_its_images_accepted_by_the_next_night(
    refused: ShardResult, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = trained_on(refused, tmp_path)
    night = NightStart("b0-pets", "b0-pets/2", True, data)
    monkeypatch.setattr(start, "resolve_start", lambda _: night)
    monkeypatch.setattr(registry, "resolve_version", lambda _: version)
    assert line._find_start(compose.compose([])) == night
    assert acceptance.find(refused.manifest_uri) is None


@pytest.mark.parametrize("tags", [{}, {"job_uri": "file:///nowhere"}])
def test_a_champion_without_a_job_is_left_as_it_is(tags: dict[str, str]) -> None:
    assert accept_data(Version("b0", 1, "", (), tags)) == ""
