"""Names that state a split, and names that do not."""

from __future__ import annotations

import pytest

from models.data.sources.split_names import kind_of, split_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("train_station", None), ("test_tube", None), ("trains", None), ("contest", None), ("validity", None)),
        *(
            ("training shoes", None),
            ("settee", None),
            ("evaluator", None),
            ("images", None),
            ("train_test_split", None),
        ),
        *(("TrainingImages", "train"), ("valset", "val"), ("Hold-Out", "test"), ("imgtest", "test")),
    ],
)
def test_only_words_without_a_content_make_the_name_of_a_split(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("trainLabels.csv", "train"), ("testset-000.tar", "test"), ("LOC_val_solution.csv", "val")),
        *(("train_val_list.csv", None), ("train-test.csv", None), ("labels.csv", None)),
    ],
)
def test_the_split_of_a_file_is_a_word_of_its_name(name: str, kind: str | None) -> None:
    assert split_of(name) == kind
