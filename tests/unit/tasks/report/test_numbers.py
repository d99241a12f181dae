"""How the report writes numbers."""

import re

import pytest

from tasks.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5_288_548, "5.29 M"),
        (37_745_884_192, "37.7 B"),
        (385_814_752, "386 M"),
        (72_434, "72.4 k"),
        (999, "999"),
        (999_600, "1.00 M"),
        (0, "0"),
        (7.5, "7.5"),
    ],
)
def test_sizes_are_written_with_three_digits(value: float, text: str) -> None:
    assert numbers.si(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_times_and_dates_are_written_for_people() -> None:
    assert [re.sub("<[^>]+>", "", numbers.duration(s)) for s in (42.4, 59.6, 2472.3, 11520, None)] == [
        "42 s",
        "1 min 0 s",
        "41 min 12 s",
        "3 h 12 min",
        "—",
    ]
    assert numbers.date("2025-11-23T20:31:02Z") == "23 Nov 2025, 20:31 UTC"
    assert numbers.date("2025-11-23T20:31:02") == "23 Nov 2025, 20:31"
    assert numbers.date("2025-11-23 20:31:02 UTC") == "23 Nov 2025, 20:31 UTC"
    assert numbers.date("yesterday") == "yesterday"
    assert numbers.commit("0f3c9a7d51e2b84c6a90-dirty") == "0f3c9a7d51e2-dirty"


@pytest.mark.parametrize(("value", "text"), [(0.4921, "0.49"), (0.001, "0.001"), (0.00099, "< 0.001"), (None, "—")])
def test_a_p_value_is_never_written_as_zero(value: float | None, text: str) -> None:
    assert re.sub("<[^>]+>", "", numbers.p_value(value)).replace("\N{NO-BREAK SPACE}", " ").replace("&lt;", "<") == text
