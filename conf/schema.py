"""Every choice a person can make, as typed dataclasses. One field, one meaning, its unit in the name.

Facts of the paper (block table, BN momentum, normalisation) are not choices: they stand in ``models/``.
Each class refuses nonsense itself, so a wrong value never reaches a flow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MISSING: Any = "???"  # Hydra's word for "must be given"
# Of a setting that is younger than jobs and models that are kept: at its default it is not written down (compose.py).
LATER = {"later": True}
POLICIES = ("none", "v0", "imagenet", "randaugment")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
BN_GROUPS = ("shard", "rank", "sync")
PADDINGS = ("symmetric", "same")
PREPROCESSINGS = ("imagenet", "advprop", "lite")
ORIGINS = ("timm", "timm_tf", "torchvision", "lukemelas")
FAMILY = tuple(f"efficientnet_b{phi}" for phi in range(8))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass
class Model:
    """Which network, and how much the whole family is shrunk or grown.

    ``width``, ``depth`` and ``resolution`` multiply the variant's own coefficients; 1.0 is the paper's size.
    """

    name: str = "efficientnet_b0"
    width: float = 1.0
    depth: float = 1.0
    resolution: float = 1.0
    survival_prob: float = 0.8  # of the last block; the first keeps 1.0
    # stages as r1_k3_s11_e1_i32_o16_se0.25; empty = B0's (Table 1)
    blocks: list[str] = field(default_factory=list, metadata=LATER)
    # What ported weights need, and `effnet import` sets:
    padding: str = field(default="symmetric", metadata=LATER)  # symmetric (kernel // 2) | same (TensorFlow's)
    bn_epsilon: float = field(default=1e-3, metadata=LATER)  # TensorFlow's; PyTorch's own is 1e-5
    preprocessing: str = field(default="imagenet", metadata=LATER)  # imagenet (mean, deviation) | advprop | lite

    def __post_init__(self) -> None:
        for key in ("width", "depth", "resolution"):
            _require(getattr(self, key) > 0, f"model.{key} must be > 0, is {getattr(self, key)}")
        _require(0 < self.survival_prob <= 1, f"model.survival_prob must be in (0, 1], is {self.survival_prob}")
        _require(0 < self.bn_epsilon < 1, f"model.bn_epsilon must be in (0, 1), is {self.bn_epsilon}")
        for key, choices in (("padding", PADDINGS), ("preprocessing", PREPROCESSINGS)):
            value = getattr(self, key)
            _require(value in choices, f"model.{key} must be one of {', '.join(choices)}, is {value!r}")


@dataclass
class Augment:
    """What may happen to a training image without changing its label; so it belongs to the data set."""

    crop_area_min: float = 0.08  # share of the image that a random crop keeps at least
    crop_aspect_max: float = 4 / 3  # widest crop; the narrowest is its inverse
    flip_prob: float = 0.5
    eval_crop_pad: int = 32  # evaluation cuts the central size/(size+pad) of the short side; 0 = no cut
    policy: str = "none"  # none | v0 (the official code's AutoAugment) | imagenet (the published one) | randaugment
    randaugment_layers: int = 2  # N: operations on each image
    randaugment_magnitude: float = 9.0  # M of 10
    erase_prob: float = 0.0  # random erasing, on the device
    mixup_alpha: float = 0.0  # 0 = off; on the device
    cutmix_alpha: float = 0.0  # 0 = off; with both, each batch gets one of them

    def __post_init__(self) -> None:
        _require(self.policy in POLICIES, f"augment.policy must be one of {', '.join(POLICIES)}, is {self.policy!r}")
        _require(self.randaugment_layers > 0, "augment.randaugment_layers must be > 0")
        _require(0 <= self.randaugment_magnitude <= 10,
                 f"augment.randaugment_magnitude must be in [0, 10], is {self.randaugment_magnitude}")  # fmt: skip
        _require(0 <= self.erase_prob <= 1, f"augment.erase_prob must be in [0, 1], is {self.erase_prob}")
        for key in ("mixup_alpha", "cutmix_alpha"):
            _require(getattr(self, key) >= 0, f"augment.{key} must be >= 0, is {getattr(self, key)}")
        _require(0 < self.crop_area_min <= 1, f"crop_area_min must be in (0, 1], is {self.crop_area_min}")
        _require(self.crop_aspect_max >= 1, f"crop_aspect_max must be >= 1, is {self.crop_aspect_max}")
        _require(0 <= self.flip_prob <= 1, f"flip_prob must be in [0, 1], is {self.flip_prob}")


@dataclass
class Data:
    """A data set and how it is cut into shards."""

    name: str = MISSING  # also the name of its prefix in the object store
    source: str = MISSING  # a name of models/data/sources.py: mnist5k, folder, imagenet, cifar10, ...
    path: str | None = None  # folder with the official archives or the extracted tree; local or s3://
    allow_partial: bool = False  # take a set whose counts are not the official ones; the manifest says what is missing
    verify_images: bool = True  # decode every image once; what does not decode is left out and listed
    max_side: int | None = None  # encode larger images again, at most this many pixels a side; null = original bytes
    limit: int | None = None  # use only this many samples (of the shuffled whole)
    val_share: float = 0.2  # only where the source has no val split of its own
    minival_share: float = 0.02  # of train; the paper's 25,022 of 1,281,167
    minival: str = "official"  # a set's own validation part is minival; cut: it joins train, minival_share is cut off
    samples_per_shard: int = 1250  # the paper's 1,281,167 in 1,024 shards
    shards_per_task: int = 8  # one Prefect task writes this many
    seed: int = 0  # of the split and of the shuffle before sharding
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        _require(0 < self.val_share < 1, f"data.val_share must be in (0, 1), is {self.val_share}")
        _require(0 < self.minival_share < 1, f"data.minival_share must be in (0, 1), is {self.minival_share}")
        _require(self.minival in ("official", "cut"), f"data.minival must be official or cut, is {self.minival!r}")
        _require(self.samples_per_shard > 0, "data.samples_per_shard must be > 0")
        _require(self.shards_per_task > 0, "data.shards_per_task must be > 0")
        _require(self.limit is None or self.limit > 0, f"data.limit must be > 0, is {self.limit}")
        _require(self.max_side is None or self.max_side >= 32, f"data.max_side must be >= 32, is {self.max_side}")


@dataclass
class Recipe:
    """How a network is trained. Defaults are the official code's (facts with sources: models/training)."""

    epochs: int = 350
    global_batch: int = 4096
    logical_shards: int = 64  # fixed parts of the global batch; order and randomness hang on them, not on the ranks
    optimizer: str = "rmsprop"  # rmsprop (TensorFlow's form, as the paper) | adamw
    lr_per_256: float = 0.016  # peak rate = lr_per_256 * global_batch / 256
    schedule: str = "staircase"  # staircase (the paper's) | cosine (to 0 over the epochs)
    warmup_epochs: float = 5.0
    lr_decay: float = 0.97
    lr_decay_epochs: float = 2.4
    weight_decay: float = 1e-5
    label_smoothing: float = 0.1
    rmsprop_decay: float = 0.9
    momentum: float = 0.9
    rmsprop_epsilon: float = 1e-3
    ema_decay: float = 0.9999
    bn_momentum: float = 0.01  # PyTorch's sense (TF's 0.99); jobs of few steps need more
    bn_groups: str = "shard"  # statistics over a logical shard | what a rank computes at once | sync over all ranks
    shards_per_pass: int | None = None  # rank, sync: logical shards computed at once; null = all that a rank has
    dropout: float | None = None  # null = the variant's own (0.2 for B0 to 0.5 for B7)
    precision: str = "auto"  # fp32 | tf32 | bf16 | auto (bf16 on a GPU that has it, else fp32)
    recompute: bool = False  # B6, B7: compute activations again in the backward pass instead of keeping them
    seed: int = 0
    eval_every_epochs: int = 1
    checkpoint_every_steps: int | None = None  # null = at every evaluation
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        _require(self.epochs > 0, f"recipe.epochs must be > 0, is {self.epochs}")
        _require(self.global_batch > 0, f"recipe.global_batch must be > 0, is {self.global_batch}")
        _require(self.logical_shards > 0, f"recipe.logical_shards must be > 0, is {self.logical_shards}")
        _require(0 < self.lr_per_256 < float("inf"), f"recipe.lr_per_256 must be > 0, is {self.lr_per_256}")
        _require(self.warmup_epochs >= 0, f"recipe.warmup_epochs must be >= 0, is {self.warmup_epochs}")
        _require(0 < self.lr_decay <= 1, f"recipe.lr_decay must be in (0, 1], is {self.lr_decay}")
        _require(self.lr_decay_epochs > 0, f"recipe.lr_decay_epochs must be > 0, is {self.lr_decay_epochs}")
        _require(self.dropout is None or 0 <= self.dropout < 1, f"recipe.dropout must be in [0, 1), is {self.dropout}")
        for key, choices in (("optimizer", ("rmsprop", "adamw")), ("schedule", ("staircase", "cosine")),
                             ("precision", PRECISIONS), ("bn_groups", BN_GROUPS)):  # fmt: skip
            value = getattr(self, key)
            _require(value in choices, f"recipe.{key} must be one of {', '.join(choices)}, is {value!r}")
        at_once = self.shards_per_pass
        _require(at_once is None or at_once > 0, f"recipe.shards_per_pass must be > 0, is {at_once}")
        _require(at_once in (None, 1) or self.bn_groups != "shard",
                 f"recipe.shards_per_pass={at_once} needs recipe.bn_groups=rank or sync: with shard each logical "
                 "shard is computed alone")  # fmt: skip
        _require(
            0 <= self.label_smoothing < 1,
            f"recipe.label_smoothing must be in [0, 1), is {self.label_smoothing}",
        )
        _require(0 <= self.ema_decay < 1, f"recipe.ema_decay must be in [0, 1), is {self.ema_decay}")
        _require(self.keep_checkpoints > 0, "recipe.keep_checkpoints must be > 0")
        _require(self.eval_every_epochs > 0, "recipe.eval_every_epochs must be > 0")
        steps = self.checkpoint_every_steps
        _require(steps is None or steps > 0, f"recipe.checkpoint_every_steps must be > 0, is {steps}")
        _require(0 <= self.seed < 2**31, f"recipe.seed must be in [0, 2^31), is {self.seed}")


