"""What is matched and what is said where the classes of a model and of a data set differ."""

from __future__ import annotations

import pytest

from tasks.classes import describe_difference, find_rows


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
