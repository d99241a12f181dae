"""The batch script as text, and how the answers of Slurm's commands are read; the commands here are stand-ins."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from conf import compose
from conf.schema import Launch, Slurm
from infra import errors
from infra.launch import slurm
from infra.launch.job import JobSpec
from infra.launch.slurm import SlurmJob

STAND_IN = "#!/bin/sh\nenv > {folder}/environment\ncat > /dev/null\necho '{out}'\necho '{err}' >&2\nexit {code}\n"


def spec_in(folder: Path, **launch: object) -> JobSpec:
    how = Launch(engine="slurm", **launch)  # type: ignore[arg-type]
    return JobSpec("train-x-1", "train x", "models.train", "s3://b/p/jobs/train-x-1", how, folder)


def stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, out: str = "", err: str = "", code: int = 0
) -> None:
    """A command of Slurm that gives one answer."""
    (program := folder / name).write_text(STAND_IN.format(folder=folder, out=out, err=err, code=code))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.fixture(autouse=True)
def empty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No list of jobs has been read yet, and the next one is empty."""
    monkeypatch.setattr(slurm, "_queue", slurm._Queue())
    stand_in(tmp_path, monkeypatch, "squeue")


def job(job_id: int = 7, *, adopted: bool = False) -> SlurmJob:
    return SlurmJob(job_id, "train x", "log", "file:///nowhere/log", adopted)


def test_the_script_requests_what_the_settings_say() -> None:
    cluster = Slurm("gpu,long", "team", "1-12:00:00", "a100|h100", "a100", ["--exclusive", "--qos=high"])
    launch = {"nnodes": 2, "nproc_per_node": 8, "gpus_per_node": 8, "cpus_per_node": 64, "memory_gb": 500}
    lines = slurm.describe(spec_in(Path("/shared/runs"), slurm=cluster, **launch)).splitlines()
    assert [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH ")] == [
        "job-name=train-x-1",
        "comment=s3://b/p/jobs/train-x-1",
        "nodes=2",
        "ntasks-per-node=1",
        "gres=gpu:a100:8",
        "cpus-per-task=64",
        "mem=500G",
        "partition=gpu,long",
        "account=team",
        "time=1-12:00:00",
        "constraint=a100|h100",
        "exclusive",
        "qos=high",
        "output=/dev/null",
        "requeue",
        "signal=TERM@90",
        "dependency=singleton",
    ]
    [step] = [line for line in lines if line.startswith("srun ")]
    assert step == (
        f"srun --kill-on-bad-exit=1 --cpus-per-task=64 {sys.executable} -m models.training.agent --nnodes=2 "
        "--rdzv-backend=effnet --rdzv-id=train-x-1 --nproc-per-node=8 --max-restarts=1 -m models.train "
        "s3://b/p/jobs/train-x-1"
    )


