"""Results of the experiments: grid search, scaling study, architecture search, activation maps and latency.

JSON on disk is their serialisation, so the fields are in the order of the keys there. A field has a default where the
report can do without it: a damaged file, or one of another version, may lack it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conf import schema
from models.statistics import PairedTest


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trained point of the (alpha, beta, gamma) grid."""

    alpha: float
    beta: float
    gamma: float
    product: float
    params: int
    multiply_adds: int
    resolution: int
    minival_top1: float
    n_minival: int
    standard_error: float  # of minival_top1, in points
    counted_cost: float  # multiply-adds relative to the baseline, after rounding; ``product`` is the target
    mlflow_run: str = ""
    mlflow_url: str = ""
    seed_top1: tuple[float, ...] = ()  # minival top-1 of each seed; minival_top1 is their mean
    equal_cost_top1: float | None = None  # minival_top1 * (counted_cost / budget) ** exponent
    behind: PairedTest | None = None  # lead of the best over this trial on the same images


@dataclass(frozen=True, kw_only=True)
class RefusedPoint:
    """A point of the grid that was not trained."""

    alpha: float
    beta: float
    gamma: float
    multiply_adds: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """A network of a family: its multipliers relative to B0, and what it costs."""

    width: float
    depth: float
    resolution: float
    params: int
    multiply_adds: int
    resolution_px: int


@dataclass(frozen=True, kw_only=True)
class HandSetSize(NetworkSize):
    """A network whose multipliers the paper set by hand."""

    name: str


@dataclass(frozen=True, kw_only=True)
class FamilyMember:
    """The network that the best coefficients give for one phi, and the paper's network of that phi."""

    phi: int
    derived: NetworkSize
    hand_set: HandSetSize


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The grid search of section 3.3."""

    trials: tuple[Trial, ...] = ()
    best: Trial
    tied: tuple[Trial, ...] = ()  # not distinguished from the best
    verdict: str = ""
    refused: tuple[RefusedPoint, ...] = ()
    budget: float | None = None
    tolerance: float | None = None  # of ``product``, before rounding
    counted_tolerance: float | None = None  # of ``counted_cost``
    found: int = 0  # trials of earlier runs
    failed: tuple[str, ...] = ()
    family: tuple[FamilyMember, ...] = ()
    seeds: int = 1
    exponent: float | None = None  # of ``equal_cost_top1``
    best_at_equal_cost: Trial | None = None
    equal_cost_verdict: str = ""


@dataclass(frozen=True, kw_only=True)
class ScalingPaper:
    """A point of the scaling study at the paper's size; None where the paper prints nothing."""

    multiply_adds: int
    printed_flops: int | None
    top1: float | None
    source: str | None


@dataclass(frozen=True, kw_only=True)
class ScalingPoint:
    """One network of the scaling study; its accuracies are None if it failed."""

    network: str
    dimension: str
    width: float
    depth: float
    resolution: float
    params: int
    multiply_adds: int
    resolution_px: int
    top1: float | None
    top5: float | None
    n_val: int | None
    paper: ScalingPaper
    mlflow_url: str | None = None
    seed_top1: tuple[float, ...] = ()  # top-1 of each seed; top1 is their mean


@dataclass(frozen=True, kw_only=True)
class ScalingComparison:
    """Compound scaling of a network against one dimension alone, on the same images of val."""

    network: str
    dimension: str  # depth | width | resolution
    compound_top1: float | None
    single_top1: float | None
    cost_ratio: float  # multiply-adds of the single dimension over those of compound scaling
    lead: PairedTest | None  # of compound scaling; None where no answers are stored


