"""The answer at the top of the report: each verdict follows from the numbers below it."""

from __future__ import annotations

from typing import Any

import made_parts
import pytest
from made_parts import render_stored, trial
from page_reader import Page

from models import paper
from models.networks.build import compute_cost
from models.results import Summary
from models.results.nights import NightsResult
from tasks.report.page import render, render_night
from tasks.report.results import PARTS, read_stored
from tasks.report.sections import answer

Json = dict[str, Any]


def _claims(summary: Json, profile: str = "laptop", **parts: Json) -> dict[str, answer.Claim]:
    """Claims by section; of Table 2, that about accuracy."""
    read = read_stored(Summary, summary, "summary.json").result
    results = {part.name: read_stored(part.result, parts.get(part.name, {}), part.name).result for part in PARTS}
    return {claim.section: claim for claim in answer.answer(read, results, profile).claims}


def _family(**top1: float) -> Json:
    """Networks of the true sizes with these accuracies on 1,000 images."""
    rows = []
    for name, accuracy in top1.items():
        row = made_parts.variant(int(name[1])) | {"top1": accuracy, "n_val": 1000}
        params, multiply_adds, _ = compute_cost(_model(row["name"]), 1000)
        rows.append(row | {"paper_params": params, "paper_multiply_adds": multiply_adds})
    return {"variants": rows}


def _model(name: str) -> Any:
    from conf import schema

    return schema.Model(name=name)


def test_nothing_run_is_nine_claims_not_run() -> None:
    claims = answer.answer(Summary(), {part.name: part.result() for part in PARTS}, None)
    assert claims.headline == "Of 9 claims of the paper 9 were not run."
    assert {claim.evidence for claim in claims.claims} == {""}


def test_the_headline_counts_the_verdicts() -> None:
    verdicts = ("agrees", "differs", "undecided", "undecided", "not comparable")
    made = answer.Answer(tuple(answer.Claim("table2", "", "", verdict) for verdict in verdicts))
    assert made.headline == "Of 5 claims of the paper 1 agrees, 1 differs, 2 are undecided and 1 is not comparable."


def test_the_counted_sizes_agree_with_table_2_and_the_largest_deviation_is_named() -> None:
    summary = _family(**{f"b{phi}": 95.0 for phi in range(8)})
    read = read_stored(Summary, summary, "summary.json").result
    sizes = answer.answer(read, {part.name: part.result() for part in PARTS}, "laptop").claims[0]
    assert (sizes.verdict, sizes.evidence) == (
        "agrees",
        "full size, counted: the largest deviation is +4.6 % (B4, multiply-adds)",
    )
    summary["variants"][0]["paper_params"] *= 2
    read = read_stored(Summary, summary, "summary.json").result
    assert answer.answer(read, {part.name: part.result() for part in PARTS}, "laptop").claims[0].verdict == "differs"


def test_accuracies_are_compared_with_the_printed_ones_in_the_paper_s_profile_only() -> None:
    exact = _family(**{f"b{phi}": paper.EFFICIENTNETS[phi].top1 for phi in range(8)})
    assert _claims(exact, "laptop")["table2"].verdict == "not comparable"
    assert _claims(exact, "paper")["table2"].verdict == "agrees"
    exact["variants"][3]["top1"] -= 5.0
    worse = _claims(exact, "paper")["table2"]
    assert (worse.verdict, worse.evidence) == ("differs", "1 of 8 networks, in points: B3 \N{MINUS SIGN}5.00")


@pytest.mark.parametrize(("b0", "verdict"), [(73.4, "agrees"), (73.2, "differs")])
def test_eight_accuracies_are_judged_at_5_percent_over_all_of_them(b0: float, verdict: str) -> None:
    """77.1 is printed: of 1,000 images, 73.4 is 2.65 standard errors below and 73.2 is 2.78; the limit is 2.73."""
    family = _family(**{f"b{phi}": paper.EFFICIENTNETS[phi].top1 for phi in range(8)})
    family["variants"][0]["top1"] = b0
    assert _claims(family, "paper")["table2"].verdict == verdict


@pytest.mark.parametrize(("b7", "verdict"), [(97.0, "agrees"), (95.5, "undecided"), (92.0, "differs")])
def test_growth_is_judged_by_the_largest_minus_the_smallest(b7: float, verdict: str) -> None:
    judged = _claims(_family(b0=95.0, b7=b7))["figures"]
    assert judged.verdict == verdict
    assert judged.evidence.endswith("one training of each, so the error is of the images and not of the seeds")


def test_the_grid_search_agrees_only_if_the_paper_s_point_leads_alone() -> None:
    theirs, other, third = trial(1.2, 1.1, 1.15, 96.0), trial(1.0, 1.2, 1.15, 94.0), trial(1.4, 1.2, 1.0, 93.0)

    def judged(best: Json, tied: list[Json], trials: list[Json]) -> str:
        return _claims({"search": {"trials": trials, "best": best, "tied": tied}})["search"].verdict

    assert judged(theirs, [], [theirs, other]) == "agrees"
    assert judged(theirs, [other], [theirs, other]) == "undecided"
    assert judged(other, [theirs], [theirs, other]) == "undecided"
    assert judged(other, [third], [theirs, other, third]) == "differs"
    assert judged(other, [], [other, third]) == "not run"


