"""The charts of the report: read back from the SVG."""

import math
import re
from itertools import pairwise

import pytest

from tasks.report.charts import scatter
from tasks.report.page import render


def test_the_dots_of_a_figure_lie_where_the_numbers_say() -> None:
    dots = [scatter.Dot(f"B{i}", 10.0 * 3**i, 70 + 2.5 * i, 0.5, "run", f"hover {i}") for i in range(5)]
    svg = scatter.scatter(dots, "x", "about")
    at = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]
    steps = [(b[0] - a[0], a[1] - b[1]) for a, b in pairwise(at)]
    assert len(at) == 5
    assert min(steps[0]) > 0
    for step in steps:  # equal factors are equal steps on the logarithmic axis, equal gains on the linear one
        assert step == pytest.approx(steps[0], abs=0.2)
    assert svg.count("<title>hover") == 5
    assert scatter.scatter([], "x", "about") == ""


def test_no_two_names_of_the_paper_s_panels_collide() -> None:
    figures = re.findall(r'<svg class="chart".*?</svg>', render(None, {}), re.DOTALL)
    # GPipe has no multiply-adds; then the rows of Table 3 by network, and those of Table 7.
    assert [svg.count("<title>") for svg in figures] == [24, 23, 4, 5, 5, 5]
    for svg in figures:
        names = re.findall(r'<text text-anchor="(\w+)" x="([\d.]+)" y="([\d.]+)">([^<]+)</text></g>', svg)
        boxes = []
        for anchor, x, y, name in names:
            width = 5.6 * len(name)
            left = float(x) - {"start": 0, "middle": width / 2, "end": width}[anchor]
            assert left >= 0
            assert left + width <= scatter.WIDTH
            boxes.append((name, left, left + width, float(y)))
        for i, (a, left, right, y) in enumerate(boxes):
            for b, other_left, other_right, other_y in boxes[i + 1 :]:
                apart = right <= other_left or other_right <= left or abs(y - other_y) >= 11
                assert apart, f"{a} and {b} collide"


def test_a_single_dot_and_equal_dots_are_drawn() -> None:
    dot = scatter.Dot("B0", 72_434, 100.0, 0.0, "run", "B0")
    assert scatter.scatter([dot], "x", "about").count("<title>") == 1
    assert scatter.scatter([dot] * 3, "x", "about").count("<title>") == 3
    assert "nan" not in scatter.scatter([dot] * 3, "x", "about")


def test_a_size_of_zero_has_no_place_on_a_logarithmic_axis() -> None:
    assert scatter.scatter([scatter.Dot("B0", 0, 50.0, 1.0, "run", "B0")], "x", "about") == ""


def test_a_name_is_escaped() -> None:
    svg = scatter.scatter([scatter.Dot("<b>", 10, 50.0, 1.0, "run", "</title><script>")], "<x>", '"<about>')
    assert not re.search(r"<(b|script|x|about)>", svg)
    assert "&lt;b&gt;" in svg
    assert "<script>" not in scatter.interval(50.0, (49, 51), (40, 60), (49, 51), "<script>")


def test_an_interval_lies_between_its_ends_on_the_common_axis() -> None:
    svg = scatter.interval(50.0, (45.0, 55.0), (40.0, 60.0), (45.0, 65.0), "hover")
    low, high = (float(x) for x in re.search(r"M([\d.]+) 12H([\d.]+)", svg).groups())  # type: ignore[union-attr]
    [middle] = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    room = scatter.INTERVAL_WIDTH - 2 * scatter.INTERVAL_PAD
    assert middle == pytest.approx(scatter.INTERVAL_WIDTH / 2)
    assert (low, high) == pytest.approx((middle - room / 4, middle + room / 4), abs=0.1)
    assert re.findall(r">([\d.]+)</text>", scatter.interval_axis((40.0, 60.0))) == ["40", "50", "60"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (94.7, 98.6), (76, 84.3), (0.001, 0.0011), (0, 100), (50, 50.5)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = scatter.ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= high + 1e-9
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step * 1.0001)), 3) in (1, 2, 5)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(50.0, 1.0), (60.0, 2.0)], (49.0, 62.0)),
        ([(99.0, 3.0)], (96.0, 100.0)),
        ([(100.0, 0.0)], (99.0, 100.0)),
        ([(0.0, 0.0)], (0.0, 1.0)),
    ],
)
def test_the_range_is_never_empty_and_stays_in_0_to_100(
    pairs: list[tuple[float, float]], expected: tuple[float, float]
) -> None:
    assert scatter.percent_range(pairs) == expected
