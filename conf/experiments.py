"""What each experiment of the paper is asked for: searches, scaling study, transfer, maps, latency, import."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.training import MISSING, PREPROCESSINGS, Data, Model, Recipe, require, require_name, require_reference

DIMENSIONS = ("baseline", "width", "depth", "resolution", "compound")
SAMPLERS = ("nsga2", "tpe")
ORIGINS = ("timm", "timm_tf", "torchvision", "lukemelas")


@dataclass
class Search:
    """The grid of (alpha, beta, gamma) at phi = 1; paper section 3.3."""

    alpha: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.2, 1.3, 1.4])
    beta: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.2])
    gamma: list[float] = field(default_factory=lambda: [1.0, 1.1, 1.15, 1.2, 1.3])
    budget: float = 2.0  # alpha * beta^2 * gamma^2 must be this, up to ...
    tolerance: float = 0.1
    # The multiply-adds that a point's network counts, over the baseline's, must be the budget up to this. Rounding
    # moves them: at the paper's size the paper's own point counts 2.58, since every repeat is rounded up.
    counted_tolerance: float = 0.6
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        for key in ("alpha", "beta", "gamma"):
            values = getattr(self, key)
            require(len(values) > 0 and min(values) >= 1, f"search.{key} needs values >= 1, is {values}")
        for key in ("tolerance", "counted_tolerance"):
            require(getattr(self, key) >= 0, f"search.{key} must be >= 0, is {getattr(self, key)}")


@dataclass
class Architecture:
    """The search of the baseline: accuracy * (multiply_adds / target)^exponent over MnasNet's space of blocks."""

    trials: int = 1000  # trained ones; a refused proposal costs nothing and does not count
    model: Model = field(default_factory=Model)  # what the proposed blocks are scaled by while they are searched
    recipe: Recipe = field(default_factory=Recipe)
    target_multiply_adds: float = 400e6  # the paper's T, at the size of ``model``
    exponent: float = -0.07
    max_cost: float = 1.25  # multiply-adds over the target; a proposal that counts more is refused
    max_params: int | None = None  # a proposal that has more is refused; null = any number
    sampler: str = "nsga2"  # nsga2 (evolution) | tpe (better below about a thousand trials)
    population: int = 50  # nsga2: size of a generation; tpe: trials at random before it learns
    seed: int = 0  # of the proposals
    storage: str | None = None  # database of the trials, e.g. postgresql+psycopg://host/name; null = SQLite in run_dir

    def __post_init__(self) -> None:
        require(self.trials > 0, f"architecture.trials must be > 0, is {self.trials}")
        require(self.model.blocks == [], "architecture.model.blocks must be empty: they are what is searched")
        for key in ("target_multiply_adds", "max_cost"):
            require(getattr(self, key) > 0, f"architecture.{key} must be > 0, is {getattr(self, key)}")
        require(self.max_params is None or self.max_params > 0, "architecture.max_params must be > 0")
        require(
            self.sampler in SAMPLERS, f"architecture.sampler must be one of {', '.join(SAMPLERS)}, is {self.sampler!r}"
        )
        require(self.population >= 2, f"architecture.population must be >= 2, is {self.population}")
        require(self.seed >= 0, f"architecture.seed must be >= 0, is {self.seed}")


@dataclass
class Point:
    """One network of the scaling study; its multipliers come on top of those of ``model``."""

    network: str = MISSING
    dimension: str = "baseline"  # what the point stands for: baseline | width | depth | resolution | compound
    width: float = 1.0
    depth: float = 1.0
    resolution: float = 1.0

    def __post_init__(self) -> None:
        require_name("scaling.points: network", self.network)
        require(
            self.dimension in DIMENSIONS,
            f"scaling.points: dimension is one of {', '.join(DIMENSIONS)}, not {self.dimension!r}",
        )
        scales = (self.width, self.depth, self.resolution)
        require(min(scales) > 0, f"scaling.points: multipliers of {self.network} must be > 0, are {scales}")
        require(
            self.dimension != "baseline" or set(scales) == {1.0},
            f"scaling.points: the baseline of {self.network} has multipliers of 1, not {scales}",
        )


@dataclass
class Scaling:
    """Which networks the scaling study trains, all by ``recipe`` on ``data``; paper Table 3, Figures 3, 4 and 8."""

    points: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        asked = [(p.network, p.width, p.depth, p.resolution) for p in self.points]
        twice = next((each for each in asked if asked.count(each) > 1), None)
        require(twice is None, f"scaling.points names {twice} twice")


