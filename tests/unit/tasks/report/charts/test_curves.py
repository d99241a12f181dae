"""The curves of a training."""

import xml.etree.ElementTree as ElementTree

from tasks.report.charts.curves import draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def lines(svg: str) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(svg)  # noqa: S314 - written by the code under test
    points = [line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")]
    return [[tuple(map(float, point.split(","))) for point in line] for line in points]  # type: ignore[misc]


def test_a_falling_loss_falls_and_a_rising_accuracy_rises_over_the_same_steps() -> None:
    rows = [{"step": s, "train_loss": 4.0 / s} for s in range(1, 9)] + [{"step": s, "minival_top1": s} for s in (4, 8)]
    loss, accuracy = lines(draw_curves(rows))
    assert [y for _, y in loss] == sorted(y for _, y in loss)  # down the page
    assert accuracy[0][1] > accuracy[1][1]
    assert loss[-1][0] == accuracy[-1][0]


def test_a_metric_that_no_row_has_is_no_panel() -> None:
    assert len(lines(draw_curves([{"step": 1, "minival_top1": 50.0}]))) == 1
    assert draw_curves([{"step": 1, "epoch": 0}]) == ""
