"""The cost of the full reproduction: one table in code, the same numbers in the plan and in the documents."""

import re
from dataclasses import replace

import pytest
from checkout import ROOT

from conf import compose, schema
from infra.errors import ConfigError
from models.data.loading.order import steps_per_epoch
from models.experiments import costs, full_run
from models.experiments.processors import CPU_CORE, gpu
from models.experiments.work import Parallelism, count_training
from models.networks.memory import exceeds_gpu
from models.networks.memory import plan as plan_memory
from models.paper import table2
from tasks import plan

PAGE = (ROOT / "docs/full-reproduction.md").read_text()
SCALE = (ROOT / "docs/scale.md").read_text()
IMAGENET_TRAIN = 1_281_167  # images, the minival included
IMAGES = 107_100 * 4_096  # of one training, repetitions counted
EVALUATED = 350 * 25_022 + 50_000  # images of one training; a forward pass is a third of a step


def paper() -> schema.Config:
    return compose.compose(["profile=paper"])


@pytest.fixture(scope="module")
def planned() -> list[str]:
    """What `effnet plan profile=paper` prints of its costs, in a folder where no services have run."""
    words = ["profile=paper", "run_dir=/nowhere/runs"]
    return list(plan.describe_costs(compose.compose(words), words, None))


def test_a_run_has_the_steps_of_the_recipe_on_the_images_that_are_not_held_out() -> None:
    config = paper()
    train = IMAGENET_TRAIN - round(IMAGENET_TRAIN * config.data.minival_share)
    batch = config.recipe.global_batch
    assert steps_per_epoch(train, batch) * config.recipe.epochs * batch == IMAGES
    assert f"{IMAGES:,} training images a run: 107,100 steps" in PAGE


def gpu_hours(name: str) -> float:
    """A recomputed forward pass is a third of a step more."""
    run = full_run.FULL_RUNS[name]
    return (IMAGES + (EVALUATED + run.recomputes * IMAGES) / 3) / run.images_per_s / 3600


def test_the_hours_of_the_plan_are_images_over_images_per_second() -> None:
    hours = costs.family_gpu_hours(paper())
    assert list(hours) == list(full_run.FULL_RUNS)
    assert hours == pytest.approx({name: gpu_hours(name) for name in hours})


def test_every_variant_of_the_profile_has_a_row_and_the_document_shows_it() -> None:
    config = paper()
    assert list(full_run.FULL_RUNS) == config.variants
    gpus, rows = config.launch.nproc_per_node, re.findall(r"^\| B\d .*\|$", PAGE, re.MULTILINE)
    expected = []
    for name, run in full_run.FULL_RUNS.items():
        hours = gpu_hours(name)
        what = "" if run.measured else " (estimate, recomputed)" if run.recomputes else " (estimate)"
        accuracies = f"{table2(name).top1} | {full_run.accepted_top1(name)} | {run.seeds}"
        speed = f"{run.images_per_s * (0.75 if run.recomputes else 1):,.0f}{what}"
        expected.append(f"| B{name[-1]} | {speed} | {hours:,.0f} | {hours / gpus:.1f} | {accuracies} |")
    assert rows == expected


@pytest.mark.slow
def test_both_documents_have_the_sums_of_the_plan(planned: list[str]) -> None:
    rows = {line[:27].strip(): line[27:].replace(",", "").split() for line in planned if line.startswith("train ")}
    hours = [float(rows[f"train {name}"][7]) for name in full_run.FULL_RUNS]
    assert hours == pytest.approx([gpu_hours(name) for name in full_run.FULL_RUNS], abs=1e-3)
    assert f"One run of each is {sum(hours):,.0f} GPU-hours; B0 to B3 are {sum(hours[:4]):.0f} of them" in PAGE
    assert f"seeds of B0 add {2 * hours[0]:.0f}." in PAGE
    shown = re.findall(r"^\| B(?:\d|0 to B7) \|.*\| ([\d,]+) \| [\d.]+ \| [\d,]+ \|$", SCALE, re.MULTILINE)
    assert shown == [f"{one:,.0f}" for one in (*hours, sum(hours))]


