"""The summary of a reproduction, and the provenance of a part of the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from models.results.experiments import SearchResult
from models.results.jobs import ShardResult
from models.results.transfer import Point


@dataclass(frozen=True, kw_only=True)
class VariantRow:
    """One member of the family, as trained and registered by a reproduction."""

    name: str
    params: int
    multiply_adds: int
    resolution: int
    top1: float
    top5: float
    n_val: int
    minutes: float
    images_per_s: float
    epochs: int
    minival_top1: float
    n_minival: int
    mlflow_run: str
    mlflow_url: str = ""
    registered_name: str = ""
    registered_version: int | None = None
    aliases: tuple[str, ...] = ()
    paper_params: int  # at the paper's size, counted
    paper_multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class FineTunedRow:
    """One member of the family, fine-tuned by a reproduction."""

    name: str
    n_val: int
    data: str
    protocol: str
    metric: str
    value: float
    standard_error: float | None
    n: int
    top1: float
    top5: float
    minutes: float
    params: int
    multiply_adds: int
    chosen: Point
    mlflow_run: str
    mlflow_url: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Contents of ``summary.json``, written by ``make reproduce`` and shown in the report."""

    wall_s: float | None = None
    first_wall_s: float | None = None  # of the run that did the jobs, if this one found all of them
    estimate_s: float | None = None  # of all jobs, before they started; None if a part could not be counted
    jobs: int = 0  # of this reproduction
    jobs_found: int = 0  # of these, done by earlier runs; wall_s excludes their time
    profile: str = ""
    commit: str = ""
    variants: tuple[VariantRow, ...] = ()
    search: SearchResult | None = None
    transfer: tuple[FineTunedRow, ...] = ()
    data: tuple[ShardResult, ...] = ()
    machine: dict[str, str] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    workers: tuple[str, ...] = ()  # machines or workers that ran the jobs, where the engine records their names
    started: str = ""
    finished: str = ""
    command: str = ""
    missing: tuple[str, ...] = ()  # failed parts, each with a one-line reason
    config: dict[str, Any] = field(default_factory=dict)  # the requested configuration
    config_sha256: str = ""  # of ``config`` as JSON with sorted keys


@dataclass(frozen=True)
class GateCheck:
    """A check before a long training: ``passed``, ``failed`` or ``not run``, with the numbers or what is missing."""

    name: str
    outcome: str
    text: str


@dataclass(frozen=True)
class GateResult:
    """Checks before a long training, the cheapest first."""

    checks: tuple[GateCheck, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check was run and passed."""
        return all(check.outcome == "passed" for check in self.checks)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a part of the report comes from; its keys follow those of the part's result."""

    profile: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    config_sha256: str = ""
    data_sha256: dict[str, str] = field(default_factory=dict)  # digest of the manifest of each data set, by name
    commit: str = ""
    machine: dict[str, str] = field(default_factory=dict)
    finished: str = ""
