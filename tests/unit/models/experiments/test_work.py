"""The time that counted work takes: evaluations, recomputed activations, and stages that wait for each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conf import compose, schema
from models.experiments.costs import plan_trainings
from models.experiments.processors import CPU_CORE, STEP_S, gpu
from models.experiments.work import COMMAND_S, JOB_S, Parallelism, Work, count_training, total_wall_s

SPLITS = (6400, 300, 500)
B4 = schema.Model(name="efficientnet_b4")
RECIPE = schema.Recipe(epochs=2, global_batch=256, batch_slices=4)


def test_evaluation_start_up_and_steps_are_part_of_the_time() -> None:
    """A forward pass takes a third of a training step; a step on CPU cores and a job take their overhead besides."""
    work = Work("", jobs=2, steps=100, images=6400, evaluated=3000, multiply_adds=359_792, stored=0)
    busy = (6400 + 3000 / 3) / 3606
    assert work.seconds(CPU_CORE) == pytest.approx(busy)
    assert work.wall_s(CPU_CORE, 2) == pytest.approx(busy / 2 + 100 * STEP_S + 2 * JOB_S)
    one_s, two_cores = work.wall_s(CPU_CORE, 2), replace(CPU_CORE, count=2)
    assert total_wall_s([work, work], two_cores, schema.Launch(nproc_per_node=2, jobs_at_once=2)) == pytest.approx(
        busy + 200 * STEP_S + 2 * JOB_S + COMMAND_S
    )
    for at_once, share in ((1, 2.0), (2, 1.0), (9, 0.5)):  # two times two jobs
        launch = schema.Launch(nproc_per_node=2, jobs_at_once=at_once)
        assert total_wall_s([work, work], CPU_CORE, launch) == pytest.approx(share * one_s + COMMAND_S)
    assert work.wall_s(gpu(), 1) == pytest.approx(work.seconds(gpu()) + 2 * JOB_S)


@pytest.mark.parametrize(
    ("stages", "micro_batches", "share"),
    [
        (2, 1, 1.0),  # one stage computes, the other waits
        (2, 2, 3 / 4),  # two of three slots of each process are used
        (2, 4, 5 / 8),
        (4, 4, 7 / 16),
        (4, None, 7 / 16),  # as many micro-batches as stages
    ],
)
def test_stages_that_wait_for_each_other_do_not_multiply_the_speed(
    stages: int, micro_batches: int | None, share: float
) -> None:
    def trained_s(parallelism: Parallelism, processes: int) -> float:
        work = count_training(RECIPE, B4, 10, SPLITS, parallelism)
        return replace(work, jobs=0, evaluated=0).wall_s(gpu(), processes)

    in_stages = trained_s(Parallelism(1, stages, micro_batches), stages)
    assert in_stages == pytest.approx(share * trained_s(Parallelism(), 1))


def test_every_process_of_a_pipeline_evaluates_its_share() -> None:
    one, two = (count_training(RECIPE, B4, 10, SPLITS, Parallelism(1, stages)) for stages in (1, 2))
    assert one.evaluated == two.evaluated
    assert two.wall_s(gpu(), 2) - replace(two, evaluated=0).wall_s(gpu(), 2) == pytest.approx(
        (one.wall_s(gpu(), 1) - replace(one, evaluated=0).wall_s(gpu(), 1)) / 2
    )


def test_a_command_plans_with_the_stages_of_its_jobs() -> None:
    words = ["data=digits", "launch.nproc_per_node=4"]
    whole, staged = (
        plan_trainings(compose.compose([*words, *more]), [], "train").works[0]
        for more in ([], ["runtime.pipeline_stages=4", "runtime.micro_batches=1"])
    )
    assert (whole.idle, staged.idle) == (0, 3 * staged.images)
    assert staged.wall_s(CPU_CORE, 4) > 2 * (whole.wall_s(CPU_CORE, 4) - whole.steps * STEP_S - JOB_S)


def test_the_memory_of_the_gpu_decides_what_is_recomputed() -> None:
    small, large = (count_training(RECIPE, B4, 1000, SPLITS, Parallelism(gpu_bytes=size)) for size in (24e9, 141e9))
    assert (small.exceeding, large.exceeding) == (small.images, 0)
    assert count_training(RECIPE, B4, 1000, SPLITS, Parallelism(1, 2, gpu_bytes=24e9)).exceeding == 0, "in stages never"
    assert small.seconds(CPU_CORE) == large.seconds(CPU_CORE)


def test_recomputation_that_the_recipe_sets_takes_its_time_on_every_processor() -> None:
    without, recomputed = (
        replace(count_training(recipe, B4, 10, SPLITS), evaluated=0)
        for recipe in (RECIPE, replace(RECIPE, recompute=True))
    )
    for processor in (CPU_CORE, gpu()):
        assert recomputed.seconds(processor) == pytest.approx(without.seconds(processor) * 4 / 3)
