"""The verdict on a challenger, out of what two networks got right."""

from __future__ import annotations

import numpy as np
import pytest

from conf.schema import Nightly
from infra.errors import ArtifactError
from tasks import gate
from tasks.gate import PROMOTED, REFUSED, TIED, Verdict, sign_test


def answers(n: int, correct: int, lost: int = 0) -> np.ndarray:
    """The first ``correct`` images right, but for the first ``lost`` of them, in place of which come as many others."""
    found = np.arange(n) < correct + lost
    found[:lost] = False
    return found


def compare_answers(ours: np.ndarray, theirs: np.ndarray, margin: float, champion: int) -> Verdict:
    """As the gate does, with the images divided evenly among ten classes."""
    labels = (np.arange(len(ours)) % 10).astype(np.int32)
    return gate.compare_answers(ours, theirs, labels, list("abcdefghij"), Nightly(margin=margin), champion)


def test_a_clearly_better_network_is_promoted_and_both_numbers_are_said() -> None:
    verdict = compare_answers(answers(120, 110, lost=2), answers(120, 100), 0.3, 7)
    assert verdict.outcome == PROMOTED
    assert verdict.reason.startswith("challenger 91.67 %, champion 83.33 % of the same 120 images, difference +8.33 (")
    assert verdict.reason.endswith(": promoted")
    assert (verdict.tags["compared_with"], verdict.tags["compared_n"]) == ("7", "120")
    assert float(verdict.tags["compared_top1"]) == pytest.approx(91.6667)
    assert float(verdict.tags["compared_champion_top1"]) == pytest.approx(83.3333)


@pytest.mark.parametrize("lost", [0, 12])
def test_a_tie_leaves_the_champion(lost: int) -> None:
    verdict = compare_answers(answers(50_000, 40_000, lost), answers(50_000, 40_000), 100, 1)
    assert verdict.outcome == TIED
    assert "difference +0.00" in verdict.reason
    assert verdict.reason.endswith("not promoted, it is not better")


def test_a_worse_network_is_refused_however_wide_the_margin() -> None:
    assert compare_answers(answers(50_000, 39_999), answers(50_000, 40_000), 100, 1).outcome == TIED
    verdict = compare_answers(answers(50_000, 39_000), answers(50_000, 40_000), 0.3, 1)
    assert verdict.outcome == REFUSED
    assert verdict.reason.endswith("not promoted, it is worse: the upper bound -1.90 is below -0.3 (nightly.margin)")


def test_a_lead_that_may_be_chance_is_refused_by_the_bound_and_a_wider_margin_takes_it() -> None:
    challenger, champion = answers(120, 102, lost=8), answers(120, 100)
    verdict = compare_answers(challenger, champion, 0.3, 1)
    assert verdict.outcome == TIED
    assert verdict.reason.endswith("not promoted, the lower bound is not above -0.3 (nightly.margin)")
    assert float(verdict.tags["compared_lower_bound"]) < -0.3
    assert compare_answers(challenger, champion, 10, 1).outcome == PROMOTED


def test_a_small_lead_on_many_images_suffices() -> None:
    assert compare_answers(answers(50_000, 40_030, lost=1000), answers(50_000, 40_000), 0.3, 1).outcome == PROMOTED


def test_answers_to_other_images_are_no_comparison() -> None:
    with pytest.raises(ArtifactError, match="on 10 images, the champion on 11"):
        compare_answers(answers(10, 3), answers(11, 3), 0.3, 1)


def test_a_network_that_knows_only_the_most_frequent_class_is_refused() -> None:
    labels = np.where(np.arange(1000) < 600, 0, 1).astype(np.int32)
    verdict = gate.compare_answers(labels == 0, np.arange(1000) < 500, labels, ["often", "seldom"], Nightly(), 1)
    assert verdict.outcome == REFUSED
    assert "60.00 % is not more than 5 points above 60.00 %, the share of the most frequent class" in verdict.reason
    wider = gate.compare_answers(
        np.arange(1000) < 660, np.arange(1000) < 500, labels, ["often", "seldom"], Nightly(), 1
    )
    assert wider.outcome == PROMOTED


def test_a_better_network_that_lost_a_class_is_refused_by_the_name_of_the_class() -> None:
    labels = np.repeat(np.arange(10), 60).astype(np.int32)
    champion = np.arange(600) % 60 < 40
    challenger = np.arange(600) % 60 < 50
    challenger[labels == 3] = np.arange(60) < 30
    verdict = gate.compare_answers(challenger, champion, labels, list("abcdefghij"), Nightly(), 1)
    assert float(verdict.tags["compared_lower_bound"]) > 0
    assert verdict.outcome == REFUSED
    assert verdict.reason.endswith(
        "not promoted, class 'd' is worse by 16.67 points on 60 images, 5 are allowed (nightly.class_margin)"
    )
    tolerant = Nightly(class_margin=20)
    assert gate.compare_answers(challenger, champion, labels, list("abcdefghij"), tolerant, 1).outcome == PROMOTED
    few = labels.copy()
    few[np.flatnonzero(labels == 3)[:11]] = 4  # 49 images are left in the class
    assert gate.compare_answers(challenger, champion, few, list("abcdefghij"), Nightly(), 1).outcome == PROMOTED


def test_the_sign_test_is_the_binomial_tail() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(3, 0) == 1 / 8
    assert sign_test(2, 1) == 4 / 8


def simulate_nights(lead: float, nights: int = 200, n: int = 50_000, disagreement: float = 0.08) -> list[str]:
    """Outcomes of challengers whose true accuracy is ``lead`` points above the champion's, on ImageNet's val."""
    rng = np.random.default_rng(round(1000 * (lead + 1)))
    labels = (np.arange(n) % 1000).astype(np.int32)
    classes, outcomes = [str(label) for label in range(1000)], []
    gained, lost = (disagreement + lead / 100) / 2, (disagreement - lead / 100) / 2
    for _ in range(nights):
        draw = rng.random(n)
        theirs = (draw < lost) | (draw >= 1 - 0.75)  # lost, or correct in both
        ours = ((draw >= lost) & (draw < lost + gained)) | (draw >= 1 - 0.75)
        outcomes.append(gate.compare_answers(ours, theirs, labels, classes, Nightly(), 1).outcome)
    return outcomes


def test_over_200_nights_an_equal_challenger_is_seldom_refused_and_one_a_point_worse_always() -> None:
    equal, worse, better = (simulate_nights(lead) for lead in (0.0, -1.0, 1.0))
    assert equal.count(REFUSED) <= 10
    assert worse.count(REFUSED) >= 190
    assert worse.count(PROMOTED) == 0
    assert better.count(PROMOTED) >= 190
