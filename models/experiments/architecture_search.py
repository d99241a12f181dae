"""The search for the baseline's architecture (section 4): its constraints, the choice among its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from conf import schema
from infra.errors import JobError
from infra.trials import TrialRecord
from models.experiments import architecture_space as space
from models.experiments.paired import SIGNIFICANT, describe_lead
from models.networks.efficientnet import block_strings
from models.networks.efficientnet.variants import B0_STAGES
from models.results import ArchitectureResult, ArchitectureTrial, Objective
from models.statistics import PairedTest, compare_paired, standard_error, two_sided_limit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

B0_BLOCKS = block_strings.encode(B0_STAGES)
B0_NAME = "B0's own blocks"


def broken(options: schema.Architecture, params: int, multiply_adds: int) -> dict[str, float]:
    """Relative excess of a network over each limit that it breaks."""
    limits = {"multiply_adds": (multiply_adds, options.max_cost * options.target_multiply_adds)}
    if options.max_params is not None:
        limits["params"] = (params, float(options.max_params))
    return {name: value / limit - 1 for name, (value, limit) in limits.items() if value > limit}


def why(options: schema.Architecture, params: int, multiply_adds: int, excess: dict[str, float]) -> str:
    """The broken limits as text, with the numbers."""
    texts = {
        "multiply_adds": f"{multiply_adds:,} multiply-adds are more than {options.max_cost:g} times the target "
        f"{options.target_multiply_adds:,.0f}",
        "params": f"{params:,} parameters are more than {options.max_params or 0:,}",
    }
    return "; ".join(texts[name] for name in excess)


def summarize(options: schema.Architecture, records: Sequence[TrialRecord], runs_url: str = "") -> ArchitectureResult:
    """All trials with their reward and Pareto front, the best by reward, and the trial of B0's blocks.

    Raises:
        JobError: No trial finished; the message holds the reason of the first failure.
    """
    listed = [record for record in records if record.state in ("complete", "refused", "failed")]
    trials = [_trial(options, record, runs_url) for record in listed]
    failures = [f"trial {trial.number}: {trial.reason}" for trial in trials if trial.state == "failed"]
    done = [trial for trial in trials if trial.state == "complete"]
    if not done:
        raise JobError(
            f"no trial of the architecture search finished; {failures[0] if failures else 'none was started'}"
        )
    front = space.pareto([(trial.accuracy or 0.0, trial.multiply_adds) for trial in done])
    numbers = {trial.number for trial, is_on_front in zip(done, front, strict=True) if is_on_front}
    trials = [replace(trial, pareto=trial.number in numbers) for trial in trials]
    done = [trial for trial in trials if trial.state == "complete"]
    best = max(done, key=lambda trial: trial.reward or 0.0)
    baseline = next((trial for trial in done if list(trial.blocks) == B0_BLOCKS), None)
    return ArchitectureResult(
        objective=Objective(exponent=options.exponent, target_multiply_adds=options.target_multiply_adds),
        trials=tuple(trials),
        best=best,
        baseline=baseline,
        verdict=verdict(best, baseline, len(done)),
        sampler=options.sampler,
        seed=options.seed,
        points_of_the_space=space.size(),
        missing=(*failures, *(() if baseline else (f"{B0_NAME} did not train",))),
    )


def with_lead(
    options: schema.Architecture,
    result: ArchitectureResult,
    ours: NDArray[np.bool_] | None,
    theirs: NDArray[np.bool_] | None,
) -> ArchitectureResult:
    """Adds the comparison of the best trial with B0's blocks on the same images of minival, in reward.

    Args:
        options: The objective.
        result: Summary of the search.
        ours: Which images the best trial classified correctly, ``[images]``; None where that is not stored.
        theirs: The same of B0's blocks.
    """
    best, baseline = result.best, result.baseline
    if best is None or baseline is None or best.number == baseline.number:
        return result
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return result
    per_percent = [
        space.reward(1.0, trial.multiply_adds, options.target_multiply_adds, options.exponent)
        for trial in (best, baseline)
    ]
    lead = compare_paired(ours[None], theirs[None], (per_percent[0], per_percent[1]))
    trials = sum(trial.state == "complete" for trial in result.trials)
    return replace(result, lead=lead, verdict=verdict(best, baseline, trials, lead))


def _trial(options: schema.Architecture, record: TrialRecord, runs_url: str) -> ArchitectureTrial:
    facts, accuracy = record.facts, record.facts.get("accuracy")
    cost = facts["multiply_adds"]
    scored = None if accuracy is None else space.reward(accuracy, cost, options.target_multiply_adds, options.exponent)
    return ArchitectureTrial(
        number=record.number,
        blocks=tuple(facts["blocks"]),
        params=facts["params"],
        multiply_adds=cost,
        accuracy=accuracy,
        n=facts.get("n"),
        standard_error=standard_error(accuracy, facts.get("n")),
        reward=scored,
        state=record.state,
        reason=facts.get("reason"),
        mlflow_url=f"{runs_url}{facts['mlflow_run']}" if facts.get("mlflow_run") else None,
    )


def verdict(
    best: ArchitectureTrial, baseline: ArchitectureTrial | None, trials: int, lead: PairedTest | None = None
) -> str:
    """The best trial by reward compared with B0's blocks, as text.

    The best was selected on the images of the comparison, so it is at 5 % over all trials that could have been best.

    Args:
        best: The best trial.
        baseline: The trial of B0's blocks.
        trials: Number of trained trials.
        lead: Comparison of the two on the same images; None where their answers are not stored.
    """
    reward, accuracy, error = best.reward or 0.0, best.accuracy or 0.0, best.standard_error or 0.0
    outcome = (
        f"trial {best.number} is best of {trials} "
        f"(reward {reward:.2f}, {accuracy:.2f} ± {error:.2f} % of {best.n} minival images)"
    )
    if baseline is None:
        return f"{outcome}; {B0_NAME} did not train"
    if best.number == baseline.number:
        return f"{outcome}: {B0_NAME}"
    if lead is not None:
        return f"{outcome}; {describe_lead('it', B0_NAME, lead, trials - 1)}"
    margin, limit = reward - (baseline.reward or 0.0), unpaired_limit(best, baseline, trials)
    apart = "more" if margin > limit else "not more"
    return f"{outcome}; that is {margin:.2f} above {B0_NAME}, {apart} than chance among {trials} trials ({limit:.2f})"


def unpaired_limit(best: ArchitectureTrial, baseline: ArchitectureTrial, trials: int) -> float:
    """The lead in reward that the best of equal trials exceeds with 5 %, where the same images were not compared."""
    errors = [
        (trial.standard_error or 0.0) * (trial.reward or 0.0) / trial.accuracy if trial.accuracy else 0.0
        for trial in (best, baseline)
    ]
    return two_sided_limit(SIGNIFICANT / max(1, trials - 1)) * math.hypot(*errors)
