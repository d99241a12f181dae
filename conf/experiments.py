"""Settings of the experiments: searches, scaling study, transfer, activation maps, latency, import."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from conf.data_set import CROP_MODES, INTERPOLATIONS, Data
from conf.fields import MISSING, NEWEST, require, require_choice, require_name, require_reference
from conf.training import PREPROCESSINGS, Model, Recipe

DIMENSIONS = ("baseline", "width", "depth", "resolution", "compound")
SAMPLERS = ("nsga2", "tpe")
PACKAGED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")  # models/networks/packaged.py
ORIGINS = ("timm", "timm_tf", "torchvision", "lukemelas")
# Tag of an imported version the names of whose classes are known: from this file, or beside the weights.
CLASSES_GIVEN = "published.class_file"


@dataclass
class Search:
    """The grid of (alpha, beta, gamma) at phi = 1; paper section 3.3."""

    alpha: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.2, 1.3, 1.4])  # Candidates for alpha (depth).
    beta: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.2])  # Candidates for beta (width).
    gamma: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.15, 1.2, 1.3])  # Candidates for gamma (resolution).
    budget: float = 2.0  # Required value of alpha * beta^2 * gamma^2.
    tolerance: float = 0.1  # Maximum deviation of alpha * beta^2 * gamma^2 from the budget.
    # Maximum deviation of the counted multiply-adds, over those of the baseline, from the budget; rounding moves them:
    # at the paper's size the paper's own point counts 2.58, since every repeat is rounded up.
    counted_tolerance: float = 0.6
    recipe: Recipe = field(default_factory=Recipe)  # How the networks of the grid are trained.
    # Number of trainings of each point, with the seeds from recipe.seed on.
    seeds: int = field(default=1, metadata=NEWEST)
    # Exponent of the accuracy at equal cost, accuracy * (counted cost / budget)^exponent; as in the reward of MnasNet.
    exponent: float = field(default=-0.07, metadata=NEWEST)

    def __post_init__(self) -> None:
        require(self.seeds > 0, f"search.seeds must be > 0, is {self.seeds}")
        require(self.budget >= 1, f"search.budget must be >= 1, as alpha, beta and gamma are, is {self.budget}")
        for key in ("alpha", "beta", "gamma"):
            values = getattr(self, key)
            require(len(values) > 0 and min(values) >= 1, f"search.{key} needs values >= 1, is {values}")
        for key in ("tolerance", "counted_tolerance"):
            require(getattr(self, key) >= 0, f"search.{key} must be >= 0, is {getattr(self, key)}")


@dataclass
class Architecture:
    """The search for the baseline: accuracy * (multiply_adds / target)^exponent over MnasNet's space of blocks."""

    trials: int = 1000  # Number of trained trials; a refused proposal costs nothing and does not count.
    model: Model = field(default_factory=Model)  # Scales the proposed blocks during the search.
    recipe: Recipe = field(default_factory=Recipe)  # How the proposed networks are trained.
    target_multiply_adds: float = 400e6  # Target T of the reward, in multiply-adds at the size of `architecture.model`.
    exponent: float = -0.07  # Exponent of the reward, accuracy * (multiply_adds / T)^exponent.
    max_cost: float = 1.25  # Maximum multiply-adds over the target; a proposal that counts more is refused.
    max_params: int | None = None  # Maximum number of parameters; a proposal with more is refused; null = no limit.
    sampler: str = "nsga2"  # Optuna sampler: nsga2 (evolution) | tpe (better below about a thousand trials).
    population: int = 50  # Size of a generation for nsga2; number of random trials before tpe learns.
    seed: int = 0  # Seed of the proposals.
    storage: str | None = None  # Database of the trials, e.g. postgresql+psycopg://host/name; null = SQLite in run_dir.

    def __post_init__(self) -> None:
        require(self.trials > 0, f"architecture.trials must be > 0, is {self.trials}")
        require(self.model.blocks == [], "architecture.model.blocks must be empty: they are what is searched")
        for key in ("target_multiply_adds", "max_cost"):
            require(getattr(self, key) > 0, f"architecture.{key} must be > 0, is {getattr(self, key)}")
        require(self.max_params is None or self.max_params > 0, "architecture.max_params must be > 0")
        require_choice("architecture.sampler", self.sampler, SAMPLERS)
        require(self.population >= 2, f"architecture.population must be >= 2, is {self.population}")
        require(self.seed >= 0, f"architecture.seed must be >= 0, is {self.seed}")


