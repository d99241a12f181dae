"""The rules by which a challenger is compared with the champion, from what both answered on the same images.

Pure functions. A challenger is *promoted* if it is better by the paired test (``nightly.rule=not_worse``: if it is not
inferior by the margin), *refused* if it violates a limit, and *tied* otherwise: the champion stays, and nothing is
wrong. Every refusal names the number that decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conf.schema import Nightly
from infra.errors import ArtifactError
from models.statistics import Difference, calibration_error, calibration_excess, interval_95, mcnemar, paired_difference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROMOTED, TIED, REFUSED = "promoted", "tied", "refused"
MIN_CLASS_IMAGES = 50  # of val; the accuracy of a class with fewer is too uncertain to decide anything
FALSE_REFUSALS = 0.05  # probability that the rule for classes refuses a network of equal accuracy, over all classes
# Probability by which a champion as accurate as the one before is found worse; every night asks anew.
FALSE_ROLLBACKS = 0.001


@dataclass(frozen=True)
class Verdict:
    """What becomes of a version (``PROMOTED``, ``TIED``, ``REFUSED``), why, and the numbers as tags."""

    outcome: str
    reason: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassLoss:
    """A class on which the challenger is worse than the champion, by points of accuracy."""

    name: str
    points: float
    n: int


def compare_answers(
    ours: NDArray[np.bool_],
    theirs: NDArray[np.bool_],
    labels: NDArray[np.int32],
    classes: Sequence[str],
    limits: Nightly,
    champion: int,
    calibration_fault: str | None = None,
) -> Verdict:
    """Compares two networks by the images that they classify correctly; and applies the limits.

    Args:
        ours: ``[images]``, True where the challenger is correct.
        theirs: ``[images]``, True where the champion is correct.
        labels: ``[images]``, classes of the images.
        classes: Names of the classes by label.
        limits: Limits of the rules.
        champion: Version number of the champion, for the tags.
        calibration_fault: Of ``find_calibration_fault``.

    Raises:
        ArtifactError: The arrays are not of the same images.
    """
    require_same_images(ours, theirs, labels)
    n = len(ours)
    difference = paired_difference(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), n)
    top1, champion_top1 = 100 * float(ours.mean()), 100 * float(theirs.mean())
    outcome, conclusion = _decide(top1, difference, labels, worst_class(ours, theirs, labels, classes, limits), limits)
    if outcome != REFUSED and calibration_fault is not None:
        outcome, conclusion = REFUSED, f"not promoted, {calibration_fault}"
    numbers = (
        f"challenger {top1:.2f} %, champion {champion_top1:.2f} % of the same {n} images, difference "
        f"{difference.value:+.2f} (lower bound {difference.lower:+.2f})"
    )
    tags = {
        "compared_with": str(champion),
        "compared_top1": f"{top1:.4f}",
        "compared_champion_top1": f"{champion_top1:.4f}",
        "compared_n": str(n),
        "compared_difference": f"{difference.value:.4f}",
        "compared_lower_bound": f"{difference.lower:.4f}",
        "compared_upper_bound": f"{difference.upper:.4f}",
    }
    return Verdict(outcome, f"{numbers}: {conclusion}", tags)


def find_regression(
    ours: NDArray[np.bool_],
    theirs: NDArray[np.bool_],
    labels: NDArray[np.int32],
    classes: Sequence[str],
    limits: Nightly,
) -> Verdict | None:
    """Judges a champion again, on images that came after its promotion; None unless it is worse than the one before.

    The margins are those of a promotion. The level is lower, since the question is asked every night, and the answer
    moves an alias.

    Args:
        ours: ``[images]``, True where the champion is correct.
        theirs: The same of the version that was champion before.
        labels: ``[images]``, classes of the images.
        classes: Names of the classes by label.
        limits: Limits of the rules.

    Raises:
        ArtifactError: The arrays are not of the same images.
    """
    require_same_images(ours, theirs, labels)
    gained, lost, n = int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(ours)
    points = 100 * (gained - lost) / n
    p = mcnemar(gained, lost, "less")
    worst = worst_class(ours, theirs, labels, classes, limits, FALSE_ROLLBACKS)
    if points < -limits.margin and p <= FALSE_ROLLBACKS:
        why = f"{-points:.2f} points less, {limits.margin:g} are allowed (nightly.margin)"
    elif worst is not None:
        why = (
            f"of class {worst.name!r} {worst.points:.2f} points less on {worst.n} images, {limits.class_margin:g} are "
            "allowed (nightly.class_margin)"
        )
    else:
        return None
    tops = [100 * float(correct.mean()) for correct in (ours, theirs)]
    tags = {"watched_n": str(n), "watched_top1": f"{tops[0]:.4f}", "watched_previous_top1": f"{tops[1]:.4f}"}
    return Verdict(REFUSED, f"{tops[0]:.2f} % and {tops[1]:.2f} % of {n} images that came since, {why}", tags)


def require_same_images(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], labels: NDArray[np.int32]) -> None:
    """Checks that two networks were evaluated on the images of val.

    Raises:
        ArtifactError: Their numbers differ.
    """
    n = len(ours)
    if n != len(theirs):
        raise ArtifactError(f"the challenger was evaluated on {n} images, the champion on {len(theirs)}")
    if n != len(labels):
        raise ArtifactError(f"both networks were evaluated on {n} images, val has {len(labels)}")


def find_calibration_fault(
    ours: NDArray[np.void], theirs: NDArray[np.void], labels: NDArray[np.int32], limits: Nightly
) -> str | None:
    """Returns by how much the probabilities of the challenger are worse, if that is more than the limit allows.

    The excess of its calibration error must be significant too: on few images the error itself is uncertain.

    Args:
        ours: ``[images]`` of ``models.training.per_image.ANSWER``, of the challenger.
        theirs: The same of the champion.
        labels: ``[images]``, classes of the images.
        limits: Limits of the rules.
    """
    sides = [(answers["probability"], answers["label"] == labels) for answers in (ours, theirs)]
    excess, lower = calibration_excess(*sides[0], *sides[1])
    if excess <= limits.calibration_margin or lower <= 0:
        return None
    errors = [calibration_error(*side) for side in sides]
    return (
        f"its calibration error of {errors[0]:.2f} % exceeds the champion's {errors[1]:.2f} % by {excess:.2f} points, "
        f"{limits.calibration_margin:g} are allowed (nightly.calibration_margin)"
    )


def judge_first(ours: NDArray[np.bool_], labels: NDArray[np.int32], limits: Nightly) -> Verdict:
    """Judges the first version of a model, which has no champion to be compared with: it must exceed chance.

    Args:
        ours: ``[images]``, True where the version is correct.
        labels: ``[images]``, classes of the images.
        limits: Limits of the rules.

    Raises:
        ArtifactError: The arrays are not of the same images.
    """
    n = len(ours)
    if n != len(labels):
        raise ArtifactError(f"the version was evaluated on {n} images, val has {len(labels)}")
    top1 = 100 * float(ours.mean())
    tags = {"compared_top1": f"{top1:.4f}", "compared_n": str(n)}
    if (by_chance := _describe_chance(top1, labels, limits)) is not None:
        return Verdict(REFUSED, f"not promoted, and there is no champion: of {n} images, {by_chance}", tags)
    half = interval_95(top1, n)
    interval = f"95 % interval {max(0.0, top1 - half):.2f} to {min(100.0, top1 + half):.2f}"
    return Verdict(PROMOTED, f"{top1:.2f} % of {n} images ({interval}): promoted, there was no champion", tags)


def _decide(
    top1: float, difference: Difference, labels: NDArray[np.int32], worst: ClassLoss | None, limits: Nightly
) -> tuple[str, str]:
    """The outcome, and the conclusion with the number that decided."""
    if (by_chance := _describe_chance(top1, labels, limits)) is not None:
        return REFUSED, f"not promoted, {by_chance}"
    if difference.upper < -limits.margin:
        return REFUSED, (
            f"not promoted, it is worse: the upper bound {difference.upper:+.2f} is below -{limits.margin:g} "
            "(nightly.margin)"
        )
    if worst is not None:
        return REFUSED, (
            f"not promoted, class {worst.name!r} is worse by {worst.points:.2f} points on {worst.n} images, "
            f"{limits.class_margin:g} are allowed (nightly.class_margin)"
        )
    if limits.rule == "better" and difference.lower <= 0:
        return TIED, f"not promoted, it is not better: the lower bound {difference.lower:+.2f} is not above 0"
    if difference.lower <= -limits.margin:
        return TIED, f"not promoted, the lower bound is not above -{limits.margin:g} (nightly.margin)"
    return PROMOTED, "promoted"


def _describe_chance(top1: float, labels: NDArray[np.int32], limits: Nightly) -> str | None:
    """Describes an accuracy that knowing the most frequent class only could reach; None for a higher one."""
    import numpy as np

    chance = 100 * float(np.bincount(labels).max()) / len(labels)
    if top1 > chance + limits.chance_margin:
        return None
    return (
        f"{top1:.2f} % is not more than {limits.chance_margin:g} points above {chance:.2f} %, the share of the most "
        "frequent class (nightly.chance_margin)"
    )


def worst_class(
    ours: NDArray[np.bool_],
    theirs: NDArray[np.bool_],
    labels: NDArray[np.int32],
    classes: Sequence[str],
    limits: Nightly,
    false_refusals: float = FALSE_REFUSALS,
) -> ClassLoss | None:
    """Returns the class with the largest loss of at least ``limits.class_margin`` points that is not chance, or None.

    On 50 images of a class, networks of equal accuracy often differ by more than 5 points, and the more classes there
    are, the more often one of them does. So the loss must also be significant by McNemar's exact test, at a level
    that is divided by the number of tested classes (Bonferroni).
    """
    import numpy as np

    count = len(classes)
    images = np.bincount(labels, minlength=count)
    lost = np.bincount(labels[theirs & ~ours], minlength=count)
    gained = np.bincount(labels[ours & ~theirs], minlength=count)
    tested = np.flatnonzero(images >= MIN_CLASS_IMAGES)
    level = false_refusals / max(1, len(tested))
    is_large = 100 * (lost - gained) >= limits.class_margin * images
    may_be_significant = 0.5 ** (lost + gained) <= level  # no p-value of so many differences is smaller
    losses = [
        ClassLoss(classes[label], 100 * float(lost[label] - gained[label]) / int(images[label]), int(images[label]))
        for label in tested[(is_large & may_be_significant)[tested]].tolist()
        if mcnemar(int(gained[label]), int(lost[label]), "less") <= level
    ]
    return max(losses, key=lambda loss: loss.points, default=None)
