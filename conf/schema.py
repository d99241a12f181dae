"""Every choice a person can make, as typed dataclasses. One field, one meaning, its unit in the name.

Each class refuses nonsense itself, so a wrong value never reaches a flow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.experiments import (
    Architecture,
    Explain,
    GalleryEntry,
    Latency,
    LatencyPair,
    Point,
    Published,
    Scaling,
    Search,
    Transfer,
)
from conf.training import LATER, MISSING, Augment, Data, Model, Recipe, require, require_name, require_reference

__all__ = [
    "Architecture",
    "Augment",
    "Config",
    "Data",
    "Explain",
    "GalleryEntry",
    "Job",
    "Latency",
    "LatencyPair",
    "Launch",
    "Model",
    "Nightly",
    "Point",
    "Published",
    "Recipe",
    "Runtime",
    "Scaling",
    "Search",
    "Services",
    "Transfer",
]

FAMILY = tuple(f"efficientnet_b{phi}" for phi in range(8))


@dataclass
class Runtime:
    """How a job runs: changes its speed and its safety, never its result (beyond rounding, where compiled)."""

    loader_threads: int = 2
    cache_gb: float = 200.0  # most that shards take on this machine's disk, over all ranks
    compile: str = "auto"  # torch.compile: auto (a GPU job long enough to win back the compile time) | on | off
    pipeline_stages: int = 1  # ranks that share one network's activations (GPipe), for networks that do not fit
    micro_batches: int | None = None  # at once in the pipeline: fewer need less memory, more idle less; null = stages
    ledger: bool = False  # write ledger.jsonl: which samples each step was made of
    accept_changes: bool = False  # resume although configuration, data or code changed since the checkpoint
    first_step_timeout_s: float = 900.0  # process start -> first step; compiling counts
    step_timeout_s: float = 300.0  # between two steps
    eval_timeout_s: float = 300.0  # between two batches of an evaluation
    checkpoint_timeout_s: float = 900.0  # writing or reading one checkpoint

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
        require(self.compile in ("auto", "on", "off"), f"runtime.compile must be auto, on or off, is {self.compile!r}")
        for key in ("first_step_timeout_s", "step_timeout_s", "eval_timeout_s", "checkpoint_timeout_s"):
            require(getattr(self, key) > 0, f"runtime.{key} must be > 0, is {getattr(self, key)}")


@dataclass
class Launch:
    """Where and how wide a training job runs."""

    backend: str = "local"
    nnodes: int = 1  # machines; fixed: a lost one ends the job, and the same command goes on with those at hand
    rendezvous: str | None = None  # nnodes > 1: HOST:PORT of the first machine, the same on all
    interface: str | None = None  # nnodes > 1: network interface between them; null = the one that leads to HOST
    nproc_per_node: int = 1
    threads_per_proc: int | None = None  # null = cores / processes
    jobs_at_once: int = 1  # also the limit of the Prefect concurrency slot "accelerator"
    max_restarts: int = 1  # torchrun's own, for a process that dies
    relaunches: int = 3  # of a job that was lost or preempted without a step saved in between
    start_timeout_s: float = 300.0  # submit -> first status of the trainer
    stall_timeout_s: float = 1800.0  # between two signs of life

    def __post_init__(self) -> None:
        require(self.backend == "local", f"launch.backend must be local, is {self.backend!r}")
        require(self.nnodes > 0, f"launch.nnodes must be > 0, is {self.nnodes}")
        require(
            self.nnodes == 1 or ":" in (self.rendezvous or ""),
            f"launch.nnodes={self.nnodes} needs launch.rendezvous=HOST:PORT of the first machine",
        )
        require(
            self.interface is None or self.nnodes > 1,
            "launch.interface is for launch.nnodes > 1; one machine uses the loopback interface",
        )
        require(self.nproc_per_node > 0, "launch.nproc_per_node must be > 0")
        require(self.jobs_at_once > 0, "launch.jobs_at_once must be > 0")
        require(self.relaunches >= 0, f"launch.relaunches must be >= 0, is {self.relaunches}")


@dataclass
class Services:
    """Where the three services are: ``embedded`` (started here, on 127.0.0.1) or an address.

    Credentials never stand in the configuration: those of the embedded services are made and kept by themselves,
    for others S3 takes them from boto3's own chain, MLflow and Prefect from their environment variables (README,
    "Your own data, services and GPUs").
    """

    s3: str = "embedded"  # embedded | aws | endpoint URL
    prefect: str = "embedded"  # embedded | API URL, ends with /api
    mlflow: str = "embedded"  # embedded | tracking URI
    auth: bool = True  # the embedded Prefect and MLflow ask for a password; false: every local user can run code as you

    def __post_init__(self) -> None:
        for key in ("s3", "prefect", "mlflow"):
            value = getattr(self, key)
            known = value == "embedded" or "://" in value or (key == "s3" and value == "aws")
            require(known, f"services.{key} must be embedded or a URL, is {value!r}")


@dataclass
class Nightly:
    """The scheduled fine-tune of the registered champion; the hour stands in infra/prefect.yaml."""

    model: str = "efficientnet-b0"  # registered model whose champion is the start
    # Points. A version becomes champion, here and in reproduce, if it gets more images of val right than the champion
    # and the lower bound of the difference (95 %, by the same images) lies above -margin.
    margin: float = 0.3

    def __post_init__(self) -> None:
        require(0 <= self.margin <= 100, f"nightly.margin must be in 0..100 points, is {self.margin}")
        require_name("nightly.model", self.model)


@dataclass
class Config:
    """All of it. ``profile=`` fills it in for a kind of machine and budget."""

    profile: str = MISSING
    run_dir: str = "runs"  # everything local lies in it: services, logs, cache, reports
    storage: str = "s3://effnet"  # root of everything remote: s3://bucket[/prefix] or file:///folder
    experiment: str = "effnet"  # MLflow experiment
    dispatch: str = "here"  # here | workpool: run a flow in this process, or as its deployment
    variants: list[str] = field(default_factory=lambda: list(FAMILY))  # what reproduce trains
    model_ref: str | None = None  # evaluate, transfer: NAME@ALIAS or NAME/VERSION in the registry
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    recipe: Recipe = field(default_factory=Recipe)
    search: Search = field(default_factory=Search)
    scaling: Scaling = field(default_factory=Scaling)
    architecture: Architecture = field(default_factory=Architecture)
    transfer: Transfer = field(default_factory=Transfer)
    explain: Explain = field(default_factory=Explain)
    latency: Latency = field(default_factory=Latency)
    nightly: Nightly = field(default_factory=Nightly)
    published: Published = field(default_factory=Published)
    launch: Launch = field(default_factory=Launch)
    runtime: Runtime = field(default_factory=Runtime)
    services: Services = field(default_factory=Services)

    def __post_init__(self) -> None:
        require_name("profile", self.profile)
        require_name("experiment", self.experiment)
        for name in self.variants:
            require_name("variants: each name", name)
        require_reference("model_ref", self.model_ref)
        require(self.dispatch in ("here", "workpool"), f"dispatch must be here or workpool, is {self.dispatch!r}")
        require(
            self.storage.startswith(("s3://", "file://")),
            f"storage must start with s3:// or file://, is {self.storage!r}",
        )
        require(len(self.variants) > 0, "variants must name at least one network")


@dataclass
class Job:
    """What one training or evaluation job is asked to do; lies as config.yaml in its run folder."""

    kind: str = MISSING  # train | evaluate
    model: Model = field(default_factory=Model)
    data_name: str = MISSING
    manifest_uri: str = MISSING
    manifest_sha256: str = MISSING
    augment: Augment = field(default_factory=Augment)
    recipe: Recipe = field(default_factory=Recipe)
    # trained on; train+minival: nothing is chosen on minival, the last weights count
    split: str = field(default="train", metadata=LATER)
    leave_out: list[str] = field(default_factory=list, metadata=LATER)  # shards that are not read
    init_weights_uri: str | None = None  # safetensors of a trained network; training starts with a fresh classifier
    init_weights_sha256: str | None = None  # what they must be; part of the job's key
    runtime: Runtime = field(default_factory=Runtime)  # no part of the job's key
    # Save and end there; the same job without it goes on. No part of its key either.
    until_epoch: int | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        require_name("data_name", self.data_name)
