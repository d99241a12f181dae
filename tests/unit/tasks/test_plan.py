"""`effnet plan` counts the networks that are trained, and does so without torch."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from checkout import ROOT

from conf import compose
from conf.text import format_duration
from flows.cli.verbs import VERBS
from infra import machine
from infra.errors import ConfigError
from models.data.sources import catalog
from models.experiments import costs, processors
from models.experiments.work import JOB_S, total_wall_s
from models.networks import memory
from models.networks.build import build_model, compute_cost
from models.networks.packaged import model_of
from models.training.probe import Probe
from tasks import plan, stored


@pytest.fixture(autouse=True)
def nothing_is_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where no services have run


def test_the_counts_are_those_of_the_networks_that_the_readme_s_run_trained() -> None:
    trained = re.findall(
        r"^\| (B\d) \| ([\d,]+) \| ([\d,]+) \| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    table = list(plan.lines(compose.compose(["profile=laptop"])))
    assert table[0] == "mnist5k: 10 classes"
    rows = [line.split()[:4] for line in table[4:]]
    assert [(f"B{name[-1]}", params, adds, px) for name, px, params, adds in rows] == trained


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_the_classes_are_those_of_the_shards(name: str) -> None:
    config = compose.compose([f"data={name}", "variants=[efficientnet_b0]"])
    network = build_model(config.model, len(catalog.open_source(config.data).classes))
    params = sum(parameter.numel() for parameter in network.parameters())
    assert f" {params:,} " in list(plan.lines(config))[4]


def test_every_data_set_but_those_of_users_has_its_number_of_classes() -> None:
    files = (ROOT / "conf/data").glob("*.yaml")
    sources = {yaml.safe_load(path.read_text()).get("source", path.stem) for path in files}
    assert {name for name in sources if not catalog.DATA_SETS[name].classes} == {"folder", "webdataset"}


def test_the_classes_of_a_folder_are_assumed_and_the_table_says_so() -> None:
    first, *_ = plan.lines(compose.compose(["data=folder", "variants=[efficientnet_b0]"]))
    assert first == "folder: 1,000 classes, assumed: the true number is known once the data are sharded"


@pytest.mark.parametrize("processes", [7, 300])
def test_processes_over_which_a_batch_cannot_be_divided_are_refused(processes: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot be distributed evenly over {processes} processes"):
        next(plan.lines(compose.compose([f"launch.nproc_per_node={processes}"]), "train"))


@pytest.mark.slow
def test_the_costs_of_a_reproduction_are_summed_and_priced() -> None:
    words = ["profile=paper", "variants=[efficientnet_b0,efficientnet_b4]", "transfer.sets=[pets]"]
    config = compose.compose(words)
    lines = list(plan.describe_costs(config, words, 2.5))
    rows = {line[:27].strip(): line[27:].replace(",", "").split() for line in lines[3:9]}
    # 350 epochs of 306 steps of 4,096 images, each followed by minival, and val at the end.
    evaluated = 350 * 25_022 + 50_000
    assert rows["train efficientnet_b0"][:5] == ["1", "0", "107100", "438681600", str(evaluated)]
    images = 438_681_600 + evaluated / 3  # a forward pass is a third of a training step
    assert rows["train efficientnet_b0"][5] == "4930"  # images/s of one H200
    assert float(rows["train efficientnet_b0"][7]) == pytest.approx(images / 4930 / 3600, abs=1e-3)
    hours = sum(float(row[7]) for row in rows.values())
    total = next(line for line in lines if line.startswith("in total")).replace(",", "")
    measured = re.search(r"in total +([\d.]+) H200-hours ([\d.]+) at 2.5 an hour; or [\d.]+ CPU core-hours; ", total)
    assert measured is not None, total
    assert float(measured[1]) == pytest.approx(hours, abs=0.1)
    assert float(measured[2]) == pytest.approx(2.5 * hours, rel=1e-3)
    assert (
        "at"
        not in next(line for line in plan.describe_costs(config, words, None) if line.startswith("in total")).split()
    )


def test_a_folder_has_no_costs_before_it_is_sharded_and_the_plan_says_so() -> None:
    words = ["data=folder", "variants=[efficientnet_b0]"]
    lines = list(plan.describe_costs(compose.compose(words), words, None))
    assert "folder: the number of its images is known once it is sharded (effnet shard)" in lines
    assert not any(line.startswith("train ") for line in lines)


@pytest.mark.parametrize(
    ("core", "jobs_at_once", "measured_s"),
    [
        (processors.CPU_CORE, 1, 443),
        (processors.CPU_CORE, 1, 470),
        (processors.CPU_CORE, 1, 506),
        (processors.AVX2_CORE, 1, 659),
        (processors.AVX2_CORE, 2, 589),
    ],
)
def test_the_estimate_of_the_laptop_is_within_a_fifth_of_its_runs(
    core: processors.Processor, jobs_at_once: int, measured_s: float
) -> None:
    """Runs on two cores of AMD EPYCs with and without AVX-512: benchmarks/README.md, make reproduce."""
    config = compose.compose(["profile=laptop", f"launch.jobs_at_once={jobs_at_once}"])
    planned = costs.plan_trainings(config, [config.transfer.data])
    two_cores = dataclasses.replace(core, count=2)
    assert total_wall_s(planned.works, two_cores, config.launch) == pytest.approx(measured_s, rel=0.2)


def test_jobs_at_the_same_time_share_the_cores_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    config, one = compose.compose(["profile=laptop"]), compose.compose(["profile=laptop", "launch.jobs_at_once=1"])
    assert (config.launch.nproc_per_node, config.launch.jobs_at_once) == (2, 2)
    works = costs.plan_trainings(config, [config.transfer.data]).works
    took = {}
    for cores in (2, 8):
        monkeypatch.setattr(
            processors, "cpu", lambda cores=cores: dataclasses.replace(processors.CPU_CORE, count=cores)
        )
        took[cores] = total_wall_s(works, processors.cpu(), config.launch)
        assert "2 jobs at a time" in (text := "\n".join(plan.describe_costs(config, [], None)))
        assert f" or {format_duration(took[cores])} on {min(cores, 4)} x CPU core" in text
    trained_s = sum(work.wall_s(processors.CPU_CORE, 2) - work.jobs * JOB_S for work in works)
    assert took[2] - took[8] == pytest.approx(trained_s / 2)
    assert took[2] < total_wall_s(works, processors.cpu(), one.launch)


def test_a_network_that_trains_below_an_image_per_second_has_a_speed_other_than_zero() -> None:
    words = ["profile=paper", "transfer.sets=[pets]"]
    lines = plan.describe_costs(compose.compose(words), words, None)
    [line] = [line for line in lines if line.startswith("train efficientnet_b7 ")]
    assert 0 < float(line.split()[8]) < 1, line


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("search", ["grid search"]),
        ("train", ["train efficientnet_b3"]),
        ("transfer", ["train efficientnet_b3", "transfer efficientnet_b3"]),
        ("architecture", ["architecture search"]),
        ("explain", ["activation maps"]),
        ("study", ["scaling study", "architecture search"]),
    ],
)
def test_every_command_that_trains_has_a_plan_of_its_own(verb: str, names: list[str]) -> None:
    words = ["model=b3", "scaling.points=[{network:efficientnet_b0},{network:efficientnet_b1}]"]
    lines = list(plan.describe_costs(compose.compose(words), words, None, verb))
    assert lines[0] == f"training of effnet {verb}, as if nothing were done yet"
    listed = [line[:27].strip() for line in lines[2:] if line[27:33].strip().isdigit()]
    assert listed == names
    assert ("latency: measured image by image, and not counted" in lines) == (verb == "study")


def test_the_study_of_photographs_has_a_plan_within_an_hour_that_counts_frozen_features() -> None:
    words = ["profile=study"]
    lines = list(plan.describe_costs(compose.compose(words), words, None, "study"))
    listed = [line[:33].split() for line in lines[2:] if line[27:33].strip().isdigit()]
    assert listed == [
        ["scaling", "study", "21"],
        ["frozen", "features", "18"],
        ["transfer", "efficientnet_lite0", "6"],
        ["transfer", "efficientnet_lite1", "2"],
        ["transfer", "efficientnet_lite2", "2"],
        ["architecture", "search", "10"],
    ]
    assert 600 < plan.estimate(compose.compose(words), [], "study").wall_s < 3600


def test_a_public_network_is_counted_at_its_side_and_not_trained_first() -> None:
    config = compose.compose(["profile=study", "data=digits"])
    sets = [config.transfer.data]
    [alone] = costs.plan_trainings(config, sets, "transfer").works
    assert (alone.name, alone.jobs, alone.steps) == ("transfer efficientnet_lite0", 6, 6 * 10 * 24)
    assert alone.multiply_adds == compute_cost(model_of("efficientnet_lite0", 96), 2)[1]
    study = costs.plan_trainings(config, sets, "study").works[2]
    # A study fine-tunes on `data`: of 1,797 digits 599 are val and 120 minival.
    assert study.steps == 6 * 10 * (1078 // 64)
    family = [work.name for work in costs.plan_trainings(config, sets, "reproduce").works]
    assert "transfer efficientnet_b0" in family
    assert "transfer efficientnet_lite0" not in family


@pytest.mark.slow
def test_the_sets_of_a_transfer_follow_the_overrides_of_transfer_data() -> None:
    words = ["transfer.sets=[pets,cars]", "transfer.data.minival_share=0.5", "transfer.data.seed=7"]
    sets = plan.transfer_sets(compose.compose(words), words)
    assert [data.source for data in sets] == ["pets", "cars"]
    assert {(data.minival_share, data.seed) for data in sets} == {(0.5, 7)}
    assert plan.transfer_sets(compose.compose(words), words, "train") == []
    small = ["transfer.data.limit=300"]
    whole, limited = (
        [line for line in plan.describe_costs(compose.compose(one), one, None) if line.startswith("transfer")]
        for one in ([], small)
    )
    assert whole != limited


def test_a_command_above_its_budget_is_named_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "cpu", lambda: dataclasses.replace(processors.CPU_CORE, count=2))

    def exceeded(*words: str, verb: str = "reproduce") -> str:
        return plan.exceeded_budget(compose.compose([*words]), words, verb)

    assert exceeded() == ""
    assert exceeded("budget.hours=1") == ""
    assert exceeded("budget.hours=0.01") == "effnet reproduce is estimated: 0.10 hours exceed budget.hours=0.01"
    assert exceeded("budget.hours=0.01", verb="report") == ""
    with_gpus = ["profile=paper", "transfer.sets=[pets]", "launch.engine=slurm", "launch.gpus_per_node=8"]
    assert "GPU-hours exceed budget.gpu_hours=100" in exceeded(*with_gpus, "budget.gpu_hours=100")


def test_the_estimate_is_for_the_processor_that_the_jobs_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ["0"])
    assert processors.of_jobs(compose.compose(["profile=laptop"]).launch) == processors.cpu()
    assert processors.of_jobs(compose.compose(["profile=imagenette"]).launch) == processors.gpu()
    assert processors.of_jobs(compose.compose(["launch.device=auto"]).launch) == processors.gpu()
    on_slurm = compose.compose(["launch.engine=slurm", "launch.gpus_per_node=2"])
    assert processors.of_jobs(on_slurm.launch) == processors.gpu()
    monkeypatch.setattr(machine, "gpus", list)
    assert processors.of_jobs(compose.compose(["launch.device=auto"]).launch) == processors.cpu()


@pytest.mark.slow
def test_a_probe_replaces_the_speeds_of_this_machine_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose.compose(["variants=[efficientnet_b0,efficientnet_b7]", "data=digits"])
    monkeypatch.setattr("models.training.probe._STEPS_S", 0.05)
    probed = plan.probe(config, "reproduce")
    sizes = {compute_cost(dataclasses.replace(config.model, name=name), 10)[1] for name in config.variants}
    assert {size for size, _ in probed.speeds} == sizes
    assert all(speed > 1 for _, speed in probed.speeds)
    lines = list(plan.describe_costs(config, [], None, "reproduce", probed))
    [row] = [line[27:].replace(",", "").split() for line in lines if line.startswith("train efficientnet_b7")]
    assert row[5:7].count(f"{probed.images_per_s(max(sizes)):.0f}") == 1
    assert any("probe of this machine: steps of efficientnet_b0, efficientnet_b7" in line for line in lines)


def test_a_probed_gpu_recomputes_what_exceeds_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["profile=paper", "model=b4"]
    config, h200 = compose.compose(words), processors.gpu()
    hours = []
    for memory_bytes in (24 * 10**9, 141 * 10**9):
        measured = Probe("L4", "probe", h200.speeds, memory_bytes)
        monkeypatch.setattr("models.training.probe.measure", lambda *_, measured=measured: measured)
        lines = plan.describe_costs(config, words, None, "train", plan.probe(config, "train"))
        [row] = [line[27:].replace(",", "").split() for line in lines if line.startswith("train efficientnet_b4")]
        hours.append(float(row[7]))
    assert hours[0] == pytest.approx(hours[1] * 4 / 3, rel=0.02)  # less its evaluations


def test_synchronized_batch_norm_is_planned_without_the_layers_in_c() -> None:
    """On a CPU they have a batch norm of their own, which knows one process only."""

    def cpu_gigabytes(*words: str) -> float:
        config = compose.compose(["profile=paper", "recipe.precision=fp32", "variants=[efficientnet_b0]", *words])
        return float(list(plan.lines(config))[4].split()[5])

    one, alone = (cpu_gigabytes(f"recipe.bn_groups={groups}", "launch.nproc_per_node=1") for groups in ("sync", "rank"))
    assert one == alone
    several = ["launch.nproc_per_node=64"]  # with a slice each, of which a pass consists
    synchronized, by_rank = (cpu_gigabytes(f"recipe.bn_groups={groups}", *several) for groups in ("sync", "rank"))
    config = compose.compose(["profile=paper"])
    in_torch = memory.plan(config.model, config.recipe, 1000, 64).total
    assert synchronized == pytest.approx(in_torch / 1e9, abs=0.01)
    assert by_rank < 0.9 * synchronized


def test_a_network_that_is_too_large_for_a_core_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = compose.compose(["profile=paper", "model=b7"])
    with pytest.raises(ConfigError, match="--probe: a step of efficientnet_b7 on one image takes too long on a CPU"):
        plan.probe(config, "train")


def test_the_time_left_shrinks_with_what_the_jobs_have_done(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose.compose(["data=digits"])
    nothing_held = stored.StoredTrainings(lambda _: False)
    monkeypatch.setattr(stored, "look_up", lambda *_: nothing_held)
    whole = plan.time_left(config, [], "search", [])
    half = plan.time_left(config, [], "search", [{"step": 10, "steps": 20, "eta_s": 8.0, "loss": 1.0}])
    assert whole is not None
    assert half == pytest.approx(whole - 8.0 / config.launch.jobs_at_once)
    assert plan.time_left(config, [], "search", [{"step": 1, "steps": 20, "eta_s": 9000.0}]) == 9000.0
    assert plan.time_left(config, [], "report", []) is None
    monkeypatch.setattr(stored, "look_up", lambda *_: dataclasses.replace(nothing_held, unknown=("no store",)))
    assert plan.time_left(config, [], "search", []) is None


def test_the_verbs_with_a_budget_are_those_that_can_be_planned() -> None:
    confirmed = [name for name, verb in VERBS.items() if verb.trains and "yes" in verb.switches]
    assert sorted(confirmed) == sorted(costs.VERBS)
    assert {name for name, verb in VERBS.items() if verb.trains} - set(confirmed) == {"nightly"}, (
        "`effnet plan nightly` estimates it; nobody is there to confirm it"
    )


def test_a_registered_network_that_is_fine_tuned_is_not_trained() -> None:
    words = ["profile=paper", "transfer.sets=[pets]"]
    names = [
        [work.name for work in costs.plan_trainings(config, plan.transfer_sets(config, given), "transfer").works]
        for given in (words, [*words, "model_ref=a@champion"])
        for config in [compose.compose(given)]
    ]
    assert names[0] == ["train efficientnet_b0", *names[1]]
    assert names[1] == ["transfer efficientnet_b0"]
