"""The grid search of section 3.3: points within the budget, the choice among the trials, the family that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from conf import schema
from infra.errors import ConfigError, first_line
from models.experiments.scaling_study import scaled
from models.networks.efficientnet.compound_scaling import Coefficients, grid
from models.results import FamilyMember, HandSetSize, NetworkSize, RefusedPoint, SearchResult, TrainResult, Trial
from models.statistics import standard_error

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


def trial_title(point: Coefficients) -> str:
    """``trial 1.2 1.1 1.15``."""
    return f"trial {point.alpha} {point.beta} {point.gamma}"


def format_point(point: Coefficients | Trial) -> str:
    """``alpha 1.2, beta 1.1, gamma 1.15``."""
    return f"alpha {point.alpha:g}, beta {point.beta:g}, gamma {point.gamma:g}"


def select_trials(
    options: schema.Search, screened: ScreenedGrid, results: Sequence[TrainResult | BaseException]
) -> SearchResult:
    """Chooses among the finished trials; lists the others under ``failed`` with their reason.

    Raises:
        EffnetError: No trial finished; the error of the first trial.
    """
    pairs = list(zip(screened.points, results, strict=True))
    done = [(p, r) for p, r in pairs if isinstance(r, TrainResult)]
    failed = [(p, r) for p, r in pairs if isinstance(r, BaseException)]
    if not done:
        raise failed[0][1]
    chosen = choose(options, replace(screened, points=tuple(p for p, _ in done)), [r for _, r in done])
    lines = tuple(f"{trial_title(p)}: {first_line(error)}" for p, error in failed)
    return replace(chosen, failed=lines)


def choose(options: schema.Search, screened: ScreenedGrid, results: Sequence[TrainResult]) -> SearchResult:
    """Trials in grid order, the best, and those within one standard error of it.

    The standard error is that of a binomial proportion: sqrt(p (1 - p) / n). Equal accuracies: the cheapest is best.
    """
    trials = tuple(
        Trial(
            alpha=point.alpha,
            beta=point.beta,
            gamma=point.gamma,
            product=point.cost,
            params=result.params,
            multiply_adds=result.multiply_adds,
            resolution=result.resolution,
            minival_top1=result.minival_top1,
            n_minival=result.n_minival,
            standard_error=standard_error(result.minival_top1, result.n_minival) or 0.0,
            counted_cost=result.multiply_adds / screened.multiply_adds,
            mlflow_run=result.mlflow_run,
        )
        for point, result in zip(screened.points, results, strict=True)
    )
    best = max(trials, key=lambda t: (t.minival_top1, -t.multiply_adds))
    tied = tuple(t for t in trials if t is not best and t.minival_top1 >= best.minival_top1 - best.standard_error)
    return SearchResult(
        trials=trials,
        best=best,
        tied=tied,
        verdict=verdict(best, tied, len(trials)),
        refused=screened.refused,
        budget=options.budget,
        tolerance=options.tolerance,
        counted_tolerance=options.counted_tolerance,
        found=sum(result.reused for result in results),
    )


def verdict(best: Trial, tied: Sequence[Trial], trials: int) -> str:
    """The choice and its statistical uncertainty, as text."""
    scored = f"{best.minival_top1:.2f} ± {best.standard_error:.2f} % of {best.n_minival} minival images"
    if trials == 1:
        return f"{format_point(best)} is the only trial ({scored})"
    if not tied:
        return f"{format_point(best)} is best ({scored}); no other trial lies within one standard error"
    others = f"{len(tied)} of the other {trials - 1} trial{'s' if trials > 2 else ''}"
    return (
        f"{format_point(best)} leads ({scored}) but is within one standard error of {others}: "
        f"{'; '.join(format_point(t) for t in tied)}"
    )


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
