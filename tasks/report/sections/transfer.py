"""Tables 5 and 6: transfer to other data, each in the protocol of its data set, beside the paper's results."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from models import paper
from models.experiments.transfer import ABSENT, describe_starts
from models.results import GridRow, Summary, TransferPart, TransferRow
from models.statistics import count_folds
from tasks.report.sections.family import short_name


@dataclass(frozen=True)
class GridTable:
    """The grid behind a result: weight decays as rows, learning rates as columns."""

    row: TransferRow
    short: str
    rates: list[float]
    matrix: list[tuple[float, list[GridRow | None]]]
    stopped: int  # points that were stopped early


def facts(part: TransferPart, summary: Summary) -> dict[str, Any]:
    """Table 5 by data set, the grids, comparisons with random weights, Table 6, and what a reproduction fine-tuned.

    Of both tables, the data sets that were not run are apart.
    """
    official = {row.key: row for row in paper.TABLE6}
    quoted = {row.data: row for row in paper.TABLE5}
    by_set: dict[str, list[TransferRow]] = {key: [] for key in official}
    for row in part.rows:  # a data set may have another name; its source identifies it
        by_set.setdefault(row.source if row.source in official else row.data, []).append(row)
    table5, table6 = [], []
    for key, ours in by_set.items():
        printed = official.get(key)
        title = printed.data if printed else key
        table5.append({"data": title, "ours": ours, "paper": quoted.get(title)})
        table6.append({"data": title, "ours": ours[0] if ours else None, "paper": printed})
    shown = {(row.data, row.network) for row in part.rows}
    return {
        "table5": [row for row in table5 if row["ours"]],
        "table5_not_run": [row for row in table5 if not row["ours"]],
        "table6": [row for row in table6 if row["ours"]],
        "table6_not_run": [row for row in table6 if not row["ours"]],
        "grids": [_grid(row) for row in part.rows if row.grid],
        "family": [row for row in summary.transfer if (row.data, row.name) not in shown],
        "compared": [
            (row, start, fmean(start.tuned_top1), fmean(start.random_top1))
            for row in part.rows
            if (start := row.random_start) is not None
        ],
        "verdicts": describe_starts(part.rows),
        "folds": count_folds(row.random_start.lead for row in part.rows if row.random_start is not None),
        "absent": [line for line in part.missing if ABSENT in line],
        "ratios": paper.TABLE5_GEO_MEAN_RATIOS,
        "short": short_name,
    }


def _grid(row: TransferRow) -> GridTable:
    rates = sorted({point.lr_per_256 for point in row.grid})
    decays = sorted({point.weight_decay for point in row.grid})
    points = {(point.weight_decay, point.lr_per_256): point for point in row.grid}
    return GridTable(
        row,
        short=short_name(row.network),
        rates=rates,
        matrix=[(decay, [points.get((decay, rate)) for rate in rates]) for decay in decays],
        stopped=sum(point.stopped_at_epoch is not None for point in row.grid),
    )
