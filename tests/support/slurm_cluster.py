"""A real Slurm of two nodes on this machine, from Debian's packages slurm-wlm and munge.

Debian builds slurmd so that several run on one machine (``-N``). All daemons run as the user of the tests, with a key
of their own, and listen on free ports.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from infra.services import proctable

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
NODES = ("n1", "n2")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=5,batch_sched_delay=0,defer_batch
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
InactiveLimit=0
KillWait=5
SlurmctldTimeout=60
SlurmdTimeout=10
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """The daemons, by name; ``SLURM_CONF`` leads Slurm's commands to them."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def configuration(self) -> str:
        """Value of ``SLURM_CONF``."""
        return str(self.folder / "slurm.conf")

    def command(self, *argv: str) -> str:
        """Output of one of Slurm's commands."""
        environment = {**os.environ, "SLURM_CONF": self.configuration}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def start(self) -> None:
        """Starts all daemons and waits until both nodes are idle."""
        (self.folder / "state").mkdir()
        write_configuration(self.folder)
        (key := self.folder / "munge.key").write_bytes(os.urandom(1024))
        key.chmod(0o600)
        names = {
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munge.seed",
        }
        files = [f"--{option}={self.folder / name}" for option, name in names.items()]
        self._start("munged", "munged", "--foreground", "--force", f"--key-file={key}", *files)
        self._start("slurmctld", "slurmctld", "-D", "-f", self.configuration)
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        """Starts a node and waits until it responds."""
        self._start(node, "slurmd", "-D", "-N", node, "-f", self.configuration)
        deadline, state = time.monotonic() + 60, ""
        while state not in ("idle", "allocated", "mixed", "completing"):
            assert time.monotonic() < deadline, state
            time.sleep(0.1)
            with suppress(subprocess.CalledProcessError):
                state = self.state_of(node)

    def state_of(self, node: str) -> str:
        """State of a node; with an asterisk if it does not respond."""
        lines = self.command("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()  # of one only: it is stale
        return dict(line.split() for line in lines)[node]

    def kill_node(self, node: str) -> None:
        """Kills a node's daemon and all processes that it runs, as a power cut does."""
        (daemon := self.daemons.pop(node)).kill()
        daemon.wait()
        ranks = [p for p in proctable.living() if f"SLURMD_NODENAME={node}".encode() in proctable.environment(p)]
        parents = {parent_of(pid) for pid in ranks}
        steps = [pid for pid in parents if b"slurmstepd" in b" ".join(proctable.command_line(pid))]
        for pid in [*steps, *ranks]:  # steps first: they would report the end of the others
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _start(self, name: str, program: str, *argv: str) -> None:
        path = shutil.which(program, path=SEARCHED)
        assert path is not None
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen([path, *argv], stdout=output, stderr=output, start_new_session=True)

    def stop(self) -> None:
        """Ends all jobs and daemons."""
        with suppress(subprocess.CalledProcessError):
            self.command("scancel", f"--user={getpass.getuser()}")
            deadline = time.monotonic() + 30
            while self.command("squeue", "--noheader") and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            daemon.wait(30)


SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])  # not every user has /usr/sbin on PATH


def parent_of(pid: int) -> int:
    """Process id of the parent; 0 for a process that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def missing() -> list[str]:
    """Programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program, path=SEARCHED) is None]


def write_configuration(folder: Path) -> None:
    """Writes slurm.conf and what it refers to: two files per node that stand for GPUs."""
    sockets = [socket.socket() for _ in range(3)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, user=user, folder=folder, ports=ports))
    for number in range(2):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