@dataclass
class Point:
    """One network of the scaling study; its multipliers apply in addition to those of ``model``."""

    network: str = MISSING  # Name of the network.
    # Dimension that the point represents: baseline | width | depth | resolution | compound.
    dimension: str = "baseline"
    width: float = 1.0  # Multiplier of the channels.
    depth: float = 1.0  # Multiplier of the repeats.
    resolution: float = 1.0  # Multiplier of the image side.

    def __post_init__(self) -> None:
        require_name("scaling.points: network", self.network)
        require_choice("scaling.points: dimension", self.dimension, DIMENSIONS)
        scales = (self.width, self.depth, self.resolution)
        require(
            all(0 < scale < float("inf") for scale in scales),
            f"scaling.points: multipliers of {self.network} must be > 0 and finite, are {scales}",
        )
        require(
            self.dimension != "baseline" or set(scales) == {1.0},
            f"scaling.points: the baseline of {self.network} has multipliers of 1, not {scales}",
        )


@dataclass
class Scaling:
    """Networks of the scaling study, all trained by ``recipe`` on ``data``; paper Table 3, Figures 3, 4 and 8."""

    points: list[Point] = field(default_factory=list)  # Networks that are trained, each with its multipliers.
    # Number of trainings of each point, with the seeds from recipe.seed on.
    seeds: int = field(default=1, metadata=NEWEST)
    # Multiply-adds of every point over those of its baseline; its multipliers are raised to the power that counts
    # nearest to it; null = multipliers as given.
    equal_cost: float | None = field(default=None, metadata=NEWEST)

    def __post_init__(self) -> None:
        require(self.seeds > 0, f"scaling.seeds must be > 0, is {self.seeds}")
        require(self.equal_cost is None or self.equal_cost > 1, f"scaling.equal_cost must be > 1, is {self.equal_cost}")
        points = [(p.network, p.width, p.depth, p.resolution) for p in self.points]
        twice = next((point for point in points if points.count(point) > 1), None)
        require(twice is None, f"scaling.points names {twice} twice")


