"""The verdict on a challenger, out of what two networks got right."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from matrix import with_slow_rest

from conf.nightly import RULES, Nightly
from infra.errors import ArtifactError
from infra.tracking.registry import Version
from models.data.shards import manifest
from models.results import EvalResult, ShardResult
from models.statistics import mcnemar
from models.training.per_image import ANSWER
from tasks.registry import gate, promote
from tasks.registry.gate import PROMOTED, REFUSED, TIED, Verdict


def answers(n: int, correct: int, lost: int = 0) -> np.ndarray:
    """The first ``correct`` images right, but for the first ``lost`` of them, in place of which come as many others."""
    found = np.arange(n) < correct + lost
    found[:lost] = False
    return found


def compare_answers(
    ours: np.ndarray, theirs: np.ndarray, margin: float, champion: int, rule: str = "better"
) -> Verdict:
    """As the gate does, with the images divided evenly among ten classes."""
    labels = (np.arange(len(ours)) % 10).astype(np.int32)
    return gate.compare_answers(ours, theirs, labels, list("abcdefghij"), Nightly(rule=rule, margin=margin), champion)


def test_a_clearly_better_network_is_promoted_and_both_numbers_are_said() -> None:
    verdict = compare_answers(answers(120, 110, lost=2), answers(120, 100), 0.3, 7)
    assert verdict.outcome == PROMOTED
    assert verdict.reason.startswith("challenger 91.67 %, champion 83.33 % of the same 120 images, difference +8.33 (")
    assert verdict.reason.endswith(": promoted")
    assert (verdict.tags["compared_with"], verdict.tags["compared_n"]) == ("7", "120")
    assert float(verdict.tags["compared_top1"]) == pytest.approx(91.6667)
    assert float(verdict.tags["compared_champion_top1"]) == pytest.approx(83.3333)


@pytest.mark.parametrize("lost", [0, 12])
def test_a_tie_leaves_the_champion_unless_the_rule_is_not_worse(lost: int) -> None:
    equal = answers(50_000, 40_000, lost), answers(50_000, 40_000)
    verdict = compare_answers(*equal, 0.3, 1)
    assert verdict.outcome == TIED
    assert "difference +0.00" in verdict.reason
    assert "not promoted, it is not better: the lower bound -0.0" in verdict.reason
    assert compare_answers(*equal, 0.3, 1, rule="not_worse").outcome == PROMOTED


def test_a_worse_network_is_refused_or_tied_by_the_rule_better_however_wide_the_margin() -> None:
    assert compare_answers(answers(50_000, 39_999), answers(50_000, 40_000), 100, 1).outcome == TIED
    for rule in RULES:
        verdict = compare_answers(answers(50_000, 39_000), answers(50_000, 40_000), 0.3, 1, rule)
        assert verdict.outcome == REFUSED
        assert verdict.reason.endswith(
            "not promoted, it is worse: the upper bound -1.90 is below -0.3 (nightly.margin)"
        )


def test_a_lead_that_may_be_chance_is_tied_and_a_margin_takes_it_only_by_the_rule_not_worse() -> None:
    challenger, champion = answers(120, 102, lost=8), answers(120, 100)
    assert compare_answers(challenger, champion, 10, 1).outcome == TIED
    verdict = compare_answers(challenger, champion, 0.3, 1, "not_worse")
    assert verdict.outcome == TIED
    assert verdict.reason.endswith("not promoted, the lower bound is not above -0.3 (nightly.margin)")
    assert float(verdict.tags["compared_lower_bound"]) < -0.3
    assert compare_answers(challenger, champion, 10, 1, "not_worse").outcome == PROMOTED


def test_a_small_lead_on_many_images_suffices_if_few_answers_differ() -> None:
    champion = answers(50_000, 40_000)
    assert compare_answers(answers(50_000, 40_030, lost=100), champion, 0.3, 1).outcome == PROMOTED
    assert compare_answers(answers(50_000, 40_030, lost=1000), champion, 0.3, 1).outcome == TIED
    assert compare_answers(answers(50_000, 40_030, lost=1000), champion, 0.3, 1, "not_worse").outcome == PROMOTED


def test_answers_to_other_images_are_no_comparison() -> None:
    with pytest.raises(ArtifactError, match="on 10 images, the champion on 11"):
        compare_answers(answers(10, 3), answers(11, 3), 0.3, 1)


@pytest.mark.parametrize(
    ("gained", "lost", "worse"),
    [(0, 0, False), (10, 15, False), (0, 9, False), (0, 10, True), (20, 55, True), (30, 0, False)],
)
def test_a_champion_is_worse_than_the_one_before_only_if_that_is_no_chance(gained: int, lost: int, worse: bool) -> None:
    n = 400
    before = np.arange(n) < 300
    champion = before.copy()
    champion[:lost] = False
    champion[300 : 300 + gained] = True
    found = gate.find_regression(champion, before, np.zeros(n, np.int32), ["a"], Nightly())
    assert (found is not None) == worse
    if found is not None:
        points = 100 * (lost - gained) / n
        assert found.reason.startswith(f"{75 - points:.2f} % and 75.00 % of {n} images that came since, {points:.2f} ")
        assert found.tags["watched_n"] == str(n)
    wider = gate.find_regression(champion, before, np.zeros(n, np.int32), ["a"], Nightly(margin=20, class_margin=20))
    assert wider is None


def test_a_champion_that_lost_a_class_is_worse_by_the_name_of_the_class() -> None:
    labels = np.repeat(np.arange(10), 60).astype(np.int32)
    before = np.arange(600) % 60 < 40
    champion = np.arange(600) % 60 < 50
    champion[labels == 3] = np.arange(60) < 20
    found = gate.find_regression(champion, before, labels, list("abcdefghij"), Nightly())
    assert found is not None
    assert "of class 'd' 33.33 points less on 60 images, 5 are allowed (nightly.class_margin)" in found.reason


def test_of_2000_nights_with_an_equal_champion_hardly_one_takes_it_back_and_five_points_less_are_noticed() -> None:
    rng = np.random.default_rng(0)
    labels, found = np.zeros(1000, np.int32), Counter[str]()
    for _ in range(1000):
        draws = rng.random((2, 1000))
        equal = gate.find_regression(draws[0] < 0.9, draws[1] < 0.9, labels, ["a"], Nightly())
        worse = gate.find_regression(draws[0] < 0.85, draws[1] < 0.9, labels, ["a"], Nightly(class_margin=100))
        found.update(equal=equal is not None, worse=worse is not None)
    assert found["equal"] <= 4
    assert found["worse"] > 500


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


def test_the_test_of_a_class_is_the_binomial_tail() -> None:
    assert mcnemar(0, 0, "less") == 1
    assert mcnemar(0, 3, "less") == pytest.approx(1 / 8, rel=1e-12)
    assert mcnemar(1, 2, "less") == pytest.approx(4 / 8, rel=1e-12)


def test_a_first_version_must_exceed_chance_by_the_margin() -> None:
    labels = np.where(np.arange(1000) < 600, 0, 1).astype(np.int32)
    refused = gate.judge_first(answers(1000, 650), labels, Nightly())
    assert refused.outcome == REFUSED
    assert refused.reason == (
        "not promoted, and there is no champion: of 1000 images, 65.00 % is not more than 5 points above 60.00 %, the "
        "share of the most frequent class (nightly.chance_margin)"
    )
    first = gate.judge_first(answers(1000, 651), labels, Nightly())
    said = "65.10 % of 1000 images (95 % interval 62.15 to 68.05): promoted, there was no champion"
    assert (first.outcome, first.reason) == (PROMOTED, said)
    assert gate.judge_first(answers(1000, 650), labels, Nightly(chance_margin=4)).outcome == PROMOTED
    with pytest.raises(ArtifactError, match="on 10 images, val has 1000"):
        gate.judge_first(answers(10, 3), labels, Nightly())


@pytest.mark.parametrize(("lost", "significant"), [(7, False), (8, True)])
def test_the_fewest_images_that_can_be_significant_decide(lost: int, significant: bool) -> None:
    """At 0.05 / 10 for one of ten classes: the p-values of 7 and of 8 losses without a gain are 1/128 and 1/256."""
    labels = np.repeat(np.arange(10), 60).astype(np.int32)
    challenger = np.arange(600) >= lost  # loses images of class a only
    loss = gate.worst_class(challenger, np.ones(600, bool), labels, list("abcdefghij"), Nightly())
    assert (loss is not None) == significant


def simulate_nights(
    lead: float, rule: str, nights: int = 200, n: int = 50_000, disagreement: float = 0.08
) -> Counter[str]:
    """Outcomes of challengers whose true accuracy is ``lead`` points above the champion's, on ImageNet's val."""
    rng = np.random.default_rng(round(1000 * (lead + 1)))
    labels = (np.arange(n) % 1000).astype(np.int32)
    classes, outcomes = [str(label) for label in range(1000)], Counter[str]()
    gained, lost = (disagreement + lead / 100) / 2, (disagreement - lead / 100) / 2
    for _ in range(nights):
        draw = rng.random(n)
        theirs = (draw < lost) | (draw >= 1 - 0.75)  # lost, or correct in both
        ours = ((draw >= lost) & (draw < lost + gained)) | (draw >= 1 - 0.75)
        outcomes[gate.compare_answers(ours, theirs, labels, classes, Nightly(rule=rule), 1).outcome] += 1
    return outcomes


@pytest.mark.slow
def test_over_200_nights_equal_challengers_are_seldom_promoted_or_refused_and_those_a_point_worse_always_refused() -> (
    None
):
    equal, worse, better = (simulate_nights(lead, "better") for lead in (0.0, -1.0, 1.0))
    assert equal[PROMOTED] <= 17  # 5 % of 200 are expected; more than 17 have a probability of 1 %
    assert equal[REFUSED] <= 10
    assert worse[REFUSED] >= 190
    assert worse[PROMOTED] == 0
    assert better[PROMOTED] >= 190


@pytest.mark.slow
def test_over_200_nights_the_rule_not_worse_accepts_most_equal_challengers_and_none_a_point_worse() -> None:
    equal, worse = (simulate_nights(lead, "not_worse") for lead in (0.0, -1.0))
    assert equal[PROMOTED] >= 100
    assert equal[REFUSED] <= 10
    assert worse[REFUSED] >= 190
    assert worse[PROMOTED] == 0


def answer(labels: np.ndarray, seed: int, excess: float) -> np.ndarray:
    """Answers that are right as often as their probability less ``excess`` says."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.4, 0.85, len(labels))
    wrong = rng.uniform(size=len(labels)) > share
    made = np.zeros(len(labels), ANSWER)
    made["label"], made["probability"] = np.where(wrong, labels + 1, labels), share + excess
    return made


