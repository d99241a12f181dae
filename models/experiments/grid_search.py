"""The grid search of section 3.3: points within the budget, the choice among the trials, the family that follows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from conf import schema
from infra.errors import ConfigError, first_line
from models.experiments.paired import SIGNIFICANT, format_interval, stack_answers
from models.experiments.scaling_study import scaled
from models.networks.efficientnet.compound_scaling import Coefficients, grid
from models.results import FamilyMember, HandSetSize, NetworkSize, RefusedPoint, SearchResult, TrainResult, Trial
from models.statistics import PairedTest, compare_paired, standard_error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PHIS = range(1, 8)  # B1..B7


@dataclass(frozen=True)
class ScreenedGrid:
    """The grid after counting: the points to train, and those refused before any training."""

    points: tuple[Coefficients, ...]
    refused: tuple[RefusedPoint, ...]
    multiply_adds: int  # of the baseline, all multipliers 1
    classes: int
    mlflow_run: str = ""


def grid_points(options: schema.Search) -> list[Coefficients]:
    """The grid points with alpha * beta^2 * gamma^2 within the tolerance, before rounding.

    Raises:
        ConfigError: No point is within the tolerance.
    """
    points = grid(options.alpha, options.beta, options.gamma, options.budget, options.tolerance)
    if not points:
        raise ConfigError(
            f"no point of the grid has alpha*beta^2*gamma^2 within {options.tolerance} of {options.budget}; "
            "widen search.tolerance or the lists search.alpha, search.beta, search.gamma"
        )
    return points


def screen(options: schema.Search, model: schema.Model, points: Sequence[Coefficients], classes: int) -> ScreenedGrid:
    """Refuses points whose rounded network is out of budget or equal to that of another point.

    Raises:
        ConfigError: No point remains; the message holds the distance of the nearest.
    """
    from models.networks.build import compute_cost, resolve_architecture

    _, baseline, _ = compute_cost(model, classes)
    kept: dict[Any, Coefficients] = {}
    refused: list[RefusedPoint] = []
    misses: list[float] = []
    for point in points:
        network = scaled(model, point.alpha, point.beta, point.gamma)
        _, multiply_adds, _ = compute_cost(network, classes)
        cost = multiply_adds / baseline
        equal_point = kept.get(resolve_architecture(network))
        misses.append(abs(cost - options.budget))
        if misses[-1] > options.counted_tolerance:
            reason = (
                f"counts {cost:.2f} times the baseline's multiply-adds after rounding, "
                f"not {options.budget:g} ± {options.counted_tolerance:g}"
            )
        elif equal_point is not None:
            reason = f"rounds to the same network as {format_point(equal_point)}"
        else:
            kept[resolve_architecture(network)] = point
            continue
        refused.append(RefusedPoint(**dataclasses.asdict(point), multiply_adds=multiply_adds, reason=reason))
    if not kept:
        raise ConfigError(
            f"all {len(points)} points of the grid near the budget {options.budget:g} count too far from it after "
            f"rounding, the nearest by {min(misses):.3f}; raise search.counted_tolerance, which is "
            f"{options.counted_tolerance:g}, or widen the lists"
        )
    return ScreenedGrid(tuple(kept.values()), tuple(refused), baseline, classes)


def trial_title(point: Coefficients, seed: int = 0) -> str:
    """``trial 1.2 1.1 1.15``, and ``trial 1.2 1.1 1.15 seed 2`` for the third seed."""
    return f"trial {point.alpha} {point.beta} {point.gamma}" + (f" seed {seed}" if seed else "")


def format_point(point: Coefficients | Trial) -> str:
    """``alpha 1.2, beta 1.1, gamma 1.15``."""
    return f"alpha {point.alpha:g}, beta {point.beta:g}, gamma {point.gamma:g}"


def select_trials(
    options: schema.Search,
    screened: ScreenedGrid,
    results: Sequence[Sequence[TrainResult | BaseException]],
    answers: Mapping[str, NDArray[np.bool_]],
) -> SearchResult:
    """Chooses among the finished trials; lists the others under ``failed`` with their reason.

    Args:
        options: Budget, seeds and exponent.
        screened: The points that were trained.
        results: For each point, the result of each seed. A point with a failed seed is not compared.
        answers: By job, which minival images it classified correctly, ``[images]``.

    Raises:
        EffnetError: No trial finished; the error of the first trial.
    """
    done, points, failed = [], [], []
    for point, seeds in zip(screened.points, results, strict=True):
        errors = [result for result in seeds if isinstance(result, BaseException)]
        if errors:
            failed.append((point, errors[0]))
        else:
            points.append(point)
            done.append([result for result in seeds if isinstance(result, TrainResult)])
    if not done:
        raise failed[0][1]
    chosen = choose(options, replace(screened, points=tuple(points)), done, answers)
    lines = tuple(f"{trial_title(p)}: {first_line(error)}" for p, error in failed)
    return replace(chosen, failed=lines)


def choose(
    options: schema.Search,
    screened: ScreenedGrid,
    results: Sequence[Sequence[TrainResult]],
    answers: Mapping[str, NDArray[np.bool_]],
) -> SearchResult:
    """Trials in grid order, the best by mean minival accuracy, and those that are not distinguished from it.

    Equal accuracies: the cheapest is best. Points cost more or less than the budget after rounding, so the best at
    equal cost is stated beside it.
    """
    trials = [_trial(options, screened, point, seeds) for point, seeds in zip(screened.points, results, strict=True)]
    correct = [stack_answers([result.job for result in seeds], answers) for seeds in results]
    first = max(range(len(trials)), key=lambda i: (trials[i].minival_top1, -trials[i].multiply_adds))
    for other, theirs in enumerate(correct):
        ours = correct[first]
        if other != first and ours is not None and theirs is not None:
            trials[other] = replace(trials[other], behind=compare_paired(ours, theirs))
    best, others = trials[first], [trial for i, trial in enumerate(trials) if i != first]
    pairs = max(1, math.comb(len(trials), 2))
    tied = tuple(trial for trial in others if _is_tied(best, trial, pairs))
    cheap = sorted(range(len(trials)), key=lambda i: (-(trials[i].equal_cost_top1 or 0.0), trials[i].multiply_adds))
    return SearchResult(
        trials=tuple(trials),
        best=best,
        tied=tied,
        verdict=verdict(best, tied, len(trials)),
        refused=screened.refused,
        budget=options.budget,
        tolerance=options.tolerance,
        counted_tolerance=options.counted_tolerance,
        found=sum(result.reused for seeds in results for result in seeds),
        seeds=options.seeds,
        exponent=options.exponent,
        best_at_equal_cost=trials[cheap[0]],
        equal_cost_verdict=_compare_at_equal_cost(options, [(trials[i], correct[i]) for i in cheap[:2]], pairs),
    )


def _trial(options: schema.Search, screened: ScreenedGrid, point: Coefficients, seeds: Sequence[TrainResult]) -> Trial:
    """A point with the mean accuracy of its seeds; the standard error is the binomial one, sqrt(p (1 - p) / n)."""
    result, scores = seeds[0], tuple(seed.minival_top1 for seed in seeds)
    top1, cost = sum(scores) / len(scores), result.multiply_adds / screened.multiply_adds
    return Trial(
        alpha=point.alpha,
        beta=point.beta,
        gamma=point.gamma,
        product=point.cost,
        params=result.params,
        multiply_adds=result.multiply_adds,
        resolution=result.resolution,
        minival_top1=top1,
        n_minival=result.n_minival,
        standard_error=standard_error(top1, result.n_minival) or 0.0,
        counted_cost=cost,
        mlflow_run=result.mlflow_run,
        seed_top1=scores,
        equal_cost_top1=top1 * _at_budget(options, cost),
    )


def _at_budget(options: schema.Search, cost: float) -> float:
    """The factor from an accuracy at ``cost`` to one at the budget."""
    return float((cost / options.budget) ** options.exponent)


def _is_tied(best: Trial, other: Trial, pairs: int) -> bool:
    """Whether a trial is not distinguished from the best, at 5 % over all pairs of trials (Bonferroni).

    All pairs and not the comparisons with the best alone, since the best is selected on the same images.
    Without answers by image, from jobs that predate them: whether it is within one standard error.
    """
    if other.behind is not None:
        return other.behind.p > SIGNIFICANT / pairs
    return other.minival_top1 >= best.minival_top1 - best.standard_error


def verdict(best: Trial, tied: Sequence[Trial], trials: int) -> str:
    """The choice and its statistical uncertainty, as text."""
    seeds = f", mean of {len(best.seed_top1)} seeds" if len(best.seed_top1) > 1 else ""
    scored = f"{best.minival_top1:.2f} ± {best.standard_error:.2f} % of {best.n_minival} minival images{seeds}"
    if trials == 1:
        return f"{format_point(best)} is the only trial ({scored})"
    if not tied:
        return f"{format_point(best)} is best ({scored}), and every other trial is distinguished from it"
    others = f"{len(tied)} of the other {trials - 1} trial{'s' if trials > 2 else ''}"
    if trials > 2 and all(trial.behind is not None for trial in tied):  # a single p may be below 0.05 all the same
        others += f" at 5 % over all {math.comb(trials, 2)} pairs"
    return (
        f"{format_point(best)} leads ({scored}) but is not distinguished from {others}: "
        f"{'; '.join(format_point(t) + _format_test(t.behind) for t in tied)}"
    )


def _format_test(test: PairedTest | None) -> str:
    """`` (+0.40 points, -0.62 to +1.42, p 0.54)``: of the lead on the same images."""
    if test is None:
        return " (within one standard error)"
    return f" ({format_interval(test)})"


def _compare_at_equal_cost(
    options: schema.Search, ranked: Sequence[tuple[Trial, NDArray[np.bool_] | None]], pairs: int
) -> str:
    """Compares the two best of the trials at the budget's cost, at 5 % over all pairs, as text; "" for one trial."""
    if len(ranked) < 2:
        return ""
    (first, ours), (second, theirs) = ranked
    at_cost = f"at equal counted cost, accuracy × (cost / {options.budget:g})^{options.exponent:g}, "
    scores = f"{first.equal_cost_top1:.2f} % against {second.equal_cost_top1:.2f} %"
    leads = f"{at_cost}{format_point(first)} leads {format_point(second)} by {scores}"
    if ours is None or theirs is None:
        return f"{leads}; the same images were not compared"
    factors = _at_budget(options, first.counted_cost), _at_budget(options, second.counted_cost)
    test = compare_paired(ours, theirs, factors)
    tie = "" if test.p <= SIGNIFICANT / pairs else ", a tie"
    return f"{leads} ({format_interval(test)}{tie})"