@dataclass
class Transfer:
    """Fine-tuning of a trained network on other data sets, under a protocol (conf/transfer)."""

    protocol: str = "single"  # Name of the protocol in the report.
    data: Data = field(default_factory=Data)  # Data set that is transferred to.
    # Names of conf/data, transferred to one after another; empty = `transfer.data` alone.
    sets: list[str] = field(default_factory=list)
    path: str | None = None  # Folder with one folder per set, named after the set.
    recipe: Recipe = field(default_factory=Recipe)  # How the network is fine-tuned.
    # Minimum number of steps; epochs and BN momentum follow from the size of the set; null = those of the recipe.
    steps: int | None = None
    # Learning rates of the grid; empty = rate and decay of the recipe.
    lr_per_256: list[float] = field(default_factory=list)
    # Weight decays of the grid; each is divided by the peak rate, as in Kornblith et al.
    weight_decay: list[float] = field(default_factory=list)
    # Shares of the epochs after which weak points of the grid are dropped.
    rungs: list[float] = field(default_factory=list)
    keep: float = 1 / 3  # Share of the points that continue after a rung, rounded up.
    # Split of the last training with the selected point: train | train+minival (Kornblith et al.).
    final_split: str = "train"
    # Network of a Python package, with its ImageNet weights, in place of `model` in effnet transfer and study:
    # efficientnet_lite0 | efficientnet_lite1 | efficientnet_lite2; null = `model`, and no such part of effnet study.
    network: str | None = field(default=None, metadata=NEWEST)
    # Further such networks, which effnet study compares after `network`, with one seed each.
    more_networks: list[str] = field(default_factory=list, metadata=NEWEST)
    # Side of the images in pixels; null = the network's.
    resolution: int | None = field(default=None, metadata=NEWEST)
    # Number of trainings from random weights, by the recipe of the selected point, that are compared with as many
    # fine-tunings, with the seeds from recipe.seed on; 0 = none.
    random_seeds: int = field(default=0, metadata=NEWEST)

    def __post_init__(self) -> None:
        require_name("transfer.protocol", self.protocol)
        for name in self.sets:
            require_name("transfer.sets: each name", name)
        require(self.steps is None or self.steps > 0, f"transfer.steps must be > 0, is {self.steps}")
        require(
            bool(self.lr_per_256) == bool(self.weight_decay),
            "transfer.lr_per_256 and transfer.weight_decay make a grid: give both or none",
        )
        require(
            all(0 < rate < float("inf") for rate in self.lr_per_256),
            f"transfer.lr_per_256 needs values > 0, is {self.lr_per_256}",
        )
        require(
            all(0 <= decay < float("inf") for decay in self.weight_decay),
            f"transfer.weight_decay needs values >= 0, is {self.weight_decay}",
        )
        require(
            all(0 < rung < 1 for rung in self.rungs) and self.rungs == sorted(set(self.rungs)),
            f"transfer.rungs must rise between 0 and 1, is {self.rungs}",
        )
        require(0 < self.keep <= 1, f"transfer.keep must be in (0, 1], is {self.keep}")
        require_choice("transfer.final_split", self.final_split, ("train", "train+minival"))
        require_choice("transfer.network", self.network, PACKAGED)
        for name in self.more_networks:
            require(name in PACKAGED, f"transfer.more_networks: {name!r} is not one of {', '.join(PACKAGED)}")
        require(
            self.resolution is None or self.resolution > 0, f"transfer.resolution must be > 0, is {self.resolution}"
        )
        require(self.random_seeds >= 0, f"transfer.random_seeds must be >= 0, is {self.random_seeds}")


@dataclass
class GalleryEntry:
    """One network of the gallery: ``explain.model`` scaled further, another network, or a registered one."""

    network: str | None = None  # Name of the network; null = `explain.model.name`.
    width: float = 1.0  # Multiplies `explain.model.width`.
    depth: float = 1.0  # Multiplies `explain.model.depth`.
    resolution: float = 1.0  # Multiplies `explain.model.resolution`.
    registered: str | None = None  # Registered model, NAME@ALIAS or NAME/VERSION, used unchanged; nothing is trained.

    def __post_init__(self) -> None:
        require_name("explain.models: network", self.network)
        require_reference("explain.models: registered", self.registered)
        scales = {key: getattr(self, key) for key in ("width", "depth", "resolution")}
        for key, value in scales.items():
            require(0 < value < float("inf"), f"explain.models: {key} must be > 0 and finite, is {value}")
        require(
            self.registered is None or (self.network is None and set(scales.values()) == {1.0}),
            f"explain.models: {self.registered} is taken as it is, without network or multipliers",
        )


def _table7() -> list[GalleryEntry]:
    return [
        GalleryEntry(),
        GalleryEntry(depth=4.0),
        GalleryEntry(width=2.0),
        GalleryEntry(resolution=2.0),
        GalleryEntry(depth=1.4, width=1.2, resolution=1.3),
    ]