LABELS = np.arange(2000, dtype=np.int32) % 10


def test_a_challenger_that_is_surer_than_it_is_right_is_refused_by_its_calibration() -> None:
    calibrated, too_sure = answer(LABELS, 1, 0.0), answer(LABELS, 2, 0.12)
    fault = gate.find_calibration_fault(too_sure, calibrated, LABELS, Nightly())
    assert fault is not None
    errors = [float(part.split()[0]) for part in (fault.partition("error of ")[2], fault.partition("champion's ")[2])]
    assert errors[0] == pytest.approx(12, abs=2)
    assert errors[1] < 4
    assert fault.endswith("points, 5 are allowed (nightly.calibration_margin)")
    assert gate.find_calibration_fault(too_sure, calibrated, LABELS, Nightly(calibration_margin=15)) is None
    assert gate.find_calibration_fault(calibrated, too_sure, LABELS, Nightly()) is None

    better = [np.arange(2000) < n for n in (1900, 1500)]
    verdict = gate.compare_answers(*better, LABELS, list("abcdefghij"), Nightly(class_margin=100), 3, fault)
    assert verdict.outcome == REFUSED
    assert verdict.reason.endswith(f": not promoted, {fault}")


@pytest.mark.parametrize("n", with_slow_rest([60, 2000]))
def test_networks_of_equal_calibration_are_not_refused_by_it(n: int) -> None:
    labels = LABELS[:n]
    limits = Nightly(calibration_margin=0 if n > 1000 else 5)
    faults = [
        gate.find_calibration_fault(
            answer(labels, 2 * night, 0.02), answer(labels, 2 * night + 1, 0.02), labels, limits
        )
        for night in range(40)
    ]
    assert sum(fault is not None for fault in faults) <= 4


