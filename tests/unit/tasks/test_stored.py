"""What the object store holds is subtracted from the plan of a command."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import growing_folder
import pytest
from matrix import with_slow_rest

from conf import compose, schema
from flows.__main__ import main
from infra import store
from models.data.shards.stored import find_result
from models.data.sources import listing
from models.experiments import transfer as protocol
from models.experiments.grid_search import grid_points, screen
from models.networks.packaged import FrozenNetwork
from models.results import ShardResult
from tasks import shard
from tasks.dry_run import describe_training
from tasks.experiments.scaling import point_config
from tasks.experiments.search import trial_config
from tasks.jobs import JobRun, features_request, features_uri, result_uri, train_job, transfer_job
from tasks.plan import exceeded_budget, time_left

WEIGHTS = ("file:///weights", "1" * 64)
DIGITS = ["data=digits", "data.limit=400", "transfer.data.limit=400"]  # as many as the plans need to have jobs


@pytest.fixture(autouse=True)
def no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)


def write_shards(data: schema.Data, storage: str) -> ShardResult:
    planned = shard._plan(data, storage)
    for numbers in planned.groups:
        shard._write_group(data, planned.root, numbers)
    return shard._write_manifest(data, planned.root)


def finish(run: JobRun) -> None:
    """Writes the result of a job, as its trainer does at the end."""
    store.write_json(result_uri(run), {"weights_uri": WEIGHTS[0], "weights_sha256": WEIGHTS[1]})


def planned_rows(capsys: pytest.CaptureFixture[str], verb: str, *words: str) -> tuple[str, dict[str, list[str]]]:
    """The heading of the plan, and by name the numbers of jobs that are left and stored."""
    assert main(["plan", verb, *words]) == 0
    shown = capsys.readouterr().out.splitlines()
    heading = next(line for line in shown if line.startswith("training of"))
    return heading, {line[:27].strip(): line[27:].split()[:2] for line in shown if line[27:33].strip().isdigit()}


def test_trainings_whose_results_are_stored_are_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DIGITS, "search.seeds=2", f"storage=file://{tmp_path}/store", f"run_dir={tmp_path}/runs"]
    config = compose.compose(words)
    heading, rows = planned_rows(capsys, "search", *words)
    assert heading == "training of effnet search, as if nothing were done yet"
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"

    shards = write_shards(config.data, config.storage)
    assert find_result(config.data, config.storage) == replace(shards, reused=True)
    points = screen(config.search, config.model, grid_points(config.search), shards.classes).points
    jobs = 2 * len(points)
    for seed in (0, 1):
        trial = trial_config(config, points[0], seed)
        finish(train_job(trial, config.data, trial.recipe, shards, None))
    heading, rows = planned_rows(capsys, "search", *words)
    assert heading == f"training of effnet search, without 2 of {jobs} jobs, which are stored"
    assert rows == {"grid search": [str(jobs - 2), "2"]}

    heading, rows = planned_rows(capsys, "search", *words, "data.seed=7")
    assert rows == {"grid search": [str(jobs), "0"]}, "another split is another training"


@pytest.mark.parametrize(
    ("protocol_words", "finals"),
    with_slow_rest(
        [
            ([], 1),
            (
                [
                    "transfer.lr_per_256=[0.1,0.2,0.3,0.4]",
                    "transfer.weight_decay=[0.0001]",
                    "transfer.rungs=[0.5]",
                    "transfer.keep=0.5",
                ],
                2,
            ),
            (
                [
                    "transfer.lr_per_256=[0.1,0.2]",
                    "transfer.weight_decay=[0.0001]",
                    "transfer.final_split=train+minival",
                ],
                1,
            ),
        ]
    ),
)
def test_a_fine_tuning_is_stored_if_its_source_and_all_that_train_to_the_end_are(
    protocol_words: list[str], finals: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*(*DIGITS, *protocol_words), *(f"storage=file://{tmp_path}/store", f"run_dir={tmp_path}/runs")]
    config = compose.compose(words)
    shards = write_shards(config.data, config.storage)
    tuned = write_shards(config.transfer.data, config.storage)
    points = protocol.grid(config.transfer)
    assert finals == protocol.count_final_jobs(config.transfer, tuned.train)
    for point in points[:finals]:
        finish(transfer_job(config, tuned, point, WEIGHTS))
    _, rows = planned_rows(capsys, "transfer", *words)
    assert {row[1] for row in rows.values()} == {"0"}, "the weights of the source are unknown"

    finish(train_job(config, config.data, config.recipe, shards, None))
    _, rows = planned_rows(capsys, "transfer", *words)
    assert {row[0] for row in rows.values()} == {"0"}

    store.delete(result_uri(transfer_job(config, tuned, points[finals - 1], WEIGHTS)))
    _, rows = planned_rows(capsys, "transfer", *words)
    assert [row[1] for row in rows.values()] == ["1", "0"]


@pytest.mark.slow
def test_a_fine_tuning_with_seeds_is_stored_if_all_seeds_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*DIGITS, "transfer.random_seeds=2", f"storage=file://{tmp_path}/store", f"run_dir={tmp_path}/runs"]
    config = compose.compose(words)
    shards = write_shards(config.data, config.storage)
    tuned = write_shards(config.transfer.data, config.storage)
    finish(train_job(config, config.data, config.recipe, shards, None))
    (point,) = protocol.grid(config.transfer)
    jobs = [transfer_job(config, tuned, point, start, seed=seed) for start in (WEIGHTS, None) for seed in (0, 1)]
    for job in jobs:
        _, rows = planned_rows(capsys, "transfer", *words)
        assert rows["transfer efficientnet_b0"] == ["4", "0"]
        finish(job)
    _, rows = planned_rows(capsys, "transfer", *words)
    assert rows["transfer efficientnet_b0"] == ["0", "4"]


@pytest.mark.slow
def test_trainings_of_all_folds_are_found_in_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *(*DIGITS, "data.folds=2", "data.val_share=0.5", "scaling.seeds=3"),
        *("scaling.points=[{network:efficientnet_b0}]", f"storage=file://{tmp_path}/store", f"run_dir={tmp_path}/runs"),
    ]
    config = compose.compose(words)
    for seed in range(3):
        _, rows = planned_rows(capsys, "scaling", *words)
        assert rows["scaling study"] == [str(3 - seed), str(seed)]
        trial = point_config(config, config.scaling.points[0], seed)
        shards = write_shards(trial.data, config.storage)
        finish(train_job(trial, trial.data, trial.recipe, shards, None))
    _, rows = planned_rows(capsys, "scaling", *words)
    assert rows["scaling study"] == ["0", "3"]


@pytest.mark.slow
def test_answers_by_frozen_features_are_subtracted_and_what_is_counted_whole_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile=study", *DIGITS, f"storage=file://{tmp_path}/store", f"run_dir={tmp_path}/runs"]
    config = compose.compose(words)
    folds = [write_shards(config.data.for_seed(fold), config.storage) for fold in range(3)]
    _, rows = planned_rows(capsys, "study", *words)
    networks = len(config.linear.networks) * (3 + config.linear.seeds)
    assert rows["frozen features"] == [str(networks), "0"]
    for seed, fold in ((None, 1), (2, 2)):
        request = features_request(config, folds[fold], FrozenNetwork(config.linear.networks[0], seed))
        store.write_json(features_uri(config, request), {"correct": "1", "majority": 50.0, "request": request})
    assert main(["plan", "study", *words]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"\nfrozen features +{networks - 2} +2 ", shown)
    public = " and ".join(f"transfer efficientnet_lite{size}" for size in (0, 1, 2))
    assert f"\n{public} and architecture search: counted whole, stored results are found" in shown


def test_a_plan_says_that_it_could_not_look_into_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "train", "data=digits", f"run_dir={tmp_path}/runs"]) == 0
    shown = capsys.readouterr().out
    assert "\nstored results are unknown: the object store is not running" in shown
    assert main(["plan", "nightly", f"run_dir={tmp_path}/runs"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("unknown: the champion that the night continues and its new data, since MLflow and the ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_folder_is_counted_once_it_is_sharded_and_its_stored_trainings_are_subtracted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    growing_folder.add(tmp_path / "images", 0, 200)
    places = [f"storage=file://{tmp_path}/store", f"run_dir={tmp_path}/runs"]
    words = ["data=folder", "data.name=pets", f"data.path={tmp_path}/images", *places]
    config = compose.compose(words)
    assert main(["plan", "train", *words]) == 0
    assert "pets: the number of its images is known once it is sharded (effnet shard)" in capsys.readouterr().out
    assert "cannot be compared with its budget" in exceeded_budget(
        compose.compose([*words, "budget.hours=1"]), words, "train"
    )

    shards = growing_folder.shard(config.data, config.storage)
    monkeypatch.setattr(listing, "with_content", lambda _: pytest.fail("read the images"))
    assert main(["plan", "train", *words]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("pets: 2 classes\n")
    steps = config.recipe.epochs * (shards.train // config.recipe.global_batch)
    assert re.search(rf"\ntrain efficientnet_b0 +1 +0 +{steps} ", shown)
    assert exceeded_budget(compose.compose([*words, "budget.hours=1"]), words, "train") == ""
    assert "exceed budget.hours" in exceeded_budget(compose.compose([*words, "budget.hours=0.000001"]), words, "train")

    job = train_job(config, config.data, config.recipe, shards, None)
    finish(job)
    _, rows = planned_rows(capsys, "train", *words)
    assert rows == {"train efficientnet_b0": ["0", "1"]}
    assert describe_training(config).key == job.key
    left = time_left(config, words, "train", [])

    growing_folder.add(tmp_path / "images", 200, 201)
    assert main(["plan", "train", *words]) == 0
    shown = capsys.readouterr().out
    assert "\npets: counted as it was sharded last, its files have changed since\n" in shown
    assert re.search(rf"\ntrain efficientnet_b0 +1 +0 +{steps} ", shown), "the job of the new images is not stored"
    assert time_left(config, words, "train", []) == left, "a command that runs trains on what it was started on"
