"""Service processes: what is stopped is also reaped."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from pathlib import Path

import pytest

from infra.services import processes, proctable
from infra.services.processes import Program


def test_a_process_of_which_only_threads_are_left_is_waited_for_and_reaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, looks = proctable.living, itertools.count()

    def leader_is_gone() -> dict[int, int]:
        """Linux shows a process as dead whose first thread has ended, and gives it to nobody before the last has."""
        return living() if next(looks) < 2 else {}

    slow = ("sh", "-c", "trap 'sleep 0.3; exit' TERM; while :; do sleep 0.05; done")
    handle = processes.start(tmp_path, Program("slow", slow, dict(os.environ), tmp_path))
    time.sleep(0.3)  # for the trap
    monkeypatch.setattr(proctable, "living", leader_is_gone)
    assert processes.stop(tmp_path, ["slow"]) == ["slow"]
    with pytest.raises(ChildProcessError):  # no child of ours any more, not even a dead one
        os.waitpid(handle.pid, os.WNOHANG)


@pytest.mark.skipif(not proctable.has_proc(), reason="needs /proc")
def test_a_process_whose_name_is_no_text_is_listed_with_the_others(tmp_path: Path) -> None:
    program = tmp_path / os.fsdecode(b"\xff) Z 1 1")  # the system takes the name of the file, whatever its bytes are
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        try:
            assert proctable.living()[process.pid] == os.getpgrp()
            assert proctable.born(process.pid) is not None
        finally:
            process.kill()