@pytest.mark.slow
def test_the_gates_of_the_document_are_those_of_the_plan_with_their_hours(planned: list[str]) -> None:
    section = PAGE[PAGE.index("## Gates") : PAGE.index("## Cost")]
    rows = re.findall(r"^\| (\d) \| ([^|]+) \| .* \| ([^|]+) \|$", section, re.MULTILINE)
    assert [(int(number), name) for number, name, _ in rows] == [
        (number, gate.name) for number, gate in enumerate(full_run.GATES, 1)
    ]
    for (number, name, takes), gate in zip(rows, full_run.GATES, strict=True):
        [line] = [line for line in planned if line.startswith(f"  {number} {name}")]
        assert gate.passes_if in line
        hours = gate.runs * gate.epochs * gpu_hours("efficientnet_b0") / 350
        assert (f"{hours:,.1f} H200-hours" in line, f"{hours:,.1f} GPU-hours" in takes) == (bool(gate.runs),) * 2
    assert f"EMA top-1 on minival ≥ {full_run.STOP_TOP1:.0f} % at epoch {full_run.STOP_EPOCH}" in section


def test_the_first_seed_of_b0_ends_by_itself_where_the_gate_says_so() -> None:
    [rule] = paper().runtime.stop_below
    assert (rule.network, rule.data) == ("efficientnet_b0", "imagenet")
    assert (rule.epoch, rule.top1) == (full_run.STOP_EPOCH, full_run.STOP_TOP1)


@pytest.mark.slow
def test_the_plan_says_which_accuracy_of_each_variant_is_accepted(planned: list[str]) -> None:
    for name, accepted in {"efficientnet_b0": 76.9, "efficientnet_b4": 82.5, "efficientnet_b7": 83.9}.items():
        [line] = [line for line in planned if line.startswith(f"    {name} ")]
        assert f"{accepted} % (the paper's {table2(name).top1:.1f}), " in line
        assert ("mean of 3 seeds" if name == "efficientnet_b0" else "1 run") in line
    small = ["profile=laptop"]
    assert not any("accepted" in line for line in plan.describe_costs(compose.compose(small), small, None))


def test_what_an_h200_holds_only_recomputed_is_priced_so() -> None:
    config = paper()
    for name, run in full_run.FULL_RUNS.items():
        needed = plan_memory(schema.Model(name=name), config.recipe, 1000, 8, bf16=True).total
        assert exceeds_gpu(needed, full_run.GPU_BYTES) == run.recomputes, name
    splits = costs.count_splits(config.data)
    assert splits is not None
    works = [
        count_training(recipe, schema.Model(name="efficientnet_b7"), 1000, splits, Parallelism(8))
        for recipe in (config.recipe, replace(config.recipe, batch_slices=128))  # 64 images a pass, and 32, which fit
    ]
    assert [work.exceeding for work in works] == [IMAGES, 0]
    assert works[0].seconds(gpu()) - works[1].seconds(gpu()) == pytest.approx(IMAGES / 3 / 110)
    assert works[0].seconds(CPU_CORE) == works[1].seconds(CPU_CORE)  # which recomputes nothing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["profile=laptop"], "the data are mnist5k"),
        (["profile=paper", "gate.weights=[tf_efficientnet_b0_aa.pth]"], "data.path=FOLDER"),
    ],
)
def test_a_gate_without_imagenet_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        full_run.check_request(compose.compose(words))


def test_gates_of_a_shorter_run_cost_what_their_epochs_cost() -> None:
    lines = list(full_run.describe({"efficientnet_b0": 7.0}, epochs=100))
    [line] = [line for line in lines if line.startswith("  8 B0, first seed")]
    assert line.endswith("; 7.0 H200-hours")  # 100 epochs
