"""All settings of a user as typed dataclasses: one field, one meaning, its unit in the name.

Each class validates its own values, so a wrong value never reaches a flow. The comment of a field is its sentence in
docs/configuration.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from conf.data_set import Augment, Data
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
from conf.fields import (
    LATER,
    MISSING,
    NEWEST,
    require,
    require_bucket,
    require_choice,
    require_name,
    require_port,
    require_reference,
)
from conf.launch import Kubernetes, Launch, Slurm
from conf.nightly import Alerts, Email, Nightly
from conf.training import Model, Recipe, StopRule

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

_STORAGE = re.compile(r"s3://[^/]|file:///.*[^/]")
_POSTGRESQL = re.compile(r"postgresql://([\w.-]+@)?[\w.-]+(:\d+)?/[a-z][a-z0-9_]{0,50}")
_HOST = re.compile(r"https?://[^\s/?#]+(/\S*)?$")
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
            has_host = value.partition("://")[0] not in ("http", "https") or bool(_HOST.match(value))
            require(known and has_host, f"services.{key} must be embedded or a URL, as http://HOST:PORT, is {value!r}")
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
    """What `effnet prune` deletes from the object store and the run folder."""

    # Days since the last write to a job's folder, a data set or a report, below which it is kept.
    older_than_days: float = 30.0
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
        parts = self.storage.rstrip("/").partition("://")[2].split("/")[1:]
        require(
            not {"", ".", ".."} & set(parts),
            f"storage must be written without `//`, `/./` and `..`, is {self.storage!r}",
        )
        require_bucket("storage", self.storage, embedded=self.services.s3 == "embedded")
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
