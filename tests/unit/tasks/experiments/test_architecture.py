"""The bookkeeping of the architecture search, on a real database and without training."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import made_results
import pytest
from matrix import with_slow_rest

from conf.compose import compose
from conf.schema import Config
from infra import trials as database
from infra.errors import ConfigError, DivergedError, JobError
from models.experiments import architecture_space as space
from models.experiments.architecture_search import B0_BLOCKS, summarize
from models.networks.efficientnet.variants import B0_STAGES
from models.results import ShardResult, TrainResult
from tasks.experiments.architecture import (
    ArchitectureRun,
    Proposal,
    proposal_config,
    propose,
    report_failure,
    report_result,
    requeue,
)

SHARDS = ShardResult("mnist5k", "file:///m", "0" * 64, 10, 4096, 64, 64, 1, True)

SMALL = ["profile=laptop", "architecture.trials=4", "architecture.max_cost=0.97"]


def started(folder: Path, config: Config) -> ArchitectureRun:
    wanted = config.architecture
    trials = database.open_trials(
        f"sqlite:///{folder}/trials.db",
        "search",
        directions=("maximize", "minimize"),
        sampler=wanted.sampler,
        startup=wanted.population,
        seed=wanted.seed,
    )
    database.enqueue(trials, space.point(B0_STAGES))
    return ArchitectureRun(trials, SHARDS, mlflow_run="run", done_before=0)


def result(minival_top1: float, n: int = 400) -> TrainResult:
    return made_results.trained(minival_top1=minival_top1, n_minival=n, mlflow_run="trial")


async def all_of_it(
    config: Config, search: ArchitectureRun, answers: list[TrainResult | DivergedError]
) -> list[Proposal]:
    """Asks until there is nothing more to ask, and answers in order."""
    asked_for = []
    while (asked := await propose(config, search)) is not None:
        asked_for.append(asked)
        answer = answers[len(asked_for) - 1]
        await (
            report_result(search, asked, answer)
            if isinstance(answer, TrainResult)
            else report_failure(search, asked, answer)
        )
    return asked_for


@pytest.fixture
def config() -> Config:
    return compose(SMALL)


def test_a_search_trains_as_many_as_asked_for_b0_first_and_lists_what_it_refused_and_what_failed(
    tmp_path: Path, config: Config
) -> None:
    search = started(tmp_path, config)
    answers: list[Any] = [result(80.0), DivergedError("not finite\n  | more"), result(90.0), result(70.0)]
    asked = asyncio.run(all_of_it(config, search, answers))
    assert asked[0].blocks == B0_BLOCKS
    assert (asked[0].params, asked[0].multiply_adds) == (663_530, 1_331_440)
    found = summarize(config.architecture, database.list_trials(search.trials), "http://mlflow/runs/")
    states = [trial.state for trial in found.trials]
    assert (states.count("complete"), states.count("failed")) == (3, 1)
    assert states.count("refused") == len(states) - 4 > 0
    for trial in found.trials:
        if trial.state == "refused":
            assert trial.multiply_adds > 0.97 * 1_380_000
            assert trial.reason == (
                f"{trial.multiply_adds:,} multiply-adds are more than 0.97 times the target 1,380,000"
            )
            assert (trial.accuracy, trial.reward, trial.mlflow_url, trial.pareto) == (None,) * 3 + (False,)
    assert found.missing == (f"trial {asked[1].number}: not finite",)
    assert found.baseline == found.trials[0]
    assert found.baseline.mlflow_url == "http://mlflow/runs/trial"
    assert found.baseline.standard_error == pytest.approx(2.0)
    assert found.baseline.reward == pytest.approx(80.0 * (1_331_440 / 1_380_000) ** -0.07)
    assert found.best.number == asked[2].number
    assert [trial.pareto for trial in found.trials if trial.state == "complete"] == space.pareto(
        [(80.0, 1_331_440), (90.0, asked[2].multiply_adds), (70.0, asked[3].multiply_adds)]
    )
    assert asyncio.run(propose(config, search)) is None


@pytest.mark.slow
def test_a_search_cut_in_two_asks_for_the_same_trials(tmp_path: Path, config: Config) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    answers: list[Any] = [result(80.0), result(85.0), result(90.0), result(70.0)]
    undisturbed = asyncio.run(all_of_it(config, started(whole, config), answers))
    fewer = dataclasses.replace(config, architecture=dataclasses.replace(config.architecture, trials=2))
    first = asyncio.run(all_of_it(fewer, started(cut, fewer), answers[:2]))
    rest = asyncio.run(all_of_it(config, started(cut, config), answers[2:]))
    assert [asked.blocks for asked in first + rest] == [asked.blocks for asked in undisturbed]
    assert len(rest) == 2


@pytest.mark.slow
def test_a_trial_that_was_broken_off_is_asked_for_again_and_counts_once(tmp_path: Path, config: Config) -> None:
    search = started(tmp_path, config)

    async def broken_off() -> list[Proposal]:
        asked = await propose(config, search)
        assert asked is not None
        requeue(search, asked)
        return [asked, *await all_of_it(config, search, [result(80.0)] * 4)]

    first, again, *rest = asyncio.run(broken_off())
    assert (first.blocks, len(rest)) == (again.blocks, 3)
    found = summarize(config.architecture, database.list_trials(search.trials))
    assert [trial.state for trial in found.trials].count("complete") == 4
    assert first.number not in [trial.number for trial in found.trials]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", with_slow_rest(["tpe", "nsga2"]))
def test_a_proposal_with_the_network_of_an_earlier_trial_is_proposed_anew(tmp_path: Path, sampler: str) -> None:
    """By the same blocks or, at the size of the search, after rounding; also while the first is still in training."""
    config = compose(["profile=laptop", "architecture.trials=4", f"architecture.sampler={sampler}"])
    search = started(tmp_path, config)

    async def with_repetitions() -> list[Proposal]:
        b0 = await propose(config, search)
        assert b0 is not None
        search.trials.study.enqueue_trial(space.point(B0_STAGES))  # b0 is still running
        search.trials.study.enqueue_trial({**space.point(B0_STAGES), "stage8_layers": 2})  # half a layer is one
        second = await propose(config, search)
        assert second is not None
        await report_failure(search, second, DivergedError("not finite"))
        search.trials.study.enqueue_trial({**search.trials.study.trials[second.number].params})
        await report_result(search, b0, result(80.0))
        return [b0, second, *await all_of_it(config, search, [result(70.0)] * 2)]

    asked = asyncio.run(with_repetitions())
    assert len({tuple(proposal.blocks) for proposal in asked}) == len(asked) == 4
    listed = summarize(config.architecture, database.list_trials(search.trials)).trials
    repeated = {trial.number: trial.reason for trial in listed if "the network of trial" in (trial.reason or "")}
    assert repeated == {
        1: "the network of trial 0",
        2: "the network of trial 0",
        asked[1].number + 1: (f"the network of trial {asked[1].number}"),
    }


@pytest.mark.slow
def test_workers_of_one_process_never_train_more_than_wanted(tmp_path: Path, config: Config) -> None:
    search = started(tmp_path, config)

    async def four_workers() -> list[list[Proposal]]:
        return await asyncio.gather(*(all_of_it(config, search, [result(80.0)] * 4) for _ in range(4)))

    asked = [each for worker in asyncio.run(four_workers()) for each in worker]
    assert len({each.number for each in asked}) == len(asked) == 4


@pytest.mark.slow
def test_constraints_that_refuse_everything_are_one_clear_line(tmp_path: Path) -> None:
    config = compose([*SMALL, "architecture.max_params=1000"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasks.experiments.architecture.MAX_REFUSED", 3)
        with pytest.raises(
            ConfigError, match="3 proposals in a row break the constraints or repeat a network; raise architecture"
        ):
            asyncio.run(propose(config, started(tmp_path, config)))


@pytest.mark.slow
def test_a_search_without_one_good_trial_ends_with_the_first_reason(tmp_path: Path, config: Config) -> None:
    search = started(tmp_path, config)
    asyncio.run(all_of_it(config, search, [DivergedError("the loss exploded")] * 4))
    with pytest.raises(JobError, match="no trial of the architecture search finished; trial 0: the loss exploded"):
        summarize(config.architecture, database.list_trials(search.trials))


@pytest.mark.parametrize("profile", ["laptop", "study", "paper", "imagenette"])
def test_a_proposal_is_trained_as_its_network_by_the_search_s_recipe(profile: str) -> None:
    config = compose([f"profile={profile}"])
    asked = Proposal(None, 0, B0_BLOCKS, 1, 2)
    trial = proposal_config(config, asked)
    assert trial.recipe == config.architecture.recipe
    assert trial.model == dataclasses.replace(config.architecture.model, blocks=B0_BLOCKS)
    assert trial.data == config.data


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("architecture.trials=0", "architecture.trials must be > 0"),
        ("architecture.sampler=grid", "nsga2, tpe"),
        ("architecture.model.blocks=[r1_k3_s11_e1_i32_o16]", "must be empty"),
        ("architecture.population=1", ">= 2"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_at_once(word: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        compose([word])