def test_compound_scaling_is_judged_by_the_paired_tests_of_the_study() -> None:
    def compared(p: float, lead: float) -> Json:
        test = {"value": lead, "lower": lead - 1, "upper": lead + 1, "p": p, "n": 1000, "seeds": 3}
        row = {"network": "resnet50", "dimension": "width", "compound_top1": 95.0, "single_top1": 94.0}
        return row | {"cost_ratio": 1.0, "lead": test}

    def judged(*rows: Json) -> answer.Claim:
        return _claims({}, scaling=made_parts.scaling() | {"comparisons": list(rows), "verdicts": ["x"]})["scaling"]

    assert judged(compared(0.001, 1.0)).verdict == "agrees"
    assert judged(compared(0.03, 1.0)).verdict == "agrees"
    assert judged(compared(0.03, 1.0), compared(0.03, 1.0)).verdict == "undecided", "5 % over both comparisons"
    mixed = judged(compared(0.001, 1.0), compared(0.001, -1.0))
    assert (mixed.verdict, mixed.evidence) == ("differs", "2 comparisons of 1 network: 1 agrees, 1 differs")


@pytest.mark.parametrize(("measured", "verdict"), [(5.0, "agrees"), (3.0, "differs")])
def test_a_speedup_may_be_a_fifth_below_the_printed_one(measured: float, verdict: str) -> None:
    pair = {"ours": "efficientnet_b1", "rival": "resnet152", "measured": measured, "paper": 5.7}
    claim = _claims({}, latency=made_parts.latency() | {"speedups": [pair]})["latency"]
    assert claim.verdict == verdict
    assert f"B1 {measured:.1f} times ResNet-152 (paper 5.7)" in claim.evidence


def test_transfer_of_a_stand_in_is_not_comparable_and_of_the_paper_s_networks_it_is_compared() -> None:
    part = made_parts.transfer()
    rival = {"name": "NASNet-A", "value": 98.0, "params": 85_000_000}
    for row in part["rows"][:2]:
        quoted = {
            "value": row["value"],
            "params": 4_000_000,
            "multiply_adds": None,
            "rival": rival,
            "source": "Table 5",
        }
        row["paper"] = quoted
    assert _claims({}, transfer=part)["transfer"].verdict == "not comparable"
    assert _claims({}, "paper", transfer=part)["transfer"].verdict == "agrees"
    part["rows"][0]["paper"]["value"] += 9.0
    worse = _claims({}, "paper", transfer=part)["transfer"]
    assert (worse.verdict, worse.evidence) == (
        "differs",
        f"1 of 2 results agree; in points: {part['rows'][0]['data']} B0 \N{MINUS SIGN}9.00",
    )


@pytest.mark.parametrize(("compound", "verdict"), [(99.0, "agrees"), (95.2, "undecided"), (90.0, "differs")])
def test_the_mapped_networks_are_judged_by_compound_minus_the_best_single_dimension(
    compound: float, verdict: str
) -> None:
    part = made_parts.maps()
    for model in part["models"]:
        model |= {"n_val": 1000, "top1": compound if model["dimension"] == "compound" else 95.0}
    assert _claims({}, maps=part)["maps"].verdict == verdict


def _mapped(*leads: tuple[float, float, float]) -> answer.Claim:
    """The claim about Table 7 for these leads of the compound network: value, p and cost of the single dimension."""
    rows = [
        {
            "network": "efficientnet_b0",
            "dimension": dimension,
            "compound_top1": 90.0,
            "single_top1": 90.0 - value,
            "cost_ratio": cost,
            "lead": {"value": value, "lower": value - 1, "upper": value + 1, "p": p, "n": 1000, "seeds": 1},
        }
        for dimension, (value, p, cost) in zip(("depth", "width", "resolution"), leads, strict=False)
    ]
    return _claims({}, maps=made_parts.maps() | {"comparisons": rows})["maps"]


def test_the_mapped_networks_are_judged_on_the_same_images_over_all_comparisons_and_not_by_a_higher_cost() -> None:
    assert _mapped((2.0, 0.001, 1.0), (2.0, 0.001, 1.0)).verdict == "agrees"
    one = _mapped((2.0, 0.03, 1.0))
    assert one.verdict == "agrees"
    assert one.evidence.startswith("compound beats depth (+2.00 points, +1.00 to +3.00, p 0.03); ")
    assert _mapped((2.0, 0.03, 1.0), (2.0, 0.03, 1.0)).verdict == "undecided", "5 % over both comparisons"
    assert _mapped((2.0, 0.001, 1.0), (-2.0, 0.001, 1.0)).verdict == "differs"
    dearer = _mapped((2.0, 0.001, 0.8))
    assert dearer.verdict == "undecided", "the compound network costs more"
    assert "p 0.001), which counts 0.80 times as much; " in dearer.evidence
    assert _mapped((-2.0, 0.001, 1.2)).verdict == "undecided", "the single dimension costs more"