@dataclass
class Transfer:
    """Fine-tuning of a trained network on other data sets, under a protocol (conf/transfer)."""

    protocol: str = "single"  # what the report calls it
    data: Data = field(default_factory=Data)
    sets: list[str] = field(default_factory=list)  # names of conf/data, one after the other; empty = data alone
    path: str | None = None  # folder that holds a folder for each of the sets, called as the set
    recipe: Recipe = field(default_factory=Recipe)
    steps: int | None = None  # at least so many; epochs and BN momentum follow from the set's size; null = the recipe's
    lr_per_256: list[float] = field(default_factory=list)  # the grid; empty = the recipe's rate and decay
    weight_decay: list[float] = field(default_factory=list)  # each is divided by the peak rate, as Kornblith et al. do
    rungs: list[float] = field(default_factory=list)  # shares of the epochs at which hopeless points of the grid end
    keep: float = 1 / 3  # share of the points that goes on from a rung, rounded up
    final_split: str = "train"  # that the chosen point trains on at last; train+minival as Kornblith et al.

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
        require(
            self.final_split in ("train", "train+minival"),
            f"transfer.final_split must be train or train+minival, is {self.final_split!r}",
        )


@dataclass
class GalleryEntry:
    """One network of the gallery: ``explain.model`` scaled further, another network, or a registered one."""

    network: str | None = None  # null = explain.model.name
    width: float = 1.0  # this and the next two multiply those of explain.model
    depth: float = 1.0
    resolution: float = 1.0
    registered: str | None = None  # NAME@ALIAS or NAME/VERSION, taken as it is; nothing is trained

    def __post_init__(self) -> None:
        require_name("explain.models: network", self.network)
        require_reference("explain.models: registered", self.registered)
        scales = {key: getattr(self, key) for key in ("width", "depth", "resolution")}
        for key, value in scales.items():
            require(value > 0, f"explain.models: {key} must be > 0, is {value}")
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

    model: Model = field(default_factory=Model)
    models: list[GalleryEntry] = field(default_factory=_table7)
    count: int = 4  # images of val, each of another class
    images: list[int] = field(default_factory=list)  # ids in val instead, in the order of its shards from 0
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        require(len(self.models) > 0, "explain.models must name at least one network")
        require(self.count > 0, f"explain.count must be > 0, is {self.count}")
        require(len(set(self.images)) == len(self.images), f"explain.images names an image twice: {self.images}")


@dataclass
class LatencyPair:
    """Two networks at the paper's size whose latencies are compared."""

    ours: str = MISSING
    rival: str = MISSING
    rival_px: int | None = None  # null = the rival's own side; SENet-154 has its accuracy of Table 2 at 320

    def __post_init__(self) -> None:
        require_name("latency.pairs: ours", self.ours)
        require_name("latency.pairs: rival", self.rival)


def _table4() -> list[LatencyPair]:
    # GPipe, which Table 4 sets beside B7, is in no library; SENet is what Table 2 sets beside B4 at 82.7 %.
    return [LatencyPair("efficientnet_b1", "resnet152"), LatencyPair("efficientnet_b4", "legacy_senet154", 320)]


@dataclass
class Latency:
    """Inference on this machine's CPU; paper Table 4."""

    pairs: list[LatencyPair] = field(default_factory=_table4)
    n: int = 20  # counted runs of one image, as many as the paper's
    throughput_n: int = 3  # counted runs of a batch
    throughput_batch: int = 8

    def __post_init__(self) -> None:
        require(len(self.pairs) > 0, "latency.pairs must name at least one pair")
        for key in ("n", "throughput_n", "throughput_batch"):
            require(getattr(self, key) > 0, f"latency.{key} must be > 0, is {getattr(self, key)}")


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
        require_name("published.network", self.network)
        require_name("published.name", self.name)
        for key, choices in (("origin", ORIGINS), ("preprocessing", PREPROCESSINGS)):
            value = getattr(self, key)
            require(
                value is None or value in choices, f"published.{key} must be one of {', '.join(choices)}, is {value!r}"
            )
        require(
            self.resolution is None or self.resolution > 0, f"published.resolution must be > 0, is {self.resolution}"
        )
        require(self.classes > 0, f"published.classes must be > 0, is {self.classes}")