@pytest.mark.parametrize("runs_name", ["runs", "my $(id) 'runs'"])
def test_the_script_is_valid_bash_and_gives_each_process_its_share_of_the_cores(runs_name: str, tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text(
        '#!/bin/sh\ncase "$*" in *hostnames*) printf "n7\\nn8\\n";; *) echo "NodeName=n7 NodeAddr=10.0.0.7 A";; esac\n'
    )
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$PET_RDZV_ENDPOINT $OMP_NUM_THREADS $EFFNET_JOB_FOLDER"\nexit 3\n')
    (tmp_path / "nproc").write_text("#!/bin/sh\necho 10\n")
    for name in ("scontrol", "srun", "nproc"):
        (tmp_path / name).chmod(0o700)
    (runs := tmp_path / runs_name).mkdir()
    (scratch := runs / "jobs" / "train-x-1" / "scratch").mkdir(parents=True)
    spec = dataclasses.replace(spec_in(runs, nnodes=2, nproc_per_node=4), job_uri=f"file://{tmp_path}/store/jobs/x")
    script = slurm.describe(spec)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "41234", "SLURM_JOB_NODELIST": "n[7-8]"}
    done = subprocess.run(["bash", "-u", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    log = (scratch.parent / "slurm-41234.txt").read_text()
    assert log == f"10.0.0.7:11234 2 {scratch.parent}\n"
    assert not scratch.exists()
    assert (tmp_path / "store" / "jobs" / "x" / "slurm-41234.txt").read_text() == log


@pytest.mark.parametrize(
    ("word", "refusal"),
    [
        ("launch.slurm.partition='a b'", "launch.slurm.partition must be letters"),
        ("launch.slurm.account='x;id'", "launch.slurm.account must be letters"),
        ("launch.slurm.constraint='--x'", "launch.slurm.constraint must be letters"),
        ("launch.slurm.options=['--wrap=$(id)']", "is no option of sbatch"),
        (r"launch.slurm.options=['exclusive']", "is no option of sbatch"),
        ("launch.rendezvous='n1:1'", "launch.rendezvous is not for launch.engine=slurm"),
        ("launch.memory_gb=-1", "launch.memory_gb must be > 0, is -1"),
        ("launch.gpus_per_node=1", "launch.nproc_per_node=2 processes need as many GPUs"),
    ],
)
def test_a_value_that_would_be_another_line_or_option_is_refused(word: str, refusal: str) -> None:
    with pytest.raises(compose.OverrideError, match=refusal):
        compose.compose(["launch.engine=slurm", word])


def test_resources_are_for_engines_that_have_a_scheduler() -> None:
    with pytest.raises(ValueError, match=r"launch\.gpus_per_node is for schedulers, not for launch\.engine=local"):
        Launch(gpus_per_node=1)


def test_a_job_whose_folder_cannot_be_made_on_its_node_runs_and_says_so_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\necho no folder\nexit 1\n")
    (tmp_path / "srun").chmod(0o700)
    (tmp_path / "file").touch()
    spec = dataclasses.replace(spec_in(tmp_path / "file"), job_uri=f"file://{tmp_path}/store/jobs/x")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "41234", "TMPDIR": str(tmp_path)}
    assert subprocess.run(["bash", "-u", "-c", slurm.describe(spec)], env=environment, check=False).returncode == 1
    lost = dataclasses.replace(job(), log="/nowhere/log", log_uri=f"{spec.job_uri}/slurm-41234.txt")
    assert slurm.logs(lost) == "no folder"


@pytest.mark.parametrize("folder", ["/shared/my runs", '/shared/"', "/shared/$(id)", "/shared/a\nb"])
def test_a_run_folder_that_a_line_of_sbatch_cannot_hold_is_refused(folder: str) -> None:
    with pytest.raises(errors.ConfigError, match="has characters that --comment of sbatch does not take"):
        slurm.describe(dataclasses.replace(spec_in(Path("/runs")), job_uri=f"file://{folder}/jobs/x"))


def test_the_script_alone_is_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the options that the shell of the user, or an outer job, has in its environment."""
    stand_in(tmp_path, monkeypatch, "sbatch", "7")
    for name in ("SBATCH_PARTITION", "SLURM_CPUS_PER_TASK", "SLURM_CONF", "AWS_PROFILE"):
        monkeypatch.setenv(name, "x")
    slurm.check(Launch(engine="slurm"))
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert names & {"SBATCH_PARTITION", "SLURM_CPUS_PER_TASK", "SLURM_CONF", "AWS_PROFILE"} == {
        "SLURM_CONF",
        "AWS_PROFILE",
    }


def test_a_machine_without_slurm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ConfigError, match="no sbatch on PATH; run this on a login node"):
        slurm.check(Launch(engine="slurm"))


def test_an_account_that_the_cluster_does_not_know_is_refused_with_what_slurm_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a cluster with an accounting database checks accounts, and the one of the integration tests has none."""
    says = "allocation failure: Invalid account or account/partition combination specified"
    stand_in(tmp_path, monkeypatch, "sbatch", err=says, code=1)
    with pytest.raises(errors.ConfigError, match="sbatch refuses the job: allocation failure: Invalid account or"):
        slurm.check(Launch(engine="slurm", slurm=Slurm(account="nobody")))


def test_a_limit_of_submitted_jobs_is_waited_for_and_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = (
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: "
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    )
    stand_in(tmp_path, monkeypatch, "sbatch", err=says.replace("'", "'\\''"), code=1)
    slurm.check(Launch(engine="slurm"))
    with pytest.raises(
        errors.QueueFullError, match=r"limit of submitted jobs is reached \(QOSMaxSubmitJobPerUserLimit\)"
    ):
        slurm.submit(spec_in(tmp_path))


def test_a_controller_that_does_not_answer_is_no_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "sbatch", err="sbatch: error: Unable to contact slurm controller", code=1)
    with pytest.raises(errors.TransientError, match="Unable to contact"):
        slurm.check(Launch(engine="slurm"))
    stand_in(tmp_path, monkeypatch, "scontrol", err="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert slurm.poll(job()) is None


@pytest.mark.parametrize(
    ("state", "exit_code", "code"),
    [
        ("RUNNING", "0:0", None),
        ("COMPLETING", "0:0", None),
        ("COMPLETED", "0:0", 0),
        ("FAILED", "143:0", 143),
        ("FAILED", "0:11", 139),
        ("TIMEOUT", "0:15", 8),
        ("PREEMPTED", "0:15", 8),
        ("NODE_FAIL", "0:0", 75),
        ("OUT_OF_MEMORY", "0:125", 137),
    ],
)
def test_how_a_job_ended_becomes_an_exit_code(
    state: str, exit_code: str, code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "scontrol", f"JobId=7 JobState={state} Reason=None ExitCode={exit_code}")
    assert slurm.poll(job()) == code


@pytest.mark.parametrize(
    "reason", ["PartitionNodeLimit", "InvalidAccount", "BadConstraints", "QOSMaxGRESPerJob", "AssocMaxNodePerJobLimit"]
)
def test_a_job_that_waits_for_what_will_never_be_is_a_mistake(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "scontrol", f"JobId=7 JobState=PENDING Reason={reason} ExitCode=0:0")
    with pytest.raises(errors.ConfigError, match=f"can never start: {reason}"):
        slurm.poll(job())


def test_the_jobs_of_a_process_share_a_list_of_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller of a cluster would not bear a request of each job every few seconds."""
    stand_in(tmp_path, monkeypatch, "scontrol", code=99)
    (tmp_path / "squeue").write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/calls\nprintf '7|RUNNING|None\\n8|PENDING|Priority\\n9|RUNNING|None\\n'\n"
    )
    jobs = [job(7), job(8), job(9)]
    assert [slurm.poll(one) for one in jobs] == [None, None, None]
    assert [(one.queued, one.reason) for one in jobs] == [(False, ""), (True, "Priority"), (False, "")]
    assert (tmp_path / "calls").read_text() == "x\n"


@pytest.mark.parametrize("reason", ["Resources", "Priority", "Dependency", "BeginTime", "PartitionDown"])
def test_a_job_that_waits_for_its_turn_is_queued(reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "scontrol", f"JobId=7 JobState=PENDING Reason={reason} ExitCode=0:0")
    waiting = job()
    waiting.queued = False
    assert slurm.poll(waiting) is None
    assert (waiting.queued, waiting.reason) == (True, reason)


def test_a_job_that_the_controller_has_forgotten_is_looked_up_in_the_accounting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = "slurm_load_jobs error: Invalid job id specified"
    stand_in(tmp_path, monkeypatch, "scontrol", err=forgotten, code=1)
    stand_in(tmp_path, monkeypatch, "sacct", "FAILED|3:0")
    assert slurm.poll(job()) == 3
    stand_in(tmp_path, monkeypatch, "sacct", "CANCELLED by 1000|0:15")
    assert slurm.poll(job(adopted=True)) == 143
    stand_in(tmp_path, monkeypatch, "sacct", err="Slurm accounting storage is disabled", code=1)
    assert slurm.poll(job()) == 0
