"""The torchrun command as text, and the guard that leaves no process behind; real ranks: integration/test_agent.py."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_jobs import until, wait

from conf import compose, launch
from conf.schema import Launch
from infra import machine, store
from infra.launch import command, guard, local, workpool
from infra.launch.engine import ENGINES
from infra.launch.job import JobSpec
from infra.launch.local import Command, LocalJob
from infra.services import proctable
from models.training import agent

# A worker as torchrun makes them: in a session of its own, so no signal to a process group reaches it.
FAMILY = """
import subprocess, sys, time
far = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(120)"], start_new_session=True)
import os
open(sys.argv[1] + ".tmp", "w").write(f"{os.getpid()} {far.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(float(sys.argv[2]))
"""


def test_the_torchrun_command_of_a_job() -> None:
    argv = command.torchrun_argv(Launch(nproc_per_node=4, max_restarts=2), "models.train", "s3://b/jobs/x", "py")
    assert " ".join(argv) == (
        "py -m models.training.agent --nnodes=1 --rdzv-backend=effnet --rdzv-endpoint=127.0.0.1:0 --rdzv-id=x "
        "--nproc-per-node=4 --max-restarts=2 -m models.train s3://b/jobs/x"
    )


def test_on_several_nodes_their_number_is_fixed_and_the_first_one_is_the_meeting_point() -> None:
    launch = Launch(nnodes=2, rendezvous="n1:29500", interface="ib0")
    argv = command.torchrun_argv(launch, "models.train", "s3://b/jobs/x", "py")
    assert " ".join(argv[3:8]) == (
        "--nnodes=2 --rdzv-backend=effnet --rdzv-endpoint=n1:29500 --rdzv-conf=interface=ib0 --rdzv-id=x"
    )


def test_a_machine_reads_the_word_of_its_job_from_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = local.share_token(f"file://{tmp_path}/job")
    monkeypatch.setenv(command.TOKEN_URI, uri)
    monkeypatch.setenv(command.RENDEZVOUS_TOKEN, "")
    monkeypatch.setattr(agent, "elastic_launch", lambda config, entrypoint: lambda *words: None)
    assert agent.main(["-m", "models.evaluate", f"file://{tmp_path}/job"]) == 0
    assert len(os.environ[command.RENDEZVOUS_TOKEN]) == 32
    assert os.environ[command.RENDEZVOUS_TOKEN].encode() == store.read(local.share_token(f"file://{tmp_path}/job"))


def test_an_interface_for_one_node_is_refused() -> None:
    with pytest.raises(ValueError, match=r"launch\.interface is for launch\.nnodes > 1"):
        Launch(interface="eth0")


def test_a_job_inherits_nothing_that_an_outer_launcher_left(
    tmp_path: Path, started: list[LocalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = {
        "PET_NNODES": "2",
        "PET_MASTER_PORT": "1",
        "RANK": "7",
        "LOCAL_RANK": "3",
        "WORLD_SIZE": "9",
        "LOCAL_WORLD_SIZE": "9",
        "GROUP_RANK": "1",
        "ROLE_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "TORCHELASTIC_RUN_ID": "outer",
        "EFFNET_JOB_FOLDER": "/elsewhere",
    }
    kept = {"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_ID": "8", "RANKING": "x"}
    for name, value in (dropped | kept).items():
        monkeypatch.setenv(name, value)
    tell = "import json, os, sys; open(sys.argv[1], 'w').write(json.dumps(dict(os.environ)))"
    started.append(job := local.start(python(tmp_path, tell, str(tmp_path / "environment"), OURS="1")))
    assert wait(job) == 0
    child = json.loads((tmp_path / "environment").read_text())
    assert {name: child.get(name) for name in dropped} == {**dict.fromkeys(dropped), "EFFNET_JOB_FOLDER": str(tmp_path)}
    assert {name: child.get(name) for name in kept} == kept
    assert child["OURS"] == "1"


def test_several_nodes_without_a_meeting_point_are_refused() -> None:
    with pytest.raises(ValueError, match=r"launch\.nnodes=2 needs launch\.rendezvous=HOST:PORT"):
        Launch(nnodes=2)


@pytest.mark.parametrize(
    ("launch", "cores", "threads"),
    [(Launch(nproc_per_node=4), 16, "4"), (Launch(nproc_per_node=8), 2, "1"), (Launch(threads_per_proc=3), 16, "3")],
)
def test_the_cores_are_shared_out_among_the_processes(launch: Launch, cores: int, threads: str) -> None:
    environment = command.job_environment(launch, cores, "cache")
    assert environment["OMP_NUM_THREADS"] == threads
    assert environment["EFFNET_CACHE"] == "cache"
    assert environment["PYTHONUNBUFFERED"] == "1"


def command_in(folder: Path, *argv: str, **env: str) -> Command:
    return Command(list(argv), env, folder)


def python(folder: Path, code: str, *argv: str, **env: str) -> Command:
    return command_in(folder, sys.executable, "-S", "-c", code, *argv, **env)


def family(folder: Path, seconds: float = 120) -> Command:
    return python(folder, FAMILY, str(folder / "pids"), str(seconds))


def pids_of(folder: Path) -> list[int]:
    assert until((folder / "pids").exists)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def gone(pids: list[int]) -> bool:
    return until(lambda: not any(proctable.born(pid) for pid in pids))


@pytest.fixture
def started() -> Iterator[list[LocalJob]]:
    """Jobs to end whatever the test comes to."""
    jobs: list[LocalJob] = []
    yield jobs
    for job in jobs:
        local.cancel(job)


SUPERVISOR = """
import sys, time
from pathlib import Path
from infra.launch import local
local.start(local.Command(sys.argv[2:], {}, Path(sys.argv[1])))
time.sleep(120)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_with_far_grandchildren_dies_with_its_supervisor(number: int, tmp_path: Path) -> None:
    job = family(tmp_path)
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(tmp_path), *job.argv])
    pids = pids_of(tmp_path)
    assert all(proctable.born(pid) for pid in pids)
    assert local.find_in(job.folder) is not None
    supervisor.send_signal(number)
    supervisor.wait(10)
    assert gone(pids)
    assert until(lambda: local.find_in(job.folder) is None)


