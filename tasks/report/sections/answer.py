"""The answer at the top of the page: each claim of the paper, what was measured about it, and whether the two agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.text import count
from models import paper
from models.experiments import architecture_search
from models.experiments.equal_cost import EQUAL, describe_comparison
from models.experiments.paired import SIGNIFICANT
from models.results import (
    ArchitectureResult,
    GalleryResult,
    LatencyResult,
    ScalingComparison,
    ScalingResult,
    SearchResult,
    Summary,
    TransferPart,
    TransferRow,
)
from models.statistics import TWO_SIDED_95, standard_error, two_sided_limit
from tasks.report.sections.family import FamilyRow, short_name, trained_on, variant_rows
from tasks.report.sections.search import coefficients

AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "undecided"
NOT_COMPARABLE, NOT_RUN = "not comparable", "not run"
VERDICTS = (AGREES, DIFFERS, UNDECIDED, NOT_COMPARABLE, NOT_RUN)
SIZE_TOLERANCE = 0.05  # of a counted size from the printed one; the errata of Table 2 differ by up to 4.5 %
SPEEDUP_TOLERANCE = 0.2  # by which a measured speedup may stay below that of another machine
ONE_EACH = "one training of each, so the error is of the images and not of the seeds"
PRINTED = (paper.ALPHA, paper.BETA, paper.GAMMA)


Judgement = tuple[str, str] | None  # verdict and evidence; None: nothing was measured


@dataclass(frozen=True)
class Claim:
    """A claim of the paper with its evidence.

    Attributes:
        section: Anchor of the section that holds the numbers.
        text: What the paper says.
        evidence: What was measured, with numbers; empty if nothing was.
        verdict: One of ``VERDICTS``.
    """

    section: str
    text: str
    evidence: str
    verdict: str


@dataclass(frozen=True)
class Answer:
    """What was reproduced of the paper."""

    claims: tuple[Claim, ...]

    @property
    def headline(self) -> str:
        """A sentence such as ``Of 9 claims of the paper 2 agree, 1 differs and 6 were not run``."""
        words = {
            AGREES: ("agrees", "agree"),
            DIFFERS: ("differs", "differ"),
            UNDECIDED: ("is undecided", "are undecided"),
            NOT_COMPARABLE: ("is not comparable", "are not comparable"),
            NOT_RUN: ("was not run", "were not run"),
        }
        verdicts = [claim.verdict for claim in self.claims]
        counted = [f"{n} {words[verdict][n > 1]}" for verdict in VERDICTS if (n := verdicts.count(verdict))]
        listed = " and ".join(filter(None, [", ".join(counted[:-1]), counted[-1]]))
        return f"Of {len(self.claims)} claims of the paper {listed}."


def answer(summary: Summary, results: Mapping[str, Any], profile: str | None) -> Answer:
    """Judges every claim by the results that exist.

    Args:
        summary: Summary of a reproduction; an empty one if there was none.
        results: Results of the parts of the report by name; an empty one where a part was not run.
        profile: Profile of the page. Accuracies are comparable with ImageNet's for the profile ``paper`` only.
    """
    rows = [row for row in variant_rows(summary) if row.ours and row.paper]
    data = ", ".join(trained_on(summary)) or "unknown"
    judged: list[tuple[str, str, Judgement]] = [
        ("table2", "B0 to B7 have the parameters and multiply-adds of Table 2", _sizes(rows)),
        ("table2", "B0 to B7 reach 77.1 to 84.3 % top-1 on ImageNet (Table 2)", _accuracies(rows, profile, data)),
        ("figures", "Accuracy grows with the size of the family", _growth(rows)),
        ("search", "α 1.2, β 1.1, γ 1.15 is the best point of the grid", _grid(summary.search)),
        ("architecture", "A search for accuracy and multiply-adds finds B0's blocks", _blocks(results["architecture"])),
        ("scaling", "Compound scaling beats any single dimension at equal cost", _compound(results["scaling"])),
        ("latency", "B1 is 5.7 times as fast as ResNet-152 on a CPU", _speed(results["latency"])),
        (
            "transfer",
            "Fine-tuned, the family reaches Table 5 on eight data sets",
            _transfer(results["transfer"], profile),
        ),
        ("maps", "B0 scaled in three dimensions gains more than in one (Table 7)", _mapped(results["maps"])),
    ]
    claims = []
    for section, text, judgement in judged:
        verdict, evidence = judgement or (NOT_RUN, "")
        claims.append(Claim(section, text, evidence, verdict))
    return Answer(tuple(claims))


def _judge(lead: float, error: float, limit: float = TWO_SIDED_95) -> str:
    """Whether a lead that the paper has is there too, from ``limit`` standard errors on: by default at 5 %."""
    if abs(lead) <= limit * error:
        return UNDECIDED
    return AGREES if lead > 0 else DIFFERS


def _sizes(rows: Sequence[FamilyRow]) -> Judgement:
    deviations = []
    for row in rows:
        if row.ours is None or row.paper is None or row.paper.flops_b is None:
            continue
        for unit, counted, printed in (
            ("parameters", row.ours.paper_params, row.paper.params_m * 1e6),
            ("multiply-adds", row.ours.paper_multiply_adds, row.paper.flops_b * 1e9),
        ):
            deviations.append((counted / printed - 1, f"{row.short}, {unit}"))
    if not deviations:
        return None
    largest, name = max(deviations, key=lambda item: abs(item[0]))
    verdict = AGREES if abs(largest) <= SIZE_TOLERANCE else DIFFERS
    missing = "" if len(rows) == len(paper.EFFICIENTNETS) else f", {len(rows)} of {len(paper.EFFICIENTNETS)} networks"
    return verdict, f"full size, counted{missing}: the largest deviation is {_signed(100 * largest, 1)} % ({name})"


def _accuracies(rows: Sequence[FamilyRow], profile: str | None, data: str) -> Judgement:
    if not rows:
        return None
    if profile != "paper":
        return NOT_COMPARABLE, f"not measured here: the profile is {profile or 'unknown'}, the data are {data}"
    off = [
        f"{row.short} {_signed(row.ours.top1 - row.paper.top1)}"
        for row in rows
        if row.ours and row.paper and _is_off(row.ours.top1 - row.paper.top1, row.error, len(rows))
    ]
    if off:
        return DIFFERS, f"{len(off)} of {len(rows)} networks, in points: {', '.join(off)}"
    within = f"{two_sided_limit(SIGNIFICANT / len(rows)):.1f} standard errors"
    return AGREES, f"{count(len(rows), 'network')} within {within}, 5 % over all of them"


def _is_off(difference: float, error: float | None, judged: int) -> bool:
    """Whether one of ``judged`` results differs, at 5 % over all of them (Bonferroni)."""
    return error is None or abs(difference) > two_sided_limit(SIGNIFICANT / judged) * error


def _growth(rows: Sequence[FamilyRow]) -> Judgement:
    if len(rows) < 2:
        return None
    small, large = rows[0], rows[-1]
    if not small.ours or not large.ours or small.error is None or large.error is None:
        return None
    lead, error = large.ours.top1 - small.ours.top1, math.hypot(small.error, large.error)
    return _judge(lead, error), f"{large.short} minus {small.short}: {_signed(lead)} ± {error:.2f} points, {ONE_EACH}"


def _grid(search: SearchResult | None) -> Judgement:
    if search is None or not search.trials:
        return None
    theirs = next((trial for trial in search.trials if coefficients(trial) == PRINTED), None)
    alpha, beta, gamma = coefficients(search.best)
    leader = f"best of {count(len(search.trials), 'trial')}: α {alpha:g}, β {beta:g}, γ {gamma:g}"
    if theirs is None:
        return NOT_RUN, f"{leader}; the paper's point is not among them"
    if coefficients(search.best) != PRINTED:
        if PRINTED in map(coefficients, search.tied):
            return UNDECIDED, f"{leader}, not distinguished from the paper's"
        return DIFFERS, f"{leader}, {search.best.minival_top1 - theirs.minival_top1:.2f} points above the paper's"
    if search.tied:
        return UNDECIDED, f"{leader}, not distinguished from {count(len(search.tied), 'other')}"
    return AGREES, leader


def _blocks(part: ArchitectureResult) -> Judgement:
    best, baseline = part.best, part.baseline
    if best is None:
        return None
    if baseline is None:
        return UNDECIDED, part.verdict
    if best.number == baseline.number:
        return AGREES, part.verdict
    # The best of several is ahead on the images that it was selected on: at 5 % over all that could have been best.
    trials = sum(trial.state == "complete" for trial in part.trials)
    if part.lead is not None:
        differs = part.lead.value > 0 and part.lead.p <= SIGNIFICANT / max(1, trials - 1)
    else:
        lead = (best.reward or 0.0) - (baseline.reward or 0.0)
        differs = lead > architecture_search.unpaired_limit(best, baseline, trials)
    return (DIFFERS if differs else UNDECIDED), part.verdict


def _compound(part: ScalingResult) -> Judgement:
    judged = [(row, _judge_comparison(row, part.comparisons)) for row in part.comparisons if row.lead is not None]
    if not judged:
        return (UNDECIDED, "; ".join(part.verdicts)) if part.verdicts else None
    verdicts = [verdict for _, verdict in judged]
    counts = ", ".join(f"{verdicts.count(one)} {one}" for one in VERDICTS if one in verdicts)
    networks = len({row.network for row, _ in judged})
    return _join(verdicts), f"{count(len(judged), 'comparison')} of {count(networks, 'network')}: {counts}"


def _join(verdicts: Sequence[str]) -> str:
    """The verdict on a claim about several comparisons: it agrees if all do."""
    return verdicts[0] if len(set(verdicts)) == 1 else DIFFERS if DIFFERS in verdicts else UNDECIDED


def _judge_comparison(row: ScalingComparison, comparisons: Sequence[ScalingComparison]) -> str:
    """By the p value, at 5 % over all comparisons of the network, as in the verdicts of the study."""
    of_network = sum(other.network == row.network for other in comparisons)
    if row.lead is None or row.lead.p > SIGNIFICANT / of_network:
        return UNDECIDED
    return AGREES if row.lead.value > 0 else DIFFERS


def _speed(part: LatencyResult) -> Judgement:
    pairs = [pair for pair in part.speedups if pair.paper]
    if not pairs:
        return None
    shown = ", ".join(
        f"{short_name(pair.ours)} {pair.measured:.1f} times {paper.PRINTED_NAMES.get(pair.rival, pair.rival)}"
        f" (paper {pair.paper:g})"
        for pair in pairs
    )
    slower = any(pair.measured < (1 - SPEEDUP_TOLERANCE) * (pair.paper or 0.0) for pair in pairs)
    return (DIFFERS if slower else AGREES), f"{shown}; GPipe is not public"


def _transfer(part: TransferPart, profile: str | None) -> Judgement:
    quoted = [row for row in part.rows if row.paper]
    if not quoted:
        return None
    if profile != "paper":
        return NOT_COMPARABLE, f"{count(len(quoted), 'result')} of networks that were not trained on ImageNet"
    off = [row for row in quoted if _is_off(row.value - _printed(row), row.standard_error, len(quoted))]
    shown = ", ".join(f"{row.data} {short_name(row.network)} {_signed(row.value - _printed(row))}" for row in off)
    listed = f"; in points: {shown}" if off else ""
    return (DIFFERS if off else AGREES), f"{len(quoted) - len(off)} of {count(len(quoted), 'result')} agree{listed}"


def _printed(row: TransferRow) -> float:
    return row.paper.value if row.paper else 0.0


def _mapped(part: GalleryResult) -> Judgement:
    compound = next((model for model in part.models if model.dimension == "compound"), None)
    singles = [model for model in part.models if model.dimension in ("depth", "width", "resolution")]
    if compound is None or not singles:
        return None
    if judged := [row for row in part.comparisons if row.lead is not None]:
        return _join([_judge_at_cost(row, part.comparisons) for row in judged]), _describe_mapped(part.comparisons)
    best = max(singles, key=lambda model: model.top1)
    errors = (standard_error(compound.top1, compound.n_val), standard_error(best.top1, best.n_val))
    if errors[0] is None or errors[1] is None:
        return None
    lead, error = compound.top1 - best.top1, math.hypot(*(one or 0.0 for one in errors))
    evidence = f"compound minus {best.dimension}, the best single one: {_signed(lead)} ± {error:.2f} points, {ONE_EACH}"
    limit = two_sided_limit(SIGNIFICANT / len(singles))  # the best was selected on the same images
    return _judge(lead, error, limit), evidence


def _judge_at_cost(row: ScalingComparison, comparisons: Sequence[ScalingComparison]) -> str:
    """As ``_judge_comparison``; that the costlier one of two networks leads decides nothing."""
    verdict = _judge_comparison(row, comparisons)
    costlier = row.cost_ratio < 1 - EQUAL if verdict == AGREES else row.cost_ratio > 1 + EQUAL
    return UNDECIDED if costlier else verdict


def _describe_mapped(comparisons: Sequence[ScalingComparison]) -> str:
    sentences = [describe_comparison(row, len(comparisons)) for row in comparisons if row.lead is not None]
    return f"{'; '.join(sentences)}; {ONE_EACH}"


def _signed(value: float, places: int = 2) -> str:
    return f"{value:+.{places}f}".replace("-", "\N{MINUS SIGN}")
