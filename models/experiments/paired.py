"""What the comparisons of experiments have in common: networks are compared on the same images, over the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from models.statistics import PairedTest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGNIFICANT = 0.05  # two networks are distinguished up to this p, over all comparisons of a table


def stack_answers(jobs: Sequence[str], answers: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    """Returns which images the seeds of a network classified correctly, ``[seeds, images]``.

    Args:
        jobs: Jobs of the seeds, in order.
        answers: The images of each job, ``[images]``.

    Returns:
        None if a job has no answers, as those that predate them.
    """
    import numpy as np

    rows = [answers[job] for job in jobs if job in answers]
    return np.stack(rows) if len(rows) == len(jobs) else None


def describe_lead(first: str, second: str, lead: PairedTest, comparisons: int) -> str:
    """``compound beats depth (+1.20 points, +0.30 to +2.10, p 0.01)``; at 5 % over that many comparisons."""
    if lead.p > SIGNIFICANT / comparisons:
        verb = "is not distinguished from"
    else:
        verb = "beats" if lead.value > 0 else "loses to"
    return f"{first} {verb} {second} ({format_interval(lead)})"


def format_interval(test: PairedTest) -> str:
    """``+0.40 points, -0.62 to +1.42, p 0.54``."""
    p = "p < 0.001" if test.p < 0.001 else f"p {test.p:.2g}"
    return f"{test.value:+.2f} points, {test.lower:+.2f} to {test.upper:+.2f}, {p}"