def test_what_is_assumed_about_the_classes_of_an_imported_champion_is_in_the_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = (Version("public", number, "", (), {}) for number in (2, 1))
    assumed = "class names unknown: assumed in the order of made"
    evaluations = {
        "public/2": EvalResult("a", "public/2", "made", 90.0, 99.0, 120),
        "public/1": EvalResult("b", "public/1", "made", 80.0, 99.0, 120, assumed=assumed),
    }
    correct = {2: answers(120, 110, lost=2), 1: answers(120, 100)}
    labels = SimpleNamespace(rows={"label": (np.arange(120) % 10).astype(np.int32)})
    monkeypatch.setattr(promote, "class_mismatch", lambda *_: None)
    monkeypatch.setattr(promote, "_read_correct", lambda version, *_: correct[version.version])
    monkeypatch.setattr(promote, "_read_answers", lambda *_: None)
    monkeypatch.setattr(manifest, "load_verified", lambda *_: SimpleNamespace(classes=list("abcdefghij")))
    monkeypatch.setattr(manifest, "Samples", lambda *_: labels)
    monkeypatch.setattr(promote.trained_on, "find_seen", lambda *_: np.zeros(120, np.bool_))
    shards = ShardResult("made", "file:///manifest.json", "0" * 64, 10, 20, 2, 120, 3, reused=True)
    verdict = promote._compare(ours, theirs, shards, Nightly(), evaluations)
    assert isinstance(verdict, Verdict)
    assert verdict.outcome == PROMOTED
    assert verdict.reason.endswith(f": promoted; public/1: {assumed}")
