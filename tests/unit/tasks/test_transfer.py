"""What the tasks of transfer learning decide: which sets, who goes on, what a result is, the part of the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_set import MadeSet, write_set

from conf import compose, overrides, schema
from flows.cli import summary
from flows.job import read_spec
from infra import store
from infra.errors import ConfigError, DataError, DivergedError, JobError, TransientError
from models.data.shards import manifest as manifests
from models.experiments.transfer import GridTrial, TransferPlan, record_rung, result_of, select_best
from models.networks.efficientnet.variants import VARIANTS
from models.results import EvalResult, Point, RandomStart, RungResult, ShardResult, TrainResult, TransferResult
from models.statistics import PairedTest
from tasks import transfer
from tasks.transfer import final_job, point_job, prune, set_configs

SMALL = ["transfer=laptop_kornblith", "data@transfer.data=pets", "transfer.recipe.global_batch=16"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSet:
    return write_set(f"file://{tmp_path_factory.mktemp('set')}", {"train": [40, 40], "minival": [10], "val": [30]})


def sharded(made: MadeSet) -> ShardResult:
    sha256, _ = manifests.load(made.uri)
    return ShardResult("made", made.uri, sha256, 10, train=80, minival=10, val=30, shards=4, reused=True)


def planned(made: MadeSet, *words: str) -> TransferPlan:
    return transfer.plan(compose.compose(overrides.replace(SMALL, words)), sharded(made))


@pytest.fixture(scope="module")
def plan(made: MadeSet) -> TransferPlan:
    return planned(made)


def test_a_grid_over_folds_is_refused_since_other_folds_test_the_images_of_the_choice(made: MadeSet) -> None:
    shards = sharded(made)
    other = dataclasses.replace(shards, manifest_uri=made.uri, manifest_sha256="0" * 64)
    config = compose.compose(SMALL)
    with pytest.raises(DataError, match="0000"):  # every fold is opened and checked
        transfer.plan(config, shards, [shards, other])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "load_verified", lambda uri, *_: manifests.load(uri)[1])
        with pytest.raises(ConfigError, match="make a grid of 4 points, chosen on images that other folds test"):
            transfer.plan(config, shards, [shards, other])
        single = compose.compose([*SMALL, "transfer.lr_per_256=[]", "transfer.weight_decay=[]"])
        assert transfer.plan(single, shards, [shards, other, shards]).folds == (shards, other, shards)


def standing(top1: float, mean: float = 0.0) -> RungResult:
    return RungResult(3, top1, mean, "run", False)


def test_each_set_is_the_command_in_its_own_words() -> None:
    config = compose.compose(["transfer.sets=[digits,pets]", "transfer.path=/sets/", "transfer.data.limit=50"])
    sets = set_configs(config, ["transfer.sets=[digits,pets]", "transfer.path=/sets/", "transfer.data.limit=50"])
    found = [one.transfer for one in sets]
    assert [(one.data.name, one.data.path, one.data.limit, one.sets) for one in found] == [
        ("digits", "/sets/digits", 50, []),
        ("pets", "/sets/pets", 50, []),
    ]


def test_without_sets_the_only_one_is_that_of_the_command() -> None:
    config = compose.compose(["model=b1"])
    assert set_configs(config, ["model=b1"]) == [config]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["transfer.sets=[pets]"], "transfer.sets needs transfer.path=FOLDER"),
        (["transfer.sets=[digits,petz]"], "transfer.sets: unknown data set 'petz'; choices: aircraft, birdsnap"),
        (["transfer.sets=[digits,digits]"], "transfer.sets: repeated data set 'digits'"),
    ],
)
def test_sets_that_cannot_be_found_are_refused_by_name(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        set_configs(compose.compose(words), words)
    assert said in str(caught.value)


def test_a_plan_counts_a_network_without_its_classifier_as_table_5_does(made: MadeSet) -> None:
    # Table 5 prints 4M, 17M, 41M; the numbers are those of the shared facts, counted without the classifier.
    words = ["model.width=1", "model.depth=1"]
    counts = {name: planned(made, f"model.name={name}", *words).feature_params for name in list(VARIANTS)[:7:2]}
    assert list(counts.values()) == [4_007_548, 7_700_994, 17_548_616, 40_735_704]


@pytest.mark.parametrize(("split", "called"), [("train", "train"), ("val", "test")])
def test_a_class_without_images_in_train_or_test_is_named(split: str, called: str, tmp_path: Path) -> None:
    made = write_set(f"file://{tmp_path}", {"train": [40, 40], "minival": [10], "val": [30]})
    table, rows = made.manifest.table.copy(), np.repeat([s.split for s in made.manifest.shards], [40, 40, 10, 30])
    table["label"][(rows == split) & (table["label"] == 4)] = 5
    manifests.save(dataclasses.replace(made.manifest, table=table), str(tmp_path.as_uri()))
    with pytest.raises(DataError, match=f"made: 1 of 10 classes have no image in {called}: class 4$"):
        planned(made)


def test_the_images_of_excluded_shards_do_not_count(made: MadeSet) -> None:
    shards = dataclasses.replace(sharded(made), left_out=(made.manifest.shards[-1].name,))
    with pytest.raises(DataError, match=r"made: 10 of 10 classes have no image in test: "):
        transfer.plan(compose.compose(SMALL), shards)


def test_a_batch_that_does_not_fit_is_refused_in_the_plan(made: MadeSet) -> None:
    with pytest.raises(ConfigError, match=r"global_batch 128 is larger than the 90 training samples"):
        planned(made, "transfer.recipe.global_batch=128")


def test_a_point_s_job_is_the_same_job_at_every_rung_and_the_final_one_is_another(plan: TransferPlan) -> None:
    point, weights = plan.points[0], ("s3://w", "00")
    jobs = [point_job(plan, point, weights, until) for until in (1, 3, None)]
    assert len({job.key for job in jobs}) == 1
    assert [job.job.until_epoch for job in jobs] == [1, 3, None]
    final = final_job(plan, point, weights)
    assert (final.job.split, final.key == jobs[0].key) == ("train+minival", False)
    alone = dataclasses.replace(plan.config.transfer, final_split="train")
    same = dataclasses.replace(plan, config=dataclasses.replace(plan.config, transfer=alone))
    assert final_job(same, point, weights).key == jobs[0].key


@pytest.mark.parametrize("until_epoch", [1, None])
def test_a_point_of_a_grid_passes_the_check_of_its_deployment(
    plan: TransferPlan, until_epoch: int | None, tmp_path: Path
) -> None:
    run = point_job(plan, plan.points[0], ("file:///w", "0" * 64), until_epoch)
    store.write(f"file://{tmp_path}/jobs/{run.key}/config.yaml", compose.to_yaml(run.job).encode())
    spec = read_spec(plan.config, run.key, f"file://{tmp_path}", compose.to_yaml(plan.config.launch))
    assert (spec.key, spec.module, spec.job_uri) == (run.key, "models.train", f"file://{tmp_path}/jobs/{run.key}")


def test_points_are_cut_and_chosen_by_the_set_s_metric(plan: TransferPlan) -> None:
    tried = [GridTrial(point) for point in plan.points]
    record_rung(
        tried, [standing(90, 10), standing(80, 70), standing(70, 60), DivergedError("x: the loss\n  | exploded")]
    )
    kept = prune(plan, tried, 3)  # half of four, by mean per class
    assert kept == tried[1:3]
    assert [each.stopped_at_epoch for each in tried] == [3, None, None, 3]
    assert (tried[3].reason, tried[3].value("mean per class"), tried[0].value("top-1")) == ("x: the loss", None, 90)
    assert select_best(plan, kept) == plan.points[1]


@pytest.mark.parametrize("error", [DivergedError("loss"), JobError("a worker failed")])
def test_a_grid_of_which_nothing_is_left_has_diverged(plan: TransferPlan, error: Exception) -> None:
    tried = [GridTrial(point) for point in plan.points]
    record_rung(tried, [error] * 4)
    assert prune(plan, tried, 3) == []
    with pytest.raises(DivergedError, match=r"no point of the grid finished; lower transfer\.lr_per_256"):
        select_best(plan, [])


def test_a_service_that_does_not_answer_is_no_verdict_on_a_point(plan: TransferPlan) -> None:
    with pytest.raises(TransientError):
        record_rung([GridTrial(plan.points[0])], [TransientError("MLflow does not answer")])


def test_the_last_jobs_differ_in_seed_and_start_alone(plan: TransferPlan) -> None:
    point, weights = plan.points[0], ("s3://w", "00")
    plan = dataclasses.replace(plan, folds=plan.folds * 2)
    first, tuned, scratch = (final_job(plan, point, *rest) for rest in ((weights,), (weights, 1), (None, 1)))
    assert tuned.job == dataclasses.replace(first.job, recipe=tuned.job.recipe)
    assert tuned.job.recipe == dataclasses.replace(first.job.recipe, seed=first.job.recipe.seed + 1)
    assert scratch.job == dataclasses.replace(tuned.job, init_weights_uri=None, init_weights_sha256=None)
    assert scratch.label == f"{plan.title} from random weights seed 1"
    assert scratch.key.startswith("train-b0-made-")
    assert first.label == plan.title


def trained(**changes: Any) -> TrainResult:
    facts: dict[str, Any] = {
        "job": "finetune-b4",
        "job_uri": "",
        "model": "efficientnet_b4",
        "params": 5,
        "multiply_adds": 7,
        "resolution": 380,
        "classes": 3,
        "epochs": 6,
        "steps": 30,
        "top1": 60.0,
        "top5": 90.0,
        "n_val": 14,
        "minival_top1": 0.0,
        "n_minival": 0,
        "minutes": 1.5,
        "images_per_s": 9.0,
        "weights_uri": "",
        "weights_sha256": "",
        "class_correct": (1, 3, 8),
        "class_total": (2, 4, 8),
        "mlflow_run": "run",
    }
    return TrainResult(**{**facts, **changes})


def results(plan: TransferPlan) -> list[TransferResult]:
    tried = [GridTrial(point, standing(50, 40), reused=False) for point in plan.points]
    return [result_of(plan, tried, plan.points[2], trained(model=f"efficientnet_b{i}")) for i in (4, 5)]


def test_a_result_is_told_in_the_set_s_metric_with_its_standard_error(plan: TransferPlan) -> None:
    found = results(plan)[0]
    assert (found.metric, found.value, found.n, found.top1) == ("mean per class", pytest.approx(75.0), 14, 60.0)
    assert (found.train, found.classes) == (plan.shards.train, plan.shards.classes)
    assert found.standard_error == pytest.approx(100 * (11 / 64) ** 0.5 / 3)
    assert found.chosen == Point(lr_per_256=0.1, weight_decay=0.0)
    assert [row.value for row in found.grid] == [40.0] * 4
    assert (found.cost.jobs, found.jobs_found) == (5, 0)


def test_the_part_keeps_the_rows_of_earlier_commands_and_stands_beside_table_5(
    plan: TransferPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.tracking.runs.run_url", lambda run: f"http://mlflow/{run}")
    config = dataclasses.replace(plan.config, storage=f"file://{tmp_path}")
    first, second = results(plan)
    store.write_json(f"file://{tmp_path}/reports/laptop/transfer/of-another-version.json", {"network": "b0"})
    for command, result in (("effnet transfer a", first), ("effnet transfer b", second), ("effnet transfer c", second)):
        transfer._record(config, command, [plan], [result])
    transfer._record(config, "effnet transfer d", [plan], [JobError("a worker failed:\n  | at length")])
    part = store.read_json(f"file://{tmp_path}/reports/laptop/transfer.json")
    assert [(row["network"], row["command"]) for row in part["rows"]] == [
        ("efficientnet_b4", "effnet transfer a"),
        ("efficientnet_b5", "effnet transfer c"),
    ]
    assert part["command"] == "effnet transfer a; effnet transfer c"
    assert part["rows"][1]["paper"] is None
    assert part["rows"][0]["paper"] == {
        "value": 94.8,
        "params": 17_000_000,
        "multiply_adds": None,
        "source": "Table 5",
        "rival": {"name": "ResNet-152", "value": 94.5, "params": 58_000_000},
    }
    assert part["missing"][0] == "transfer b0 to made: a worker failed:"
    assert "Oxford-IIIT Pets: not fine-tuned here with Table 5's efficientnet_b6" in part["missing"]
    assert len(part["missing"]) == 1 + 8


def test_a_damaged_row_of_an_earlier_command_is_named_and_keeps_no_other_from_the_report(
    plan: TransferPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.tracking.runs.run_url", lambda run: f"http://mlflow/{run}")
    config = dataclasses.replace(plan.config, storage=f"file://{tmp_path}")
    folder = f"file://{tmp_path}/reports/laptop/transfer"
    store.write(f"{folder}/a.json", b"{")
    store.write_json(f"{folder}/b.json", {"format": transfer.FORMAT, "network": 3})
    transfer._record(config, "effnet transfer", [plan], [results(plan)[0]])
    part = store.read_json(f"file://{tmp_path}/reports/laptop/transfer.json")
    assert [row["network"] for row in part["rows"]] == ["efficientnet_b4"]
    assert part["missing"][0].startswith(f"{folder}/a.json: not JSON")
    assert part["missing"][1].startswith(f"{folder}/b.json does not hold")


def test_the_last_lines_of_a_command_tell_the_metric_with_its_error_and_how_it_was_chosen(plan: TransferPlan) -> None:
    lines = summary.describe_result(results(plan), plan.config)
    assert lines[0] == (
        "efficientnet_b4 on pets: 75.00 ± 13.82 % mean per class of 14 test images "
        "(kornblith: rate 0.1 per 256, decay 0, best of 4 points)"
    )
    assert len(lines) == 2


def test_the_last_lines_of_a_command_state_the_verdict_on_random_weights(plan: TransferPlan) -> None:
    lead = PairedTest(2.0, 1.0, 3.0, 0.04, n=14, seeds=3)
    start = RandomStart(tuned_top1=(60.0,), random_top1=(58.0,), lead=lead)
    first, second = (dataclasses.replace(result, random_start=start) for result in results(plan))
    said = "fine-tuned on pets {} training from random weights (+2.00 points, +1.00 to +3.00, p 0.04)"
    assert summary.describe_result([first], plan.config)[-1] == f"verdict    efficientnet_b4 {said.format('beats')}"
    both = summary.describe_result([first, second], plan.config)
    assert both[-1] == f"verdict    efficientnet_b5 {said.format('is not distinguished from')}"


def test_an_evaluation_is_told_in_the_set_s_metric_too() -> None:
    found = EvalResult("job", "b0/1", "pets", 85.71, 90.0, 14, (1, 3, 8), (2, 4, 8))
    [line] = summary.describe_result(found, compose.compose(["data=pets"]))
    assert line == "b0/1 on pets: top-1 85.71 %, top-5 90.00 % of 14 images; mean per class 75.00 ± 13.82 %"


def test_a_point_s_job_may_not_lose_the_recipe_of_the_protocol(plan: TransferPlan) -> None:
    job = point_job(plan, Point(0.05, 0.5), ("s3://w", "00"), None).job
    assert (job.recipe.lr_per_256, job.recipe.weight_decay, job.recipe.optimizer) == (0.05, 0.5, "sgd")
    assert job.augment == plan.config.transfer.data.augment
    assert isinstance(job, schema.Job)
