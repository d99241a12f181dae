"""A wrong schedule is refused without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.__main__ import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedule", "at three"], "'at three' is not a schedule: a cron expression has five fields"),
        (["--schedule", "61 3 * * *"], "'61 3 * * *' is not a schedule"),
        (["--schedule", "0 3 * * *", "--timezone", "Berlin"], "'Berlin' is not a time zone"),
    ],
)
def test_a_wrong_schedule_is_refused_before_a_server_is_needed(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    assert main(["nightly", *words, f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