@dataclass
class Explain:
    """Class activation maps of several networks on the same images; paper Fig. 7, the networks are Table 7's."""

    model: Model = field(default_factory=Model)  # Network that the entries of `explain.models` scale.
    models: list[GalleryEntry] = field(default_factory=_table7)  # Networks whose maps are compared.
    count: int = 4  # Number of images of val, each of another class.
    # Ids of images in val, in the order of its shards from 0, instead of `explain.count`.
    images: list[int] = field(default_factory=list)
    recipe: Recipe = field(default_factory=Recipe)  # How the networks are trained.

    def __post_init__(self) -> None:
        require(len(self.models) > 0, "explain.models must name at least one network")
        require(self.count > 0, f"explain.count must be > 0, is {self.count}")
        require(min(self.images, default=0) >= 0, f"explain.images are ids from 0, are {self.images}")
        require(len(set(self.images)) == len(self.images), f"explain.images names an image twice: {self.images}")


@dataclass
class Photographs:
    """Public ImageNet networks that Python packages contain, and what they see in photographs."""

    # Networks that are imported: efficientnet_lite0 | efficientnet_lite1 | efficientnet_lite2; empty = reproduce makes
    # no such part.
    networks: list[str] = field(default_factory=lambda: list(PACKAGED))
    # Image files; empty = three photographs that Python packages contain.
    images: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.networks:
            require(name in PACKAGED, f"photographs.networks: {name!r} is not one of {', '.join(PACKAGED)}")
        require(len(set(self.networks)) == len(self.networks), "photographs.networks names a network twice")


@dataclass
class Linear:
    """Logistic regression on the frozen features of public networks, on ``data``; Kornblith et al. 2019, section 3."""

    # Networks of Python packages: efficientnet_lite0 | efficientnet_lite1 | efficientnet_lite2; the larger ones are
    # compared with the first; empty = study makes no such part.
    networks: list[str] = field(default_factory=list)
    seeds: int = 3  # Number of random weights that each network is compared with; 0 = none.
    resolution: int = 160  # Side of the images in pixels.
    # Inverse strengths of the L2 regularization; minival selects one.
    strengths: list[float] = field(default_factory=lambda: [1e-4, 1e-3, 1e-2, 1e-1])

    def __post_init__(self) -> None:
        for name in self.networks:
            require(name in PACKAGED, f"linear.networks: {name!r} is not one of {', '.join(PACKAGED)}")
        require(len(set(self.networks)) == len(self.networks), "linear.networks names a network twice")
        require(self.seeds >= 0, f"linear.seeds must be >= 0, is {self.seeds}")
        require(self.resolution >= 32, f"linear.resolution must be >= 32, is {self.resolution}")
        require(
            bool(self.strengths) and all(0 < value < float("inf") for value in self.strengths),
            f"linear.strengths needs values > 0, is {self.strengths}",
        )


@dataclass
class LatencyPair:
    """A network at the paper's size whose latency is measured, and the one that it is compared with."""

    ours: str = MISSING  # Name of the EfficientNet.
    rival: str | None = None  # Name of the network that it is compared with; null = none, it is measured alone.
    # Image side of the rival in pixels; null = its own; SENet-154 has its accuracy of Table 2 at 320.
    rival_px: int | None = None

    def __post_init__(self) -> None:
        require_name("latency.pairs: ours", self.ours)
        require_name("latency.pairs: rival", self.rival)
        require(
            self.rival is not None or self.rival_px is None,
            f"latency.pairs: rival_px={self.rival_px} without the rival of {self.ours}",
        )


def _table4() -> list[LatencyPair]:
    # GPipe, the rival of B7 in Table 4, was never published; SENet is the rival of B4 in Table 2, at 82.7 %.
    return [
        LatencyPair("efficientnet_b1", "resnet152"),
        LatencyPair("efficientnet_b4", "legacy_senet154", 320),
        LatencyPair("efficientnet_b7"),
    ]


