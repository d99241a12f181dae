"""Service processes: what is stopped is also reaped."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from infra.services import processes, proctable
from infra.services.processes import Program


def test_a_process_that_dies_between_two_looks_at_it_is_reaped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = proctable.living

    def late() -> dict[int, int]:
        time.sleep(0.3)
        return living()

    handle = processes.start(tmp_path, Program("sleeper", ("sleep", "60"), dict(os.environ), tmp_path))
    monkeypatch.setattr(proctable, "living", late)
    assert processes.stop(tmp_path, ["sleeper"]) == ["sleeper"]
    with pytest.raises(ChildProcessError):  # no child of ours any more, not even a dead one
        os.waitpid(handle.pid, os.WNOHANG)