@dataclass
class Search:
    """The grid of (alpha, beta, gamma) at phi = 1; paper section 3.3."""

    alpha: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.2, 1.3, 1.4])
    beta: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.2])
    gamma: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.15, 1.2, 1.3])
    budget: float = 2.0  # alpha * beta^2 * gamma^2 must be this, up to ...
    tolerance: float = 0.1
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        for key in ("alpha", "beta", "gamma"):
            values = getattr(self, key)
            _require(len(values) > 0 and min(values) >= 1, f"search.{key} needs values >= 1, is {values}")
        _require(self.tolerance >= 0, f"search.tolerance must be >= 0, is {self.tolerance}")


@dataclass
class Transfer:
    """Fine-tuning of a trained network on another data set."""

    data: Data = field(default_factory=Data)
    recipe: Recipe = field(default_factory=Recipe)


@dataclass
class Published:
    """A public checkpoint that becomes a registered model. What is left null is read from the file and its name."""

    path: str | None = None  # .safetensors or .pth: a local path or s3://
    sha256: str | None = None  # of the file, or how it begins; null believes it
    network: str | None = None  # e.g. efficientnet_b3
    origin: str | None = None  # timm | timm_tf (Google's weights in timm) | torchvision | lukemelas
    preprocessing: str | None = None  # as model.preprocessing
    resolution: int | None = None  # px; null = the variant's own
    classes: int = 1000
    name: str | None = None  # in the registry; null = network and origin

    def __post_init__(self) -> None:
        for key, choices in (("origin", ORIGINS), ("preprocessing", PREPROCESSINGS)):
            value = getattr(self, key)
            _require(value is None or value in choices,
                     f"published.{key} must be one of {', '.join(choices)}, is {value!r}")  # fmt: skip
        _require(self.resolution is None or self.resolution > 0,
                 f"published.resolution must be > 0, is {self.resolution}")  # fmt: skip
        _require(self.classes > 0, f"published.classes must be > 0, is {self.classes}")


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
        _require(self.loader_threads > 0, f"runtime.loader_threads must be > 0, is {self.loader_threads}")
        _require(self.cache_gb > 0, f"runtime.cache_gb must be > 0, is {self.cache_gb}")
        _require(self.pipeline_stages > 0, f"runtime.pipeline_stages must be > 0, is {self.pipeline_stages}")
        _require(self.micro_batches is None or self.micro_batches > 0,
                 f"runtime.micro_batches must be > 0, is {self.micro_batches}")  # fmt: skip
        _require(self.pipeline_stages == 1 or self.compile != "on",
                 "runtime.compile=on cannot be had with runtime.pipeline_stages > 1: a stage is a part")  # fmt: skip
        _require(self.compile in ("auto", "on", "off"), f"runtime.compile must be auto, on or off, is {self.compile!r}")
        for key in ("first_step_timeout_s", "step_timeout_s", "eval_timeout_s", "checkpoint_timeout_s"):
            _require(getattr(self, key) > 0, f"runtime.{key} must be > 0, is {getattr(self, key)}")