def test_a_cancelled_job_is_gone_with_its_grandchildren_when_cancel_returns(tmp_path: Path) -> None:
    job = local.start(family(tmp_path))
    pids = pids_of(tmp_path)
    local.cancel(job)
    assert not any(proctable.born(pid) for pid in pids)
    assert local.poll(job) == 128 + signal.SIGTERM
    assert job.death_fd is None


def test_a_job_that_ends_by_itself_leaves_no_grandchildren(tmp_path: Path, started: list[LocalJob]) -> None:
    started.append(job := local.start(family(tmp_path, seconds=0.2)))
    assert wait(job) == 0
    assert not any(proctable.born(pid) for pid in pids_of(tmp_path))


def test_a_supervisor_with_many_open_files_runs_a_job_and_ends_it(tmp_path: Path, started: list[LocalJob]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("this user may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
    try:
        started.append(job := local.start(family(tmp_path)))
        pids = pids_of(tmp_path)
        assert job.death_fd is not None
        assert job.death_fd > 1023
        local.cancel(job)
        assert wait(job) == 128 + signal.SIGTERM
        assert gone(pids)
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_job_dies_with_its_guard(tmp_path: Path, started: list[LocalJob]) -> None:
    started.append(job := local.start(family(tmp_path)))
    near, far = pids_of(tmp_path)
    assert job.process is not None
    job.process.kill()
    assert gone([near])  # torchrun; its ranks ask the system for the same (models/training/distributed.py)
    os.kill(far, signal.SIGKILL)


def test_a_killed_guard_counts_as_a_loss_and_its_files_are_swept_at_the_next_start(
    tmp_path: Path, started: list[LocalJob]
) -> None:
    leave = "import os, time; os.mkdir('scratch'); open('scratch/stacks.txt', 'w'); print('first'); time.sleep(120)"
    started.append(job := local.start(python(tmp_path, f"import os; os.chdir({str(tmp_path)!r}); {leave}")))
    assert until((tmp_path / "scratch/stacks.txt").exists)
    assert job.process is not None
    job.process.kill()
    assert wait(job) == 128 + signal.SIGKILL
    assert (tmp_path / "scratch").exists()
    started.append(again := local.start(python(tmp_path, "import os; print(os.listdir())")))
    assert wait(again) == 0
    assert not (tmp_path / "scratch").exists()
    assert (tmp_path / "log.1.txt").exists()


def test_a_start_that_gives_way_leaves_the_log_of_the_running_job(tmp_path: Path, started: list[LocalJob]) -> None:
    started.append(first := local.start(python(tmp_path, "print('mine', flush=True); import time; time.sleep(120)")))
    assert until(lambda: "mine" in local.logs(first))
    started.append(second := local.start(python(tmp_path, "print('never')")))
    assert wait(second) == guard.ALREADY_RUNNING
    assert local.logs(first) == "mine"


@pytest.mark.parametrize(
    ("mode", "expected"), [(None, "0o700 0o600"), (0o755, "0o755 0o600"), (0o2770, "0o2770 0o660")]
)
def test_a_job_s_files_are_for_those_who_may_write_into_its_folder(
    mode: int | None, expected: str, tmp_path: Path, started: list[LocalJob]
) -> None:
    folder = tmp_path / "jobs" / "x"
    if mode is not None:
        folder.mkdir(parents=True)
        folder.chmod(mode)
    write = f"open({str(folder / 'theirs')!r}, 'w')"
    started.append(job := local.start(python(folder, write)))
    assert wait(job) == 0
    modes = {oct(stat.S_IMODE((folder / name).stat().st_mode)) for name in ("theirs", "log.txt")}
    assert f"{oct(stat.S_IMODE(folder.stat().st_mode))} {' '.join(modes)}" == expected


def test_a_job_that_does_not_want_to_end_is_killed(
    tmp_path: Path, started: list[LocalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.3)
    stubborn = "import signal, sys, time; signal.signal(15, 1); open(sys.argv[1], 'w').write('0'); time.sleep(120)"
    started.append(job := local.start(python(tmp_path, stubborn, str(tmp_path / "pids"))))
    pids_of(tmp_path)
    began = time.monotonic()
    local.cancel(job)
    assert local.poll(job) == 128 + signal.SIGKILL
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("code", "expected"),
    [("raise SystemExit(0)", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_the_command_s_exit_code_comes_through(
    code: str, expected: int, tmp_path: Path, started: list[LocalJob]
) -> None:
    started.append(job := local.start(python(tmp_path, code)))
    assert wait(job) == expected


def test_a_second_guard_on_the_same_folder_gives_way(tmp_path: Path, started: list[LocalJob]) -> None:
    started.append(first := local.start(family(tmp_path)))
    pids = pids_of(tmp_path)
    started.append(second := local.start(python(tmp_path, "print('never')")))
    assert wait(second) == guard.ALREADY_RUNNING == 97
    assert local.poll(first) is None
    assert all(proctable.born(pid) for pid in pids)
    assert "never" not in local.logs(first)


def test_a_running_job_is_found_watched_and_left_alone_by_others(tmp_path: Path, started: list[LocalJob]) -> None:
    asked = family(tmp_path)
    assert local.find_in(asked.folder) is None
    started.append(job := local.start(asked))
    pids_of(tmp_path)
    found = local.find_in(asked.folder)
    assert found is not None
    assert local.poll(found) is None
    local.cancel(found)
    assert local.poll(job) is None
    local.cancel(job)
    assert local.poll(found) == 0
    assert local.find_in(asked.folder) is None


def test_the_last_lines_of_a_job_and_its_variables_are_in_its_log(tmp_path: Path, started: list[LocalJob]) -> None:
    code = "import os, sys\nfor i in range(40): print('line', i)\nsys.stderr.write(os.environ['GREETING'])"
    asked = python(tmp_path, code, GREETING="hello")
    assert local.logs(LocalJob(asked)) == ""
    started.append(job := local.start(asked))
    wait(job)
    lines = local.logs(job).splitlines()
    assert lines == [*(f"line {i}" for i in range(16, 40)), "hello"]


def test_a_job_is_described_by_what_would_be_submitted(tmp_path: Path) -> None:
    spec = JobSpec("train-x-1", "train x", "models.train", "s3://b/p/jobs/train-x-1", Launch(), tmp_path)
    assert local.describe(spec) == " ".join(local.build_command(spec).argv)
    request = json.loads(workpool.describe(spec))
    assert (request["deployment"], request["tags"]) == ("job/job", ["effnet.job:train-x-1"])
    assert request["parameters"] == {
        "key": "train-x-1",
        "storage": "s3://b/p",
        "label": "train x",
        "launch": compose.to_yaml(Launch()),
        "code": machine.training_code(),
    }


def test_the_engines_that_may_be_set_are_those_that_exist() -> None:
    assert tuple(ENGINES) == launch.ENGINES
    for engine in ENGINES.values():
        assert all(
            callable(getattr(engine, name))
            for name in ("check", "describe", "submit", "find", "poll", "logs", "cancel")
        )
