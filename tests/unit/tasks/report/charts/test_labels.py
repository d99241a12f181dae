"""Labels beside the dots of a chart."""

import pytest

from tasks.report.charts import labels


def test_no_leader_line_is_computed_for_a_name_that_fits_beside_its_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "samples", lambda *_: pytest.fail("a line was computed"))
    [name] = labels.place_names(["b0"], [(100.0, 100.0)], (0.0, 0.0, 200.0, 200.0), [], [])
    assert name.line is None
    assert name.steps == []


def test_a_name_whose_dot_is_surrounded_is_led_to_by_a_line() -> None:
    taken = [labels.around(100.0, 100.0, 15.0)]
    [name] = labels.place_names(["b0"], [(100.0, 100.0)], (0.0, 0.0, 200.0, 200.0), [], taken)
    assert name.line is not None
    assert name.steps == labels.samples(name.line[:2], name.line[2:], 0.5)[1:]