@dataclass
class Launch:
    """Where and how wide a training job runs."""

    backend: str = "local"
    nnodes: int = 1  # machines; fixed: a lost one ends the job, and the same command goes on with those at hand
    rendezvous: str | None = None  # nnodes > 1: HOST:PORT of the first machine, the same on all
    nproc_per_node: int = 1
    threads_per_proc: int | None = None  # null = cores / processes
    jobs_at_once: int = 1  # also the limit of the Prefect concurrency slot "accelerator"
    max_restarts: int = 1  # torchrun's own, for a process that dies
    relaunches: int = 3  # of torchrun, when it was lost without a step of progress; a preemption never counts
    start_timeout_s: float = 300.0  # submit -> first status of the trainer
    stall_timeout_s: float = 1800.0  # between two signs of life

    def __post_init__(self) -> None:
        _require(self.backend == "local", f"launch.backend must be local, is {self.backend!r}")
        _require(self.nnodes > 0, f"launch.nnodes must be > 0, is {self.nnodes}")
        _require(self.nnodes == 1 or ":" in (self.rendezvous or ""),
                 f"launch.nnodes={self.nnodes} needs launch.rendezvous=HOST:PORT of the first machine")  # fmt: skip
        _require(self.nproc_per_node > 0, "launch.nproc_per_node must be > 0")
        _require(self.jobs_at_once > 0, "launch.jobs_at_once must be > 0")
        _require(self.relaunches >= 0, f"launch.relaunches must be >= 0, is {self.relaunches}")


