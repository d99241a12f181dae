"""The rules by which the data of a night are refused before anything is trained; pure functions on manifests.

A refusal names the number, the limit and the setting. The classes are compared in ``tasks/nights/line.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conf.schema import Nightly
from conf.text import count
from models.data.sources.unused import LOST_FEW

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.data.shards.manifest import Manifest

_COMPARED = ("train", "val")  # splits whose number of images may not shrink
_EVERY = "train+minival+val"
ONE_SIDED_95 = 1.645  # quantile of the normal distribution


def find_faults(new: Manifest, old: Manifest | None, limits: Nightly) -> list[str]:
    """Returns one line per limit that a data set violates; empty if it may be trained on.

    Args:
        new: Data set of the night.
        old: Data set that the champion was trained on, of the same classes; None if there is no champion yet.
        limits: Limits of the rules.
    """
    lines = [_describe_quarantine(new, limits), _describe_duplicates(new, limits)]
    if old is not None:
        lines += [_describe_encoding(new, old), *(_describe_shrinkage(new, old, split, limits) for split in _COMPARED)]
        lines.append(_describe_shift(new, old, limits))
    return [line for line in lines if line is not None]


def _describe_quarantine(new: Manifest, limits: Nightly) -> str | None:
    from models.data.shards.manifest import describe_notes

    lost = len(new.quarantine)
    share = 100 * lost / (lost + len(new.table))
    if lost <= LOST_FEW or share <= limits.max_quarantine:
        return None
    return (
        f"{share:.2f} % of the images ({lost}) do not decode, {LOST_FEW} or {limits.max_quarantine:g} % are allowed "
        f"(nightly.max_quarantine); {describe_notes(new.quarantine)}"
    )


def _describe_duplicates(new: Manifest, limits: Nightly) -> str | None:
    """Counts the images of train whose bytes are those of an image of val, by their checksums in the manifest."""
    import numpy as np

    from models.data.shards.manifest import Samples

    train, val = (Samples(new, [split]).rows[["xxh3", "size"]] for split in ("train", "val"))
    number = int(np.isin(train, val).sum())
    if number <= limits.max_duplicates:
        return None
    said = f"{count(number, 'image')} of train {'is' if number == 1 else 'are'} in val too"
    return f"{said}, {limits.max_duplicates} are allowed (nightly.max_duplicates)"


def _describe_encoding(new: Manifest, old: Manifest) -> str | None:
    if new.encoding == old.encoding:
        return None
    return f"the images are encoded as {new.encoding}, those of the champion as {old.encoding} (data.max_side)"


def _describe_shrinkage(new: Manifest, old: Manifest, split: str, limits: Nightly) -> str | None:
    now, before = new.samples(split), old.samples(split)
    loss = 100 * (1 - now / before) if before else 0.0
    if loss <= limits.max_shrink:
        return None
    return (
        f"{split} has {count(now, 'image')}, {loss:.1f} % fewer than the {before} of the champion's data; "
        f"{limits.max_shrink:g} % are allowed (nightly.max_shrink)"
    )


def _describe_shift(new: Manifest, old: Manifest, limits: Nightly) -> str | None:
    import numpy as np

    from models.data.shards.manifest import class_counts

    label_of = {name: label for label, name in enumerate(old.classes)}
    now = class_counts(new, _EVERY)
    before = class_counts(old, _EVERY)[[label_of[name] for name in new.classes]]  # the order may be another one
    psi = stability_index(now, before)
    if psi <= limits.max_psi:
        return None
    label = int(np.argmax(np.abs(now / now.sum() - before / before.sum())))
    shares = (100 * counts[label] / counts.sum() for counts in (before, now))
    return (
        "the shares of the classes have shifted: PSI {:.2f}, {:g} is allowed (nightly.max_psi); {!r} went from "
        "{:.1f} to {:.1f} % most of all".format(psi, limits.max_psi, new.classes[label], *shares)
    )


def describe_label_drop(top1: float, n: int, val_top1: float, val_n: int, limits: Nightly) -> str | None:
    """Says by how much the champion is less accurate on new images than on val; None if that is allowed.

    It was trained on neither, so equally good labels give equal accuracies. The drop must be significant too: its
    one-sided 95 % lower bound, of two independent shares, must be above 0.

    Args:
        top1: Percent of the new images whose label is the champion's answer.
        n: Number of new images.
        val_top1: The champion's top-1 on val in percent.
        val_n: Number of images of val.
        limits: Limits of the rules.
    """
    drop = val_top1 - top1
    variance = sum(share * (100 - share) / count for share, count in ((top1, n), (val_top1, val_n)))
    if drop <= limits.max_label_drop or drop <= ONE_SIDED_95 * variance**0.5:
        return None
    return (
        f"the champion agrees with the labels of {top1:.1f} % of {count(n, 'new image')}, and of {val_top1:.1f} % of "
        f"val: {drop:.1f} points less, {limits.max_label_drop:g} are allowed (nightly.max_label_drop)"
    )


def stability_index(now: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    """Returns the population stability index of two histograms over the same ``[classes]``; 0 for equal shares.

    It is the sum of (p - q) ln(p / q) over the shares p and q. Half an image is added to each class, so that an empty
    one has a share. Below 0.1 a shift is usually called small, above 0.2 large.

    Source: Yurdakul and Naranjo, "Statistical properties of the population stability index", Journal of Risk Model
    Validation 14 (2020).
    """
    import numpy as np

    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (now, before))
    return float(((p - q) * np.log(p / q)).sum())
