"""What is matched and what is said where the classes of a model and of a data set differ."""

from __future__ import annotations

import numpy as np
import pytest

from conf.experiments import CLASSES_GIVEN
from infra.errors import ConfigError
from infra.tracking.registry import Version
from models.data.shards.manifest import TABLE, Manifest
from models.networks import packaged
from models.results import ShardResult
from tasks.classes import class_lists, class_mismatch, describe_difference, find_rows, require_rows


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
        (["ant", "bee", "cat"], ["ape", "bee", "ant"], "only the data has 'ape'; only the model has 'cat'"),
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


def made(
    monkeypatch: pytest.MonkeyPatch, model: list[str], data: list[str], **tags: str
) -> tuple[Version, ShardResult]:
    monkeypatch.setattr("infra.tracking.registry.describe", lambda _: {"class_names": model})
    manifest = Manifest("made", tuple(data), "digest", "original", (), np.zeros(0, TABLE))
    monkeypatch.setattr("models.data.shards.manifest.load", lambda _: ("sha256", manifest))
    shards = ShardResult("made", "file:///manifest.json", "sha256", len(data), 1, 1, 1, 1, reused=True)
    return Version("public", 1, "run", (), tags), shards


def lists(
    monkeypatch: pytest.MonkeyPatch, model: list[str], data: list[str], **tags: str
) -> tuple[list[str], list[str]]:
    return class_lists(*made(monkeypatch, model, data, **tags))[:2]


NAMES, WNIDS = list(packaged.imagenet_names()), list(packaged.imagenet_wnids())
NUMBERS = [str(number) for number in range(1000)]


@pytest.mark.parametrize("model", [NAMES, NUMBERS], ids=["names", "numbers"])
def test_imported_weights_of_a_thousand_classes_are_matched_with_imagenet_by_wordnet_ids(
    monkeypatch: pytest.MonkeyPatch, model: list[str]
) -> None:
    for data in (WNIDS, WNIDS[::-1], WNIDS[200:210]):
        assert lists(monkeypatch, model, data, source_sha256="a") == (WNIDS, data)
    others = [f"class {number:03}" for number in range(1000)]
    assert lists(monkeypatch, model, others, source_sha256="a") == (others, others)
    assert find_rows(*lists(monkeypatch, model, ["cat", "dog"], source_sha256="a")) is None
    assert find_rows(*lists(monkeypatch, model, ["0", "1"], source_sha256="a")) is None


def test_the_names_of_a_trained_network_are_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lists(monkeypatch, NAMES, WNIDS) == (NAMES, WNIDS)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            sorted(map(str, range(12))),
            "as class 2 the data set has '10', torchvision has (sorted as text) '10', timm has (sorted by numbers, in "
            "lower case) '2'",
        ),
        (["Zebra", "ant", "bee"], "timm has (sorted by numbers, in lower case) 'ant'"),
        (["bee", "ant"], "as class 0 the data set has 'bee', torchvision has (sorted as text) 'ant'"),
    ],
    ids=["sorted as text", "case", "own order"],
)
def test_unknown_names_are_never_assumed_in_one_of_several_orders(
    monkeypatch: pytest.MonkeyPatch, data: list[str], said: str
) -> None:
    """Folders named 0 to 11 would be matched by number, although torchvision has sorted them as 0, 1, 10, 11, 2."""
    model = [str(number) for number in range(len(data))]
    version, shards = made(monkeypatch, model, data, source_sha256="a", class_names="unknown")
    with pytest.raises(ConfigError, match=r"its \d+ classes are unknown.*published\.class_file=FILE") as refusal:
        class_lists(version, shards)
    assert said in str(refusal.value)
    assert ("(seq 0 11 > FILE where logit N is the class named N)" in str(refusal.value)) == (len(data) == 12)
    assert said in str(class_mismatch(version, shards))  # the gate refuses the promotion, not the registration


@pytest.mark.parametrize(
    "data",
    [[str(n) for n in range(1000)], [str(n) for n in range(12)], ["00", "01", "10", "11"], ["ant", "bee 2", "bee 3"]],
)
def test_unknown_names_are_assumed_where_all_usual_orders_are_the_same_which_is_stored(
    monkeypatch: pytest.MonkeyPatch, data: list[str]
) -> None:
    model = [str(number) for number in range(len(data))]
    assert class_lists(*made(monkeypatch, model, data, source_sha256="a")) == (
        data,
        data,
        "class names unknown: assumed in the order of made",
    )


def test_names_that_were_given_at_the_import_are_matched_even_if_they_are_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = sorted(map(str, range(12)))
    model = [str(number) for number in range(12)]
    assert lists(monkeypatch, model, data, source_sha256="a", class_names=CLASSES_GIVEN) == (model, data)
    assert find_rows(model, data) == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("model", "data", "remedy"),
    [
        (["Polar_Bear", "ant"], ["ant", "polar bear"], "The names are the same but for case, spaces, hyphens"),
        (["Polar-Bear", "ant", "bee"], ["polar_bear"], "The names are the same but for case, spaces, hyphens"),
        (["ant", "polar bear"], ["ant ", "polar bear"], "The names are the same but for case, spaces, hyphens"),
        (["ant", "polar bear"], ["001.ant", "002.polar_bear"], "The names are the same but for case, spaces"),
        (["ant", "tench"], ["ant, emmet", "tench, Tinca tinca"], "The names are the same but for case, .* synonyms"),
        (["caf\u00e9", "b"], ["cafe\u0301", "b"], "The names are the same but for case, spaces, hyphens"),
        (
            ["ant", "bee"],
            ["0", "1"],
            "The classes of the data set are numbers: data.class_file for shards, or a list as",
        ),
        (["0", "1"], ["ant", "bee"], "The classes of the model are numbers: take the data set without a list"),
        ([f"c{i}" for i in range(1000)], ["n01440764", "n01443537"], "The data set has WordNet ids: weights imported"),
        (["ant", "bee"], ["ant", "cat"], "Take the data set that it was trained on"),
        (["ant", "bee"], ["Ant", "ant"], "Take the data set that it was trained on"),
    ],
)
def test_of_classes_in_another_spelling_the_remedy_says_so(model: list[str], data: list[str], remedy: str) -> None:
    shards = ShardResult("pets", "file:///manifest.json", "sha256", len(data), 1, 1, 1, 1, reused=True)
    with pytest.raises(ConfigError, match=rf"would mean nothing\. {remedy}"):
        require_rows("b0/1", shards, model, data)


def test_names_that_look_alike_are_shown_with_what_differs() -> None:
    assert describe_difference(["caf\u00e9", "b"], ["cafe\u0301", "b"]) == (
        r"class 0 is 'caf\xe9' in the model and 'cafe\u0301' in the data (1 of 2 differ)"
    )


def test_of_other_names_the_remedy_says_where_names_are_given() -> None:
    shards = ShardResult("pets", "file:///manifest.json", "sha256", 2, 1, 1, 1, 1, reused=True)
    with pytest.raises(
        ConfigError, match=r"as 'n0 ant': in the folders or the table .*, in data\.class_file; imported"
    ):
        require_rows("b0/1", shards, ["n0 ant", "n1 bee"], ["ant", "bee"])
