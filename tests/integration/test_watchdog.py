"""A watchdog that is alone with its troubles, in a process that it may end; among ranks: test_faults.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Rank 0 of two, whose agent's store runs in a process of its own; the main thread makes no progress.
STUCK = """
import multiprocessing, os, signal, sys, time
import torch.distributed
from torch import device
from conf.schema import Runtime
from models.training.supervision import watchdog
from models.training.distributed import Ranks
from models.training.supervision.preemption import Preemption

def serve(port):
    store = torch.distributed.TCPStore("127.0.0.1", 0, None, True)
    port.send(store.port)
    time.sleep(60)

ours, theirs = multiprocessing.Pipe()
agent = multiprocessing.get_context("fork").Process(target=serve, args=(theirs,))
agent.start()
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(ours.recv()))
watchdog.SILENT_S, watchdog.END_S = 1.0, 2.0
def failed(error):
    {failed}
dog = watchdog.Watchdog(sys.argv[1], Ranks(0, 2, device("cpu")), Runtime(step_timeout_s=3), Preemption(), failed)
dog.enter("step")
time.sleep(1.5)
{trouble}
try:
    time.sleep(15)
finally:
    agent.kill()
"""


def ended(tmp_path: Path, trouble: str = "", failed: str = "agent.kill()") -> subprocess.CompletedProcess[str]:
    code = STUCK.format(trouble=trouble, failed=failed)
    (folder := tmp_path / "job").mkdir()
    return subprocess.run(
        [sys.executable, "-c", code, f"file://{tmp_path}"],
        capture_output=True,
        text=True,
        timeout=150,  # an import of torch, on a machine that may be busy
        env={**os.environ, "EFFNET_JOB_FOLDER": str(folder)},
    )


@pytest.mark.parametrize("stopped", [False, True])
def test_a_hang_is_found_also_where_torchruns_store_has_stopped_answering(stopped: bool, tmp_path: Path) -> None:
    end = ended(tmp_path, "os.kill(agent.pid, signal.SIGSTOP)" if stopped else "")
    assert end.returncode == 9, end.stderr
    assert "rank 0: no progress in phase step for 3 s (runtime.step_timeout_s)" in end.stderr
    assert ("torchrun's store does not answer" in end.stderr) is stopped
    assert "most recent call first" in (tmp_path / "stacks/rank-0.txt").read_text()
    # The guard empties this folder; in /tmp the file of each killed rank would stay.
    assert [path.name[:14] for path in (tmp_path / "job/scratch").iterdir()] == ["effnet-stacks-"]


def test_a_rank_that_hangs_ends_although_its_cause_cannot_be_told(tmp_path: Path) -> None:
    assert ended(tmp_path, failed="agent.kill(); time.sleep(300)").returncode == 9
