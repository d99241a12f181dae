"""Results of transfer learning: the grid of one data set, one result, and all results of a profile."""

from __future__ import annotations

from dataclasses import dataclass

from models.results.jobs import Registered
from models.statistics import PairedTest


@dataclass(frozen=True)
class Point:
    """One point of the transfer grid, in the units of the recipe."""

    lr_per_256: float
    weight_decay: float


@dataclass(frozen=True, kw_only=True)
class GridRow(Point):
    """A trained point of the transfer grid."""

    value: float | None  # minival accuracy at its last epoch; None if it diverged
    n: int
    stopped_at_epoch: int | None
    reason: str | None = None
    mlflow_run: str = ""


@dataclass(frozen=True)
class Cost:
    """Cost estimate of a request before it starts; includes what earlier runs already did."""

    jobs: int
    train_images: int
    eval_images: int
    multiply_adds: int  # of all images: a training image counts three forward passes


@dataclass(frozen=True, kw_only=True)
class RandomStart:
    """Fine-tuned weights against the same network trained from random ones, both by one recipe: top-1 of the test set.

    Attributes:
        tuned_top1: Percent of the test images, of each seed.
        random_top1: The same from random weights.
        lead: Of fine-tuning over random weights; None if a job has not recorded its answers.
    """

    tuned_top1: tuple[float, ...]
    random_top1: tuple[float, ...]
    lead: PairedTest | None


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """One network on one transfer data set, in that data set's metric. Accuracies are in percent of the test images."""

    data: str
    manifest_sha256: str
    source: str  # name of the data set in models/data/sources/catalog.py
    train: int  # training images
    classes: int
    network: str
    protocol: str
    metric: str
    value: float
    standard_error: float | None  # None in a row that does not record it
    n: int
    top1: float
    top5: float
    params: int
    feature_params: int  # without the classifier, as Table 5 counts
    multiply_adds: int
    resolution: int
    chosen: Point
    grid: tuple[GridRow, ...]
    cost: Cost
    jobs_found: int  # of cost.jobs: done by earlier runs
    minutes: float
    job: str
    mlflow_run: str
    registered: Registered | None = None  # with register=NAME
    random_start: RandomStart | None = None  # with transfer.random_seeds


@dataclass(frozen=True, kw_only=True)
class PaperRival:
    """The network with which Table 5 compares an EfficientNet."""

    name: str
    value: float
    params: int | None


@dataclass(frozen=True, kw_only=True)
class PaperTransfer:
    """Values of Table 5 for a network on a data set; the table prints no multiply-adds."""

    value: float
    params: int | None
    multiply_adds: int | None
    rival: PaperRival
    source: str


@dataclass(frozen=True, kw_only=True)
class TransferRow(TransferResult):
    """A transfer result with its origin and the paper's values."""

    format: int
    mlflow_url: str
    command: str
    commit: str
    finished: str
    paper: PaperTransfer | None


@dataclass(frozen=True, kw_only=True)
class TransferPart:
    """All transfer results of a profile, including those of earlier commands."""

    rows: tuple[TransferRow, ...] = ()
    missing: tuple[str, ...] = ()
    command: str = ""