@dataclass(frozen=True, kw_only=True)
class ScalingResult:
    """The scaling study: Tables 3 and 7, Figures 3, 4 and 8."""

    data: str = ""
    points: tuple[ScalingPoint, ...] = ()
    found: int = 0  # points of earlier runs
    missing: tuple[str, ...] = ()
    command: str = ""
    seeds: int = 1
    equal_cost: float | None = None
    comparisons: tuple[ScalingComparison, ...] = ()
    verdicts: tuple[str, ...] = ()  # one for each network with compound scaling, one on accuracy against size


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The reward of the architecture search: accuracy * (multiply_adds / target_multiply_adds) ** exponent."""

    exponent: float
    target_multiply_adds: float


@dataclass(frozen=True, kw_only=True)
class ArchitectureTrial:
    """One proposal of the architecture search. What was not trained has no accuracy, but a reason."""

    number: int
    blocks: tuple[str, ...]
    params: int
    multiply_adds: int
    accuracy: float | None
    n: int | None
    standard_error: float | None
    reward: float | None
    state: str  # complete | refused | failed
    reason: str | None = None
    mlflow_url: str | None = None
    pareto: bool = False


@dataclass(frozen=True, kw_only=True)
class ArchitectureResult:
    """The search for the baseline's architecture, section 4."""

    objective: Objective | None = None
    trials: tuple[ArchitectureTrial, ...] = ()
    best: ArchitectureTrial | None = None
    baseline: ArchitectureTrial | None = None  # B0's own blocks
    lead: PairedTest | None = None  # of the best over the baseline, in reward; None where no answers are stored
    verdict: str = ""
    sampler: str = ""
    seed: int = 0
    points_of_the_space: int = 0
    missing: tuple[str, ...] = ()
    data: str = ""
    found: int = 0  # trials of earlier runs
    command: str = ""


@dataclass(frozen=True)
class GalleryNetwork:
    """A network with its weights, of which maps are drawn."""

    name: str  # display name, unique
    dimension: str  # baseline | depth | width | resolution | compound
    model: schema.Model
    weights_uri: str
    weights_sha256: str
    top1: float
    n_val: int
    mlflow_url: str
    reused: bool  # an earlier run trained or evaluated it
    job_uri: str = ""  # run folder of its training, and the digest of its answers to val there
    correct_sha256: str = ""
    augment: schema.Augment | None = None  # crop and interpolation of its evaluation; None = those of the data set
    assumed: str = ""  # as in EvalResult


@dataclass(frozen=True, kw_only=True)
class GalleryImage:
    """An image of which maps were drawn."""

    id: int
    label: str
    png: str = ""  # base64


@dataclass(frozen=True, kw_only=True)
class GalleryModel:
    """A network of which maps were drawn."""

    name: str
    dimension: str
    network: str
    method: str  # cam | grad-cam
    params: int
    multiply_adds: int
    resolution: int
    top1: float
    n_val: int
    mlflow_url: str = ""
    assumed: str = ""  # as in EvalResult


@dataclass(frozen=True, kw_only=True)
class GalleryMap:
    """The map of one network on one image."""

    image: int
    model: str
    prediction: str
    probability: float
    png: str = ""  # base64


@dataclass(frozen=True, kw_only=True)
class GalleryResult:
    """Class activation maps: Table 7 and Figure 7."""

    data: str = ""
    images: tuple[GalleryImage, ...] = ()
    models: tuple[GalleryModel, ...] = ()
    maps: tuple[GalleryMap, ...] = ()
    comparisons: tuple[ScalingComparison, ...] = ()  # of the network scaled in all dimensions with each scaled in one
    missing: tuple[str, ...] = ()
    found: int = 0  # networks of earlier runs
    command: str = ""
    mlflow_url: str = ""


@dataclass(frozen=True, kw_only=True)
class LatencyTiming:
    """Latency and throughput of one network.

    Attributes:
        batch1_ms: Median latency of single images; ``_low`` and ``_high`` are the 10th and 90th percentile.
        images_per_s: Median throughput of batches of ``throughput_batch``.
    """

    network: str
    resolution: int
    params: int
    multiply_adds: int
    batch1_ms: float
    batch1_ms_low: float
    batch1_ms_high: float
    images_per_s: float
    throughput_batch: int


@dataclass(frozen=True, kw_only=True)
class LatencyRow(LatencyTiming):
    """A measured network beside what the paper prints for it."""

    paper_top1: float | None
    paper_latency_s: float | None


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times as fast a network is as its rival, here and in the paper."""

    ours: str
    rival: str
    measured: float
    paper: float | None


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """All networks on the same number of threads; ``n`` counted runs of one image."""

    threads: int | None = None
    n: int | None = None
    rows: tuple[LatencyRow, ...] = ()
    speedups: tuple[Speedup, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LatencyResult(LatencyTable):
    """Table 4 on this machine: on one thread, and on all cores if there are more."""

    all_cores: LatencyTable | None = None
    batch_norm: str = ""
    layout: str = ""
    missing: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class StudyResult:
    """The experiments of a study and what each returned, in the order in which they ran; and the report's path."""

    parts: dict[str, Any]
    report: str
