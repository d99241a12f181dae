"""Which log of a job is printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conf import compose
from flows.cli import browse
from flows.cli.command import Command
from infra.tracking.queries import RunRecord


def test_of_several_attempts_on_slurm_the_newest_log_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As text, job 999 of Slurm follows job 1000."""
    store = tmp_path / "store"
    store.mkdir()
    for age, (name, text) in enumerate([("slurm-1000.txt", "second"), ("slurm-999.txt", "first"), ("log.txt", "here")]):
        (store / name).write_text(text)
        os.utime(store / name, (1000 - age, 1000 - age))
    run = RunRecord("id", "train x", "train-x-1", "FAILED", 0.0, 1.0, "", {}, {}, {"job_uri": f"file://{store}"})
    monkeypatch.setattr(browse, "connect", lambda *_: None)
    monkeypatch.setattr("infra.tracking.queries.find_run", lambda *_: run)
    overrides = [f"run_dir={tmp_path}/runs"]
    assert browse.logs(Command("logs", ("train-x-1",), overrides, compose.compose(overrides))) == 0
    assert capsys.readouterr().out == "second\n"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (("a" * 64, "b" * 64), (f"{'a' * 12}…", f"{'b' * 12}…")),
        ((f"s3://x/{'0' * 63}1", f"s3://x/{'0' * 63}2"), (f"s3://x/{'0' * 63}1", f"s3://x/{'0' * 63}2")),
        (("66.2921", "55.0562"), ("66.29", "55.06")),
        (("66.29211", "66.29212"), ("66.29211", "66.29212")),
        (("0.00786033", "-"), ("0.00786", "-")),
        (("312500", "1.2.0"), ("312500", "1.2.0")),
    ],
)
def test_digests_and_numbers_of_a_comparison_are_short_while_they_differ(
    values: tuple[str, str], shown: tuple[str, str]
) -> None:
    assert browse._readable(*values) == shown
