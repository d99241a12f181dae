"""All settings of a user as typed dataclasses: one field, one meaning, its unit in the name.

Each class validates its own values, so a wrong value never reaches a flow. The comment of a field is its sentence in
docs/configuration.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from conf.experiments import (
    Architecture,
    Explain,
    GalleryEntry,
    Gate,
    Latency,
    LatencyPair,
    Linear,
    Photographs,
    Point,
    Published,
    Scaling,
    Search,
    Transfer,
)
from conf.nightly import Alerts, Email, Nightly
from conf.training import (
    LATER,
    MISSING,
    NEWEST,
    Augment,
    Data,
    Model,
    Recipe,
    StopRule,
    require,
    require_choice,
    require_name,
    require_port,
    require_reference,
)

__all__ = [
    "Alerts",
    "Architecture",
    "Augment",
    "Config",
    "Data",
    "Email",
    "Explain",
    "GalleryEntry",
    "Gate",
    "Job",
    "Kubernetes",
    "Latency",
    "LatencyPair",
    "Launch",
    "Linear",
    "Model",
    "Nightly",
    "Photographs",
    "Point",
    "Prune",
    "Published",
    "Recipe",
    "Runtime",
    "Scaling",
    "Search",
    "Services",
    "Slurm",
    "StopRule",
    "Transfer",
]

ENGINES = ("local", "workpool", "slurm", "kubernetes")  # infra/launch/engine.py
SCHEDULERS = ("slurm", "kubernetes")  # of these, those that choose the machines, and so the address of the first
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_WORD = re.compile(r"[\w.:/@=-]+")
_SLURM_WORD = re.compile(r"\w[\w.,:&|*\[\]-]*")
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
_STORAGE = re.compile(r"s3://[^/]|file:///.*[^/]")
_POSTGRESQL = re.compile(r"postgresql://([\w.-]+@)?[\w.-]+(:\d+)?/[a-z][a-z0-9_]{0,50}")
_SLURM_OPTION = re.compile(r"--[a-z][a-z-]*(=[\w.,:&|*\[\]@%+/-]+)?")
FAMILY = tuple(f"efficientnet_b{phi}" for phi in range(8))


@dataclass
class Runtime:
    """Speed and safety of a job. These settings never change its result, except for rounding where it is compiled."""

    loader_threads: int = 2  # Threads per rank that load and decode images.
    cache_gb: float = 200.0  # Maximum disk space of the shard cache on this machine, over all ranks, in GB.
    compile: str = "auto"  # torch.compile: auto (GPU jobs long enough to win back the compile time) | on | off.
    # Ranks that share the activations of one network (GPipe), for networks larger than a device.
    pipeline_stages: int = 1
    # Micro-batches in the pipeline; fewer need less memory, more leave stages idle for less time; null = stages.
    micro_batches: int | None = None
    ledger: bool = False  # Write ledger.jsonl: the samples of each step.
    accept_changes: bool = False  # Resume although configuration, data or code changed since the checkpoint.
    # Seconds from the start of the process to the first step, compilation included.
    first_step_timeout_s: float = 900.0
    step_timeout_s: float = 300.0  # Seconds between two steps.
    eval_timeout_s: float = 300.0  # Seconds between two batches of an evaluation.
    checkpoint_timeout_s: float = 900.0  # Seconds to write or read one checkpoint.
    # Trainings from random weights that end with exit code 11 if they are below an accuracy after an epoch; their
    # checkpoint is kept, and the same command with other rules resumes.
    stop_below: list[StopRule] = field(default_factory=list, metadata=NEWEST)

    def __post_init__(self) -> None:
        require(self.loader_threads > 0, f"runtime.loader_threads must be > 0, is {self.loader_threads}")
        require(self.cache_gb > 0, f"runtime.cache_gb must be > 0, is {self.cache_gb}")
        require(self.pipeline_stages > 0, f"runtime.pipeline_stages must be > 0, is {self.pipeline_stages}")
        require(
            self.micro_batches is None or self.micro_batches > 0,
            f"runtime.micro_batches must be > 0, is {self.micro_batches}",
        )
        require(
            self.pipeline_stages == 1 or self.compile != "on",
            "runtime.compile=on cannot be had with runtime.pipeline_stages > 1: a stage is a part",
        )
        require_choice("runtime.compile", self.compile, ("auto", "on", "off"))
        for key in ("first_step_timeout_s", "step_timeout_s", "eval_timeout_s", "checkpoint_timeout_s"):
            require(getattr(self, key) > 0, f"runtime.{key} must be > 0, is {getattr(self, key)}")


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
            require(bool(_WORD.fullmatch(word)), f"launch.kubernetes.{key}: {word!r} is not valid")
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
        require_choice("launch.device", self.device, ("auto", "cpu"))
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
            self.nnodes == 1 or scheduled or ":" in (self.rendezvous or ""),
            f"launch.nnodes={self.nnodes} needs launch.rendezvous=HOST:PORT of the first machine",
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
        require(self.relaunches >= 0, f"launch.relaunches must be >= 0, is {self.relaunches}")

    @property
    def processes(self) -> int:
        """Number of processes (ranks) of a job on all its machines."""
        return self.nnodes * self.nproc_per_node

    @property
    def uses_gpus(self) -> bool:
        """Whether the processes of a job use GPUs where there are any."""
        return self.device == "auto" or self.gpus_per_node > 0


@dataclass
class Services:
    """Addresses of the three services: ``embedded`` (started on this machine, on 127.0.0.1) or a URL.

    The configuration never contains credentials. The embedded services generate theirs; for others, S3 uses boto3's
    own chain, and MLflow and Prefect their environment variables (docs/deployment.md).
    """

    s3: str = "embedded"  # Object store: embedded | aws | endpoint URL.
    prefect: str = "embedded"  # Prefect server: embedded | API URL that ends with /api.
    mlflow: str = "embedded"  # MLflow server: embedded | tracking URI.
    # The embedded Prefect and MLflow require a password; false lets every local user run code as you.
    auth: bool = True
    # Database of the embedded Prefect and MLflow: sqlite | postgresql://USER@HOST:PORT/NAME, where the databases
    # NAME_prefect and NAME_mlflow are created if they are missing. Of services that were started before, their own
    # counts: it is given once.
    database: str = "sqlite"

    def __post_init__(self) -> None:
        require(
            self.database == "sqlite" or bool(_POSTGRESQL.fullmatch(self.database)),
            "services.database must be sqlite or postgresql://USER@HOST:PORT/NAME without a password, which is read "
            "from PGPASSWORD or PGPASSFILE",
        )
        for key in ("s3", "prefect", "mlflow"):
            value = getattr(self, key)
            known = value == "embedded" or "://" in value or (key == "s3" and value == "aws")
            require(known, f"services.{key} must be embedded or a URL, is {value!r}")
            require_port(f"services.{key}", value)


@dataclass
class Budget:
    """Limits of what `effnet plan` estimates for a command; a command above one needs a confirmation."""

    hours: float | None = None  # Hours from the command to its result; null = no limit.
    gpu_hours: float | None = None  # Hours of GPUs; null = no limit.

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            require(value is None or value >= 0, f"budget.{key} must be >= 0, is {value}")


@dataclass
class Prune:
    """What `effnet prune` deletes from the object store."""

    older_than_days: float = 30.0  # Days since the last write to a run folder or data set, below which it is kept.
    keep_nights: int = 7  # Last nights of each line whose versions are kept, and newest data sets of each name.

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            require(value >= 1, f"prune.{key} must be >= 1, is {value}")


@dataclass
class Config:
    """The whole configuration. ``profile=`` sets it for a kind of machine and a budget."""

    profile: str = MISSING  # Size of everything, set by `profile=`.
    run_dir: str = "runs"  # Folder of everything local: services, logs, cache, reports.
    storage: str = "s3://effnet"  # Root of everything remote: s3://bucket[/prefix] or file:///folder.
    experiment: str = "effnet"  # Name of the MLflow experiment.
    variants: list[str] = field(default_factory=lambda: list(FAMILY))  # Networks that reproduce trains.
    model_ref: str | None = None  # Registered model that evaluate and transfer use: NAME@ALIAS or NAME/VERSION.
    # Name in the model registry for what train and transfer train; null = it is not registered.
    register: str | None = None
    model: Model = field(default_factory=Model)  # The network.
    data: Data = field(default_factory=Data)  # The data set.
    recipe: Recipe = field(default_factory=Recipe)  # How the network is trained.
    search: Search = field(default_factory=Search)  # The grid search.
    scaling: Scaling = field(default_factory=Scaling)  # The scaling study.
    architecture: Architecture = field(default_factory=Architecture)  # The architecture search.
    transfer: Transfer = field(default_factory=Transfer)  # Transfer learning.
    explain: Explain = field(default_factory=Explain)  # Class activation maps.
    photographs: Photographs = field(default_factory=Photographs)  # Public networks on photographs.
    linear: Linear = field(default_factory=Linear)  # Logistic regression on frozen features.
    latency: Latency = field(default_factory=Latency)  # The latency measurement.
    nightly: Nightly = field(default_factory=Nightly)  # The scheduled fine-tuning.
    budget: Budget = field(default_factory=Budget)  # Limits of what a command may take.
    prune: Prune = field(default_factory=Prune)  # What `effnet prune` deletes.
    published: Published = field(default_factory=Published)  # The checkpoint that `effnet import` registers.
    gate: Gate = field(default_factory=Gate)  # Checks before the training on ImageNet.
    launch: Launch = field(default_factory=Launch)  # Where and how wide jobs run.
    runtime: Runtime = field(default_factory=Runtime)  # Speed and safety of a job.
    services: Services = field(default_factory=Services)  # Addresses of the three services.

    def __post_init__(self) -> None:
        require_name("profile", self.profile)
        require_name("experiment", self.experiment)
        require_name("register", self.register)
        for name in self.variants:
            require_name("variants: each name", name)
        require_reference("model_ref", self.model_ref)
        require(
            bool(_STORAGE.match(self.storage)),
            f"storage must be s3://BUCKET, s3://BUCKET/FOLDER or file:///FOLDER, is {self.storage!r}",
        )
        require(len(self.variants) > 0, "variants must name at least one network")

    @property
    def replicas(self) -> int:
        """Number of copies of the network that a job trains, each on one process or one pipeline; at least one."""
        return max(1, self.launch.processes // self.runtime.pipeline_stages)


@dataclass
class Job:
    """The request of one training or evaluation job, stored as config.yaml in its run folder."""

    kind: str = MISSING  # Kind of job: train | evaluate.
    model: Model = field(default_factory=Model)  # The network.
    data_name: str = MISSING  # Name of the data set.
    manifest_uri: str = MISSING  # Address of the manifest.
    manifest_sha256: str = MISSING  # Digest that the manifest must have.
    augment: Augment = field(default_factory=Augment)  # Augmentation of training images.
    recipe: Recipe = field(default_factory=Recipe)  # How the network is trained.
    # Split that is trained on; with train+minival nothing is chosen on minival and the last weights count.
    split: str = field(default="train", metadata=LATER)
    leave_out: list[str] = field(default_factory=list, metadata=LATER)  # Shards that are not read.
    # Safetensors of a trained network; training starts from it, with a fresh classifier unless keep_classifier is set.
    init_weights_uri: str | None = None
    init_weights_sha256: str | None = None  # Digest that these weights must have; part of the job's key.
    # Start with the classifier of the initial weights too, which must have the same classes.
    keep_classifier: bool = field(default=False, metadata=LATER)
    runtime: Runtime = field(default_factory=Runtime)  # Speed and safety of the job; not part of the job's key.
    # Epoch after which the job saves and ends; the same job without it resumes; not part of the job's key.
    until_epoch: int | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        require_name("data_name", self.data_name)
