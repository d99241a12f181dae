"""What is matched and what is said where the classes of a model and of a data set differ."""

from __future__ import annotations

import numpy as np
import pytest

from infra.tracking.registry import Version
from models.data.shards.manifest import TABLE, Manifest
from models.networks import packaged
from models.results import ShardResult
from tasks.classes import class_lists, describe_difference, find_rows


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (["cat", "dog"], ["cat", "dog"], None),
        (
            ["cat", "dog", "eel"],
            ["cat", "eel", "dog"],
            "class 1 is 'dog' in the model and 'eel' in the data, class 2 is 'eel' in the model and 'dog' in the data "
            "(2 of 3 differ)",
        ),
        (["cat"], ["cat", "dog"], "the model has 1 classes, the data 2; only the data has 'dog'"),
        (
            ["cat", "ape"],
            ["dog"],
            "the model has 2 classes, the data 1; only the data has 'dog'; only the model has 'ape', 'cat'",
        ),
        (["cat", "dog"], ["cat"], "the model has 2 classes, the data 1; only the model has 'dog'"),
    ],
)
def test_lists_of_classes_are_the_same_or_the_first_differences_are_named(
    model: list[str], data: list[str], said: str | None
) -> None:
    assert describe_difference(model, data) == said


def test_of_a_thousand_differences_three_are_named() -> None:
    said = describe_difference([f"n{i:08d}" for i in range(1000)], [str(i) for i in range(1000)])
    assert said is not None
    assert said.count("in the data") == 3
    assert said.endswith("(1000 of 1000 differ)")


@pytest.mark.parametrize(
    ("model", "data", "rows"),
    [
        (["cat", "dog", "eel"], ["eel", "cat", "dog"], [2, 0, 1]),
        (["cat", "dog", "eel"], ["eel", "cat"], [2, 0]),
        (["cat", "dog"], ["cat", "ape"], None),
        (["cat", "dog"], ["cat", "dog", "eel"], None),
        (["crane", "crane", "eel"], ["eel", "crane"], None),
        (["crane", "eel"], ["crane", "crane"], None),
        (["crane", "crane"], ["crane", "crane"], [0, 1]),
    ],
)
def test_another_order_and_a_part_of_the_classes_are_matched_by_name(
    model: list[str], data: list[str], rows: list[int] | None
) -> None:
    assert find_rows(model, data) == rows


def lists(
    monkeypatch: pytest.MonkeyPatch, model: list[str], data: list[str], **tags: str
) -> tuple[list[str], list[str]]:
    monkeypatch.setattr("infra.tracking.registry.describe", lambda _: {"class_names": model})
    manifest = Manifest("made", tuple(data), "digest", "original", (), np.zeros(0, TABLE))
    monkeypatch.setattr("models.data.shards.manifest.load", lambda _: ("sha256", manifest))
    shards = ShardResult("made", "file:///manifest.json", "sha256", len(data), 1, 1, 1, 1, reused=True)
    return class_lists(Version("public", 1, "run", (), tags), shards)


NAMES, WNIDS = list(packaged.imagenet_names()), list(packaged.imagenet_wnids())
NUMBERS = [str(number) for number in range(1000)]


@pytest.mark.parametrize("model", [NAMES, NUMBERS], ids=["names", "numbers"])
def test_imported_weights_of_a_thousand_classes_are_matched_with_imagenet_by_wordnet_ids(
    monkeypatch: pytest.MonkeyPatch, model: list[str]
) -> None:
    for data in (WNIDS, WNIDS[::-1], WNIDS[200:210]):
        assert lists(monkeypatch, model, data, source_sha256="a") == (WNIDS, data)
    others = [f"class {number}" for number in range(1000)]
    assert lists(monkeypatch, model, others, source_sha256="a") == (others, others)
    assert find_rows(*lists(monkeypatch, model, ["cat", "dog"], source_sha256="a")) is None
    assert find_rows(*lists(monkeypatch, model, ["0", "1"], source_sha256="a")) is None


def test_the_names_of_a_trained_network_are_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lists(monkeypatch, NAMES, WNIDS) == (NAMES, WNIDS)
