"""Results read back from JSON: strictly where a job wrote them, as far as possible where the report shows them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import made_parts
import pytest

from infra.errors import DataError
from models.results import (
    FineTunedRow,
    LatencyResult,
    Point,
    RungResult,
    ScalingResult,
    SearchResult,
    TransferPart,
    Trial,
    result_from,
    salvage,
)

RUNG = {"epoch": 3, "top1": 50, "mean_per_class": 49.5, "mlflow_run": "r", "reused": False}
TRIAL = made_parts.trial(1.2, 1.1, 1.15, 90.0)


def test_a_result_comes_back_from_its_own_json_as_it_was() -> None:
    search = result_from(SearchResult, made_parts.grown_search({"trials": [TRIAL], "best": TRIAL}), "search.json")
    assert search.best == Trial(**TRIAL)
    assert [member.phi for member in search.family] == [1, 2, 3, 4, 5, 6, 7]
    assert result_from(SearchResult, json.loads(json.dumps(asdict(search))), "search.json") == search


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": None}, "r.json does not hold a number as 'epoch' but null"),
        ({"epoch": 2.5}, "as 'epoch' but '2.5'"),
        ({"reused": 1}, "r.json does not hold true or false as 'reused' but '1'"),
        ({"extra": 1}, "r.json holds the key 'extra', which RungResult does not define"),
    ],
)
def test_a_strict_reader_names_the_first_value_that_does_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        result_from(RungResult, RUNG | change, "r.json")


def test_a_strict_reader_names_the_entry_of_a_list() -> None:
    search = {"trials": [TRIAL, {**TRIAL, "alpha": "x"}], "best": TRIAL}
    with pytest.raises(DataError, match=r"trials\[1\] of s\.json does not hold a number as 'alpha' but 'x'"):
        result_from(SearchResult, search, "s.json")


def test_a_damaged_entry_is_excluded_and_named_and_the_others_stay() -> None:
    rows = made_parts.latency()["rows"]
    part, problems = salvage(LatencyResult, {"rows": [rows[0], {**rows[1], "params": "x"}, 3, rows[2]]}, "l.json")
    assert part is not None
    assert [row.network for row in part.rows] == ["efficientnet_b1", "efficientnet_b4"]
    assert problems == (
        "rows[1] of l.json does not hold a number as 'params' but 'x'",
        "l.json does not hold an object as 'rows[2]' but '3'",
    )


def test_a_damaged_field_with_a_default_takes_it_and_unknown_keys_are_ignored() -> None:
    part, problems = salvage(ScalingResult, {"data": 3, "found": 2, "of another version": []}, "s.json")
    assert part == ScalingResult(found=2)
    assert problems == ("s.json does not hold a string as 'data' but '3'",)


def test_a_field_without_a_default_that_is_damaged_leaves_no_result() -> None:
    row = made_parts.fine_tuned("digits", 90.0, 100)
    assert salvage(FineTunedRow, row, "s.json")[0] == FineTunedRow(**row | {"chosen": Point(0.016, 1e-5)})
    assert salvage(FineTunedRow, row | {"chosen": {"lr_per_256": 0.016}}, "s.json") == (
        None,
        ("chosen of s.json does not hold the key 'weight_decay'",),
    )


@pytest.mark.parametrize("value", [None, [], 3, "x", True])
def test_what_is_no_object_is_no_result(value: Any) -> None:
    part, [problem] = salvage(TransferPart, value, "t.json")
    assert part is None
    assert problem.startswith("t.json does not hold a JSON object but ")
