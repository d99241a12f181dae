"""The verdict on a challenger, out of what two networks got right."""

from __future__ import annotations

import numpy as np
import pytest

from infra.errors import ArtifactError
from tasks.promote import compare_answers


def answers(n: int, correct: int, lost: int = 0) -> np.ndarray:
    """The first ``correct`` images right, but for the first ``lost`` of them, in place of which come as many others."""
    found = np.arange(n) < correct + lost
    found[:lost] = False
    return found


def test_a_clearly_better_network_is_promoted_and_both_numbers_are_said() -> None:
    verdict = compare_answers(answers(120, 110, lost=2), answers(120, 100), 0.3, 7)
    assert verdict.better
    assert verdict.reason.startswith("challenger 91.67 %, champion 83.33 % of the same 120 images, difference +8.33 (")
    assert verdict.reason.endswith(": promoted")
    assert (verdict.tags["compared_with"], verdict.tags["compared_n"]) == ("7", "120")
    assert float(verdict.tags["compared_top1"]) == pytest.approx(91.6667)
    assert float(verdict.tags["compared_champion_top1"]) == pytest.approx(83.3333)


@pytest.mark.parametrize("lost", [0, 12])
def test_a_tie_leaves_the_champion(lost: int) -> None:
    verdict = compare_answers(answers(50_000, 40_000, lost), answers(50_000, 40_000), 100, 1)
    assert not verdict.better
    assert "difference +0.00" in verdict.reason
    assert verdict.reason.endswith("not promoted, it is not better")


def test_a_worse_network_is_refused_however_wide_the_margin() -> None:
    assert not compare_answers(answers(50_000, 39_999), answers(50_000, 40_000), 100, 1).better


def test_a_lead_that_may_be_chance_is_refused_by_the_bound_and_a_wider_margin_takes_it() -> None:
    challenger, champion = answers(120, 102, lost=8), answers(120, 100)
    verdict = compare_answers(challenger, champion, 0.3, 1)
    assert not verdict.better
    assert verdict.reason.endswith("not promoted, the lower bound is not above -0.3 (nightly.margin)")
    assert float(verdict.tags["compared_lower_bound"]) < -0.3
    assert compare_answers(challenger, champion, 10, 1).better


def test_a_small_lead_on_many_images_suffices() -> None:
    assert compare_answers(answers(50_000, 40_030, lost=1000), answers(50_000, 40_000), 0.3, 1).better


def test_answers_to_other_images_are_no_comparison() -> None:
    with pytest.raises(ArtifactError, match="on 10 images, the champion on 11"):
        compare_answers(answers(10, 3), answers(11, 3), 0.3, 1)