def _blocks(rewards: list[float], p: float | None) -> str:
    """The verdict on an architecture search; the first reward is that of B0's blocks, 1.0 its standard error."""
    size: Json = {"blocks": [], "params": 1, "multiply_adds": 2, "n": 400, "standard_error": 1.0, "state": "complete"}
    trials = [size | {"number": i, "accuracy": reward, "reward": reward} for i, reward in enumerate(rewards)]
    best = max(trials, key=lambda one: one["reward"])
    value = best["reward"] - rewards[0]
    lead = {"value": value, "lower": 0.1, "upper": 2 * value, "p": p, "n": 400, "seeds": 1} if p is not None else None
    made = {"trials": trials, "best": best, "baseline": trials[0], "lead": lead, "verdict": "trial 1 is best"}
    return _claims({}, architecture=made)["architecture"].verdict


def test_the_best_of_several_architectures_differs_only_at_5_percent_over_all_of_them() -> None:
    assert _blocks([90.0, 80.0], None) == "agrees", "B0's blocks are best"
    assert _blocks([80.0, 83.0], 0.03) == "differs"
    assert _blocks([80.0, 83.0, 81.0, 79.0], 0.03) == "undecided"
    assert _blocks([80.0, 83.0, 81.0, 79.0], 0.01) == "differs"
    assert _blocks([80.0, 83.0, 81.0, 79.0], None) == "undecided", "3 points of 1.41, on images of their own"
    assert _blocks([80.0, 84.0, 81.0, 79.0], None) == "differs"


def test_the_answer_stands_before_the_contents_and_links_to_the_numbers() -> None:
    html = render_stored(_family(b0=95.0, b7=97.0), {"latency": made_parts.latency()})
    assert html.index("Of 9 claims of the paper") < html.index("<nav")
    page = Page(html)
    anchors = {attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs}
    claims = [attrs for _, attrs in page.tags if "data-verdict" in attrs]
    assert len(claims) == 9
    links = [str(attrs["href"])[1:] for tag, attrs in page.tags if tag == "a" and str(attrs["href"]).startswith("#")]
    assert set(links) <= anchors


def test_the_page_of_a_night_opens_with_its_verdict_and_holds_champion_and_challenger() -> None:
    stored = read_stored(NightsResult, made_parts.nights(), "nights.json")
    html = render_night(stored)
    text = Page(html).text()
    assert html.index("Not promoted, the lower bound is not above -0.3.") < html.index('class="facts"')
    for words in (
        "version 1 , 91.25 ± 1.41 % of 400",
        "version 2 , 91.50 ± 1.39 % of 400",
        "0.25 points , lower bound",
    ):
        assert words in text
    assert "efficientnet-b0-digits on digits, profile laptop" in text
    page = Page(html)
    assert len(page.read_rows("data-night")) == 2
    assert len(page.read_rows("data-move")) == 1


def test_the_page_of_a_night_that_was_refused_opens_with_the_reason_and_lists_it_before_the_versions() -> None:
    reason = "the data digits are refused, nothing is trained: PSI 0.31, 0.2 is allowed (nightly.max_psi)"
    failed = {"date": "2026-11-29", "outcome": "refused", "verdict": reason}
    made = made_parts.nights()
    made |= {"nights": [failed, *made["nights"]], "verdict": reason}
    html = render_night(read_stored(NightsResult, made, "nights.json"))
    assert html.index("The data digits are refused, nothing is trained: PSI 0.31") < html.index('class="facts"')
    rows = Page(html).read_rows("data-date")
    assert len(rows) == 3
    assert html.index('data-date="2026-11-29"') < html.index('data-date="2026-11-28"') < html.index("data-night")


def test_the_page_of_a_line_links_to_those_of_the_others_with_what_came_of_their_last_nights() -> None:
    pets = made_parts.nights() | {"line": "b0-pets", "verdict": "skipped: no new data"}
    stored = {part["line"]: read_stored(NightsResult, part, "") for part in (made_parts.nights(), pets)}
    for html in (
        render_night(stored["efficientnet-b0-digits"], stored),
        render(None, {"nights": stored["efficientnet-b0-digits"]}, stored),
    ):
        page = Page(html)
        assert [attrs["href"] for tag, attrs in page.tags if tag == "a" and "night-" in str(attrs["href"])] == [
            "night-b0-pets.html"
        ]
        assert "skipped: no new data" in page.text()
    assert "Other lines" not in render_night(stored["b0-pets"])


def test_the_page_of_a_night_without_any_record_says_so() -> None:
    text = Page(render_night(read_stored(NightsResult, {}, "nights.json"))).text()
    assert "The verdict of the night was not recorded." in text
