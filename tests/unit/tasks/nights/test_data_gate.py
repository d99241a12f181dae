"""Which data of a night are refused before the training, and by which number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.schema import Nightly
from models.data.shards.manifest import TABLE, ImageNote, Manifest, Shard
from tasks.nights.data_gate import describe_label_drop, find_faults, stability_index


def data(train: list[int], val: list[int], first: int = 0) -> Manifest:
    """A data set with these numbers of images per class in its splits; no two images are equal."""
    shards, parts = [], []
    for split, counts in (("train", train), ("val", val)):
        labels = np.repeat(np.arange(len(counts)), counts)
        rows = np.zeros(len(labels), TABLE)
        rows["label"], rows["xxh3"], rows["size"] = labels, first + np.arange(len(labels)), 100
        first += len(labels)
        shards.append(Shard(f"{split}-0.tar", split, len(labels), 10**6, "ab" * 32))
        parts.append(rows)
    return Manifest("pets", ("cat", "dog"), "digest", "original", tuple(shards), np.concatenate(parts))


OLD = data([500, 500], [100, 100])


def test_grown_data_of_the_same_shares_are_accepted_with_and_without_a_champion() -> None:
    assert find_faults(data([520, 510], [104, 101]), OLD, Nightly()) == []
    assert find_faults(OLD, None, Nightly()) == []


def test_a_split_that_shrinks_by_more_than_the_limit_is_refused() -> None:
    assert find_faults(data([450, 450], [90, 90]), OLD, Nightly()) == []
    assert find_faults(data([450, 449], [100, 100]), OLD, Nightly()) == [
        "train has 899 images, 10.1 % fewer than the 1000 of the champion's data; 10 % are allowed (nightly.max_shrink)"
    ]
    assert len(find_faults(data([450, 449], [80, 80]), OLD, Nightly())) == 2
    assert find_faults(data([250, 250], [100, 100]), OLD, Nightly(max_shrink=50)) == []


def test_a_class_whose_share_shifts_is_refused_by_its_name() -> None:
    (line,) = find_faults(data([2000, 500], [100, 100]), OLD, Nightly())
    assert line == (
        "the shares of the classes have shifted: PSI 0.35, 0.2 is allowed (nightly.max_psi); 'cat' went from 50.0 to "
        "77.8 % most of all"
    )
    assert find_faults(data([2000, 500], [100, 100]), OLD, Nightly(max_psi=0.4)) == []


def test_the_shares_of_classes_are_compared_by_name() -> None:
    old = data([900, 100], [180, 20])
    turned = replace(data([100, 900], [20, 180]), classes=("dog", "cat"))
    assert find_faults(turned, old, Nightly()) == []
    assert len(find_faults(replace(turned, classes=("cat", "dog")), old, Nightly())) == 1


def test_an_image_of_train_that_is_in_val_too_is_refused() -> None:
    leaky = data([500, 500], [100, 100])
    leaky.table[:3] = leaky.table[1000:1003]  # of train, and of val
    assert find_faults(leaky, OLD, Nightly()) == [
        "3 images of train are in val too, 0 are allowed (nightly.max_duplicates)"
    ]
    assert find_faults(leaky, OLD, Nightly(max_duplicates=3)) == []
    leaky.table[:2] = data([1, 1], [1, 1], first=5000).table[:2]
    (line,) = find_faults(leaky, OLD, Nightly())
    assert line.startswith("1 image of train is in val too")


def test_many_images_that_do_not_decode_are_refused_with_the_first() -> None:
    notes = tuple(ImageNote(f"{i}.jpg", "train", "cut short") for i in range(11))
    (line,) = find_faults(replace(OLD, quarantine=notes), None, Nightly())
    assert line == (
        "0.91 % of the images (11) do not decode, 10 or 0.1 % are allowed (nightly.max_quarantine); the first is "
        "0.jpg: cut short"
    )
    assert find_faults(replace(OLD, quarantine=notes), None, Nightly(max_quarantine=1)) == []


def test_ten_images_that_do_not_decode_are_no_reason_to_refuse_a_small_set() -> None:
    notes = tuple(ImageNote(f"{i}.jpg", "train", "cut short") for i in range(10))
    small = data([60, 60], [20, 20])
    assert find_faults(replace(small, quarantine=notes), None, Nightly()) == []


def test_another_encoding_of_the_images_is_refused() -> None:
    (line,) = find_faults(replace(OLD, encoding="max_side=64"), OLD, Nightly())
    assert "encoded as max_side=64, those of the champion as original" in line


def test_the_stability_index_is_that_of_the_definition() -> None:
    before, now = np.array([80, 20]), np.array([50, 50])
    assert stability_index(before, before) == 0
    expected = (0.5 - 0.8) * np.log(0.5 / 0.8) + (0.5 - 0.2) * np.log(0.5 / 0.2)
    assert stability_index(1000 * now, 1000 * before) == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(stability_index(np.array([100, 0]), before))


@pytest.mark.parametrize(
    ("agreed", "n", "refused"),
    [
        (66.0, 200, True),  # 30 % of the labels are wrong
        (80.0, 200, False),  # harder images
        (60.0, 5, False),  # may be chance
    ],
)
def test_new_images_whose_labels_the_champion_contradicts_are_refused(agreed: float, n: int, refused: bool) -> None:
    fault = describe_label_drop(agreed, n, 94.0, 120, Nightly())
    assert (fault is not None) == refused
    if fault is not None:
        assert fault == (
            "the champion agrees with the labels of 66.0 % of 200 new images, and of 94.0 % of val: 28.0 points "
            "less, 20 are allowed (nightly.max_label_drop)"
        )
    assert describe_label_drop(agreed, n, 94.0, 120, Nightly(max_label_drop=100)) is None