@dataclass
class Latency:
    """Inference on this machine's CPU; paper Table 4."""

    pairs: list[LatencyPair] = field(default_factory=_table4)  # Networks that are measured in turns.
    n: int = 20  # Measured runs of one image, as many as in the paper.
    throughput_n: int = 3  # Measured runs of a batch.
    throughput_batch: int = 8  # Images in a batch.

    def __post_init__(self) -> None:
        require(len(self.pairs) > 0, "latency.pairs must name at least one pair")
        for key in ("n", "throughput_n", "throughput_batch"):
            require(getattr(self, key) > 0, f"latency.{key} must be > 0, is {getattr(self, key)}")


@dataclass
class Gate:
    """Checks before the networks of the paper are trained on ImageNet (`effnet gate`)."""

    # Files of Google's AutoAugment weights in timm's format, e.g. [/weights/tf_efficientnet_b0_aa-827b6e33.pth].
    weights: list[str] = field(default_factory=list)
    tolerance: float = 0.1  # Points by which their top-1 on the 50,000 validation images may differ from the published.

    def __post_init__(self) -> None:
        for path in self.weights:
            require(
                ported_network(path) is not None,
                f"gate.weights: {path!r} is not named like tf_efficientnet_b0_aa-827b6e33.pth or "
                "tf_efficientnet_b0.aa_in1k.safetensors, so its published accuracy is unknown",
            )
        require(self.tolerance >= 0, f"gate.tolerance must be >= 0, is {self.tolerance}")


def ported_network(path: str) -> str | None:
    """Returns the network whose AutoAugment weights timm publishes under this file name, e.g. ``efficientnet_b0``."""
    match = re.fullmatch(r"tf_(efficientnet_b[0-7])[._]aa(_in1k)?(-[0-9a-f]+)?\.(pth|safetensors)", path.split("/")[-1])
    return match and match[1]


@dataclass
class Published:
    """A public checkpoint that becomes a registered model; null values are derived from the file and its name."""

    path: str | None = None  # File with the weights, .safetensors or .pth: a local path or s3://.
    sha256: str | None = None  # SHA-256 of the file, or its first digits; null = not checked.
    network: str | None = None  # Name of the network, e.g. efficientnet_b3; null = recognized by the tensors.
    # Library of the weights: timm | timm_tf (Google's weights in timm) | torchvision | lukemelas; null = read from the
    # file and its name.
    origin: str | None = None
    # Pixels that the weights expect, as in model.preprocessing; null = read from the file and its name.
    preprocessing: str | None = None
    # Image side in pixels; null = the publisher's, by the name of the file, or else the variant's own.
    resolution: int | None = None
    # Crop of evaluation, as data.augment.eval_crop_pad; null = the publisher's, by the name of the file, or else 32.
    crop_pad: int | None = None
    interpolation: str | None = None  # Resize of evaluation: bicubic | bilinear; null = the publisher's, or bicubic.
    # Box of evaluation, as data.augment.eval_crop_mode: center | squash; null = the publisher's, or center.
    crop_mode: str | None = None
    weights: str | None = None  # Weights of a checkpoint that has both: model | ema (moving average); null = ema.
    classes: int = 1000  # Number of classes.
    # File with the names of the classes in the order of the weights, as data.class_file; null = ImageNet's for 1,000
    # classes, otherwise unknown.
    class_file: str | None = None
    name: str | None = None  # Name in the registry; null = network and origin.

    def __post_init__(self) -> None:
        require_name("published.network", self.network)
        require_name("published.name", self.name)
        for key, choices in (
            ("origin", ORIGINS),
            ("preprocessing", PREPROCESSINGS),
            ("interpolation", INTERPOLATIONS),
            ("crop_mode", CROP_MODES),
            ("weights", ("model", "ema")),
        ):
            require_choice(f"published.{key}", getattr(self, key), choices)
        require(
            self.resolution is None or self.resolution > 0, f"published.resolution must be > 0, is {self.resolution}"
        )
        require(self.crop_pad is None or self.crop_pad >= 0, f"published.crop_pad must be >= 0, is {self.crop_pad}")
        require(self.classes > 0, f"published.classes must be > 0, is {self.classes}")
