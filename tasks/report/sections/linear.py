"""Frozen features: logistic regression on ImageNet's weights and on random ones."""

from __future__ import annotations

from typing import Any

from models.results import LinearResult, Summary
from models.statistics import count_folds, standard_error


def facts(part: LinearResult, _summary: Summary) -> dict[str, Any]:
    """The networks with standard errors, and the comparisons with their verdicts."""
    return {
        "part": part,
        "rows": [(row, standard_error(row.top1, row.n)) for row in part.rows],
        "folds": count_folds(row.lead for row in part.comparisons),
        "compared": list(zip(part.comparisons, part.verdicts, strict=False)),
    }
