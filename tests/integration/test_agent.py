"""The agent of torchrun and its ranks as real processes: what they are, what they write, and how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_jobs import wait
from matrix import with_slow_rest

from conf import compose, schema
from conf.schema import Launch
from infra import store
from infra.launch import command, local
from infra.launch.local import Command, LocalJob


@pytest.fixture
def started() -> Iterator[list[LocalJob]]:
    """Jobs to end whatever the test comes to."""
    jobs: list[LocalJob] = []
    yield jobs
    for job in jobs:
        local.cancel(job)


@pytest.mark.torchrun
@pytest.mark.parametrize(
    ("end", "expected"),
    with_slow_rest(
        [
            ("os.kill(os.getpid(), 9)", 137),
            ("sys.exit(3)", 3),
            # The agent is asked to end while its ranks still start, and torch leaves with a traceback and a 1.
            ("os.kill(os.getppid(), 15); time.sleep(30)", 8),
        ]
    ),
)
def test_the_exit_code_says_how_the_rank_that_failed_first_ended(
    end: str, expected: int, tmp_path: Path, started: list[LocalJob]
) -> None:
    (tmp_path / "rank.py").write_text(f"import os, sys, time\ndef main():\n    {end}\n")
    torchrun = command.torchrun_argv(Launch(max_restarts=0), "rank", "the-job")
    started.append(job := local.start(Command(torchrun, {"PYTHONPATH": path_with(tmp_path)}, tmp_path)))
    assert wait(job, 120) == expected, local.logs(job)
    assert not (tmp_path / "scratch").exists()  # torchrun's own files, which it leaves in /tmp otherwise


@pytest.mark.torchrun
def test_a_signal_in_a_callback_where_python_ignores_exceptions_ends_the_agent(
    tmp_path: Path, started: list[LocalJob]
) -> None:
    """As those of the logging module around a fork: the agent went on as if nothing had been sent."""
    (tmp_path / "rank.py").write_text(
        "import os, time\n"
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), 15))\n"
        "def main():\n    time.sleep(30)\n"
    )
    torchrun = command.torchrun_argv(Launch(max_restarts=0), "rank", "the-job")
    started.append(job := local.start(Command(torchrun, {"PYTHONPATH": path_with(tmp_path)}, tmp_path)))
    began = time.monotonic()
    assert wait(job, 120) == 8, local.logs(job)
    assert time.monotonic() - began < 25


@pytest.mark.torchrun
def test_a_rank_is_a_fork_of_the_agent_with_its_imports_and_a_session_and_signals_of_its_own(
    tmp_path: Path, started: list[LocalJob]
) -> None:
    (tmp_path / "rank.py").write_text(
        "import gc, json, os, signal, sys, time\n"
        "imported_by = os.getpid()\n"
        "def main():\n"
        "    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]\n"
        f"    out = open({str(tmp_path)!r} + '/rank-' + os.environ['RANK'], 'w')\n"
        "    out.write(json.dumps([imported_by == os.getppid(), os.getsid(0) == os.getpid(), sys.argv, "
        "os.environ['RANK'], [handler == signal.SIG_DFL for handler in handlers], gc.get_freeze_count() > 10_000]))\n"
    )
    torchrun = command.torchrun_argv(Launch(nproc_per_node=2, max_restarts=0), "rank", "the-job")
    started.append(job := local.start(Command(torchrun, {"PYTHONPATH": path_with(tmp_path)}, tmp_path)))
    assert wait(job, 120) == 0, local.logs(job)
    ranks = [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1)]
    assert ranks == [[True, True, ["rank", "the-job"], rank, [True, True], True] for rank in ("0", "1")]


@pytest.mark.torchrun
def test_ranks_run_where_the_agent_is_the_first_process_as_in_a_pod(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text("from models.training import distributed\ndef main(): distributed.join()\n")
    container = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    if subprocess.run([*container, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs Linux namespaces of an ordinary user")
    torchrun = command.torchrun_argv(Launch(nproc_per_node=2, max_restarts=0), "rank", "the-job")
    variables = {**os.environ, "PYTHONPATH": path_with(tmp_path), "TMPDIR": str(tmp_path)}
    ended = subprocess.run([*container, *torchrun], env=variables, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def path_with(folder: Path) -> str:
    return os.pathsep.join([str(folder), *sys.path])


@pytest.mark.torchrun
def test_sigterm_ends_an_agent_that_waits_for_the_others() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--nnodes=2", "--rdzv-backend=effnet", f"--rdzv-endpoint=127.0.0.1:{port}", "--log-dir=/dev/null"]
    agent = subprocess.Popen([sys.executable, "-m", "models.training.agent", *arguments, "-m", "models.evaluate"])
    deadline = time.monotonic() + 60
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    time.sleep(0.5)  # it listens, and waits
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(30) in (8, -signal.SIGTERM)  # before torch has its handler: as a signal ends any process


def test_what_a_rank_writes_to_its_log_is_escaped(tmp_path: Path) -> None:
    """Its log line, and the traceback of an error that nobody foresaw; libraries write no progress between them."""
    job = schema.Job(kind="train", data_name="x", manifest_uri="s3://b/m", manifest_sha256="0" * 64)
    (tmp_path / "config.yaml").write_text(compose.to_yaml(job))
    program = (
        "import logging, sys\nfrom models import worker\n"
        "def main(job, worker):\n    logging.getLogger('effnet').warning('image %s', 'a\\x1b[31m\\n.jpg')\n"
        "    logging.getLogger('effnet').info('step 1')\n"
        "    logging.getLogger('botocore.regions').info('Found endpoint')\n"
        "    raise RuntimeError('label b\\x1b[31m\\u202e')\n"
        f"sys.argv = ['x', 'file://{tmp_path}']\nsys.exit(worker.run(main))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert all(line.isprintable() for line in done.stderr.split("\n"))
    assert r"image a\x1b[31m\n.jpg" in done.stderr
    assert "step 1" in done.stderr
    assert "Found endpoint" not in done.stderr
    assert r"RuntimeError: label b\x1b[31m\u202e" in done.stderr
    assert store.read_json(f"file://{tmp_path}/failure.json")["error"] == r"RuntimeError: label b\x1b[31m\u202e"