@dataclass
class Services:
    """Where the three services are: ``embedded`` (started here, on 127.0.0.1) or an address.

    Credentials never stand in the configuration: S3 takes them from boto3's own chain, MLflow and Prefect
    from their environment variables (README, "Real services").
    """

    s3: str = "embedded"  # embedded | aws | endpoint URL
    prefect: str = "embedded"  # embedded | API URL, ends with /api
    mlflow: str = "embedded"  # embedded | tracking URI

    def __post_init__(self) -> None:
        for key in ("s3", "prefect", "mlflow"):
            value = getattr(self, key)
            known = value == "embedded" or "://" in value or (key == "s3" and value == "aws")
            _require(known, f"services.{key} must be embedded or a URL, is {value!r}")


@dataclass
class Nightly:
    """The scheduled fine-tune of the registered champion; the hour stands in infra/prefect.yaml."""

    model: str = "efficientnet-b0"  # registered model whose champion is the start


@dataclass
class Config:
    """All of it. ``profile=`` fills it in for a kind of machine and budget."""

    profile: str = MISSING
    run_dir: str = "runs"  # everything local lies in it: services, logs, cache, reports
    storage: str = "s3://effnet"  # root of everything remote: s3://bucket[/prefix] or file:///folder
    experiment: str = "effnet"  # MLflow experiment
    dispatch: str = "here"  # here | workpool: run a flow in this process, or as its deployment
    variants: list[str] = field(default_factory=lambda: list(FAMILY))  # what reproduce trains
    model_ref: str | None = None  # evaluate: NAME@ALIAS or NAME/VERSION in the registry
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    recipe: Recipe = field(default_factory=Recipe)
    search: Search = field(default_factory=Search)
    transfer: Transfer = field(default_factory=Transfer)
    nightly: Nightly = field(default_factory=Nightly)
    published: Published = field(default_factory=Published)
    launch: Launch = field(default_factory=Launch)
    runtime: Runtime = field(default_factory=Runtime)
    services: Services = field(default_factory=Services)

    def __post_init__(self) -> None:
        _require(self.dispatch in ("here", "workpool"), f"dispatch must be here or workpool, is {self.dispatch!r}")
        _require(self.storage.startswith(("s3://", "file://")),
                 f"storage must start with s3:// or file://, is {self.storage!r}")  # fmt: skip
        _require(len(self.variants) > 0, "variants must name at least one network")


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
    init_weights_uri: str | None = None  # safetensors of a trained network; training starts with a fresh classifier
    init_weights_sha256: str | None = None  # what they must be; part of the job's key
    runtime: Runtime = field(default_factory=Runtime)  # no part of the job's key
