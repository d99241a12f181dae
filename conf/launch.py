"""Settings of where jobs run: ``launch.*``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from conf.fields import require, require_choice

ENGINES = ("local", "workpool", "slurm", "kubernetes")  # infra/launch/engine.py
SCHEDULERS = ("slurm", "kubernetes")  # of these, those that choose the machines, and so the address of the first
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_WORD = re.compile(r"[\w.:/@=-]+")
_SLURM_WORD = re.compile(r"\w[\w.,:&|*\[\]-]*")
_SLURM_OPTION = re.compile(r"--[a-z][a-z-]*(=[\w.,:&|*\[\]@%+/-]+)?")
_ENDPOINT = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}")
_OWN_SLURM_OPTIONS = (
    "--job-name",
    "--comment",
    "--output",
    "--array",
    "--dependency",
    "--wrap",
    "--export",
    "--parsable",
)


@dataclass
class Slurm:
    """What the batch jobs of ``launch.engine=slurm`` request of their cluster; null leaves a choice to Slurm."""

    partition: str | None = None  # Partition, or several separated by commas.
    account: str | None = None  # Account that is charged.
    time: str | None = None  # Time limit as Slurm writes it, e.g. 1-12:00:00; the job saves its state 90 s before.
    constraint: str | None = None  # Features that the nodes must have, e.g. a100|h100.
    gpu_type: str | None = None  # Type of the GPUs, e.g. a100; null = any.
    options: list[str] = field(default_factory=list)  # More options of sbatch, e.g. [--exclusive,--qos=long].

    def __post_init__(self) -> None:
        for key in ("partition", "account", "time", "constraint", "gpu_type"):
            value = getattr(self, key)
            require(
                value is None or bool(_SLURM_WORD.fullmatch(value)),
                f"launch.slurm.{key} must be letters, digits and . _ , : & | * [ ] -, is {value!r}",
            )
        for option in self.options:
            require(
                bool(_SLURM_OPTION.fullmatch(option)),
                f"launch.slurm.options: {option!r} is no option of sbatch, --NAME or --NAME=VALUE without spaces",
            )
            name = option.partition("=")[0]
            require(name not in _OWN_SLURM_OPTIONS, f"launch.slurm.options: effnet sets {name} itself")


@dataclass
class Kubernetes:
    """The pods of ``launch.engine=kubernetes``. Credentials are never part of them, only the names of Secrets."""

    image: str = "effnet:latest"  # Image in which effnet is installed.
    namespace: str = "default"  # Namespace of the Jobs.
    # Secrets whose keys become variables of the pods, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    secrets: list[str] = field(default_factory=list)
    service_account: str | None = None  # Service account of the pods; null = that of the namespace.
    priority_class: str | None = None  # Priority class of the pods; null = that of the cluster.
    queue: str | None = None  # Queue of Kueue, which then admits the Job; null = without Kueue.
    node_selector: list[str] = field(default_factory=list)  # Labels that the nodes must have, KEY=VALUE.
    # Taints that the pods tolerate, KEY, KEY=VALUE or either with :EFFECT, e.g. nvidia.com/gpu:NoSchedule.
    tolerations: list[str] = field(default_factory=list)
    gpu_resource: str = "nvidia.com/gpu"  # Name of the resource that launch.gpus_per_node counts.
    shared_memory_gb: int = 8  # Limit of /dev/shm, in GB.
    ttl_s: int = 86400  # Seconds for which a finished Job is kept.

    def __post_init__(self) -> None:
        names = [(key, getattr(self, key)) for key in ("namespace", "service_account", "priority_class", "queue")]
        for key, name in [*names, *(("secrets", secret) for secret in self.secrets)]:
            require(
                name is None or bool(_DNS_NAME.fullmatch(name)),
                f"launch.kubernetes.{key} must be a name of a-z 0-9 . and -, is {name!r}",
            )
        words = [("image", self.image), ("gpu_resource", self.gpu_resource)]
        for key, word in [*words, *(("tolerations", taint) for taint in self.tolerations)]:
            allowed = bool(_WORD.fullmatch(word))
            require(allowed, f"launch.kubernetes.{key} must be letters, digits and _ . : / @ = -, is {word!r}")
        for label in self.node_selector:
            require("=" in label, f"launch.kubernetes.node_selector must be KEY=VALUE, is {label!r}")
        require(self.shared_memory_gb > 0, "launch.kubernetes.shared_memory_gb must be > 0")
        require(self.ttl_s >= 0, f"launch.kubernetes.ttl_s must be >= 0, is {self.ttl_s}")


@dataclass
class Launch:
    """Where a training job runs, and on how many machines and processes."""

    # Engine that runs jobs: local (this machine) | workpool (workers of a Prefect work pool) | slurm | kubernetes.
    engine: str = "local"
    # Number of machines, fixed: a lost machine ends the job. The command with a smaller number resumes it if
    # recipe.bn_groups=slice; with sync the number of processes on all machines is part of the key.
    nnodes: int = 1
    # HOST:PORT of the first machine, the same on all machines; required for nnodes > 1 unless a scheduler chooses them.
    rendezvous: str | None = None
    # Network interface between the machines, for nnodes > 1; null = the one that leads to HOST.
    interface: str | None = None
    nproc_per_node: int = 1  # Processes (ranks) per machine.
    # auto = a GPU per process where the machine has GPUs, else cores | cpu = cores, unless gpus_per_node requests GPUs.
    device: str = "auto"
    threads_per_proc: int | None = None  # Threads per process; null = cores / processes.
    gpus_per_node: int = 0  # GPUs per machine that a job requests of a scheduler; 0 = none, whatever nproc_per_node is.
    cpus_per_node: int | None = None  # Cores per machine that a job requests of a scheduler; null = its default.
    memory_gb: int | None = None  # Memory per machine that a job requests of a scheduler; null = its default.
    jobs_at_once: int = 1  # Jobs that run concurrently; also the limit of the Prefect concurrency slot `accelerator`.
    max_restarts: int = 1  # Restarts by torchrun when a process dies.
    relaunches: int = 3  # Restarts of a job that was lost or preempted without having saved a step in between.
    start_timeout_s: float = 300.0  # Seconds from submission to the first status of the trainer.
    stall_timeout_s: float = 1800.0  # Seconds between two status updates of the trainer.
    slurm: Slurm = field(default_factory=Slurm)  # Requests of the engine slurm.
    kubernetes: Kubernetes = field(default_factory=Kubernetes)  # Pods of the engine kubernetes.

    def __post_init__(self) -> None:
        require_choice("launch.engine", self.engine, ENGINES)
        # Not by require_choice, whose nearest word for gpu would be cpu.
        require(
            self.device in ("auto", "cpu"),
            f"launch.device must be auto (the GPUs, if there are any) or cpu, is {self.device!r}",
        )
        require(self.nnodes > 0, f"launch.nnodes must be > 0, is {self.nnodes}")
        scheduled = self.engine in SCHEDULERS
        require(
            self.rendezvous is None or not scheduled,
            f"launch.rendezvous is not for launch.engine={self.engine}, which chooses the machines itself",
        )
        require(
            self.nnodes == 1 or self.engine != "workpool",
            f"launch.nnodes={self.nnodes} is not for launch.engine=workpool, whose jobs run on one worker each",
        )
        require(
            self.nnodes == 1 or scheduled or self.rendezvous is not None,
            f"launch.nnodes={self.nnodes} needs launch.rendezvous=HOST:PORT of the first machine",
        )
        require(
            self.rendezvous is None or bool(_ENDPOINT.fullmatch(self.rendezvous)),
            f"launch.rendezvous must be HOST:PORT of the first machine, is {self.rendezvous!r}",
        )
        require(
            self.interface is None or self.nnodes > 1,
            "launch.interface is for launch.nnodes > 1; one machine uses the loopback interface",
        )
        require(self.nproc_per_node > 0, "launch.nproc_per_node must be > 0")
        for key in ("gpus_per_node", "cpus_per_node", "memory_gb"):
            value = getattr(self, key)
            require(not value or value > 0, f"launch.{key} must be > 0, is {value}")
            require(not value or scheduled, f"launch.{key} is for schedulers, not for launch.engine={self.engine}")
        require(
            not 0 < self.gpus_per_node < self.nproc_per_node,
            f"launch.nproc_per_node={self.nproc_per_node} processes need as many GPUs, "
            f"launch.gpus_per_node is {self.gpus_per_node}",
        )
        require(self.jobs_at_once > 0, "launch.jobs_at_once must be > 0")
        threads = self.threads_per_proc
        require(threads is None or threads > 0, f"launch.threads_per_proc must be > 0, is {threads}")
        for key in ("max_restarts", "relaunches"):
            require(getattr(self, key) >= 0, f"launch.{key} must be >= 0, is {getattr(self, key)}")
        for key in ("start_timeout_s", "stall_timeout_s"):
            require(getattr(self, key) > 0, f"launch.{key} must be > 0, is {getattr(self, key)}")

    @property
    def processes(self) -> int:
        """Number of processes (ranks) of a job on all its machines."""
        return self.nnodes * self.nproc_per_node

    @property
    def uses_gpus(self) -> bool:
        """Whether the processes of a job use GPUs where there are any."""
        return self.device == "auto" or self.gpus_per_node > 0
