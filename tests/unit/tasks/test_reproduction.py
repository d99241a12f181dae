"""The duration of a reproduction that was repeated, on a store of files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conf import compose
from infra import store
from models.results import Summary
from tasks.reproduction import keep_first_duration

FOUND = Summary(wall_s=18.0, jobs=21, jobs_found=21, config_sha256="ab")


def test_the_duration_of_the_run_that_did_the_jobs_is_kept_through_repetitions(tmp_path: Path) -> None:
    config = compose.compose([f"storage=file://{tmp_path}"])
    uri = f"file://{tmp_path}/reports/{config.profile}/summary.json"
    assert keep_first_duration(config, FOUND) == FOUND, "nothing is known of an earlier run"
    store.write_json(uri, {"wall_s": 505.0, "config_sha256": "ab", "first_wall_s": None})
    repeated = keep_first_duration(config, FOUND)
    assert (repeated.wall_s, repeated.first_wall_s) == (18.0, 505.0)
    store.write_json(uri, {"wall_s": 18.0, "config_sha256": "ab", "first_wall_s": 505.0})
    assert keep_first_duration(config, FOUND).first_wall_s == 505.0


def test_another_configuration_new_jobs_or_a_damaged_summary_keep_nothing(tmp_path: Path) -> None:
    config = compose.compose([f"storage=file://{tmp_path}"])
    uri = f"file://{tmp_path}/reports/{config.profile}/summary.json"
    store.write_json(uri, {"wall_s": 505.0, "config_sha256": "ab"})
    for summary in (replace(FOUND, config_sha256="cd"), replace(FOUND, jobs_found=20)):
        assert keep_first_duration(config, summary).first_wall_s is None
    for damaged in (b"{", b"[]", b'{"wall_s": "long", "config_sha256": "ab"}'):
        store.write(uri, damaged)
        assert keep_first_duration(config, FOUND).first_wall_s is None