def family(model: schema.Model, winner: Coefficients, classes: int) -> tuple[FamilyMember, ...]:
    """B1..B7 derived from the winner's coefficients, beside the family that the paper set by hand, with their costs.

    No integer phi of the paper's own coefficients gives the hand-set family. Source: paper section 3.3; official
    ``efficientnet_params``.
    """
    from models.networks.efficientnet.variants import VARIANTS

    b0 = VARIANTS["efficientnet_b0"]
    members = []
    for phi in PHIS:
        name = f"efficientnet_b{phi}"
        variant = VARIANTS[name]
        depth, width, resolution = winner.alpha**phi, winner.beta**phi, winner.gamma**phi
        derived = _size((width, depth, resolution), scaled(model, depth, width, resolution), classes)
        relative = (variant.width, variant.depth, variant.resolution / b0.resolution)
        hand_set = _size(relative, replace(model, name=name), classes)
        named = HandSetSize(name=name, **dataclasses.asdict(hand_set))
        members.append(FamilyMember(phi=phi, derived=derived, hand_set=named))
    return tuple(members)


def _size(relative: tuple[float, float, float], network: schema.Model, classes: int) -> NetworkSize:
    from models.networks.build import compute_cost

    params, multiply_adds, resolution_px = compute_cost(network, classes)
    width, depth, resolution = relative
    return NetworkSize(
        width=width,
        depth=depth,
        resolution=resolution,
        params=params,
        multiply_adds=multiply_adds,
        resolution_px=resolution_px,
    )
