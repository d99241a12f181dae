"""Real torchrun jobs of transfer learning: rungs that change no bit, training on minival too, counts by class."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
from training_rig import End, Rig, finish, make_rig, with_recipe

from conf import compose, schema
from infra import store
from infra.launch import local

pytestmark = pytest.mark.torchrun
EPOCH = 32  # steps


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("transfer")
    made = make_rig(f"file://{folder}/store", folder)
    return dataclasses.replace(made, job=kornblith(made.job))


def kornblith(job: schema.Job) -> schema.Job:
    """The job under the kind of recipe that fine-tunes: SGD, a cosine, weights that are not averaged."""
    return with_recipe(
        job,
        optimizer="sgd",
        schedule="cosine",
        lr_per_256=0.1,
        warmup_epochs=0.0,
        ema_decay=0.0,
        label_smoothing=0.0,
        checkpoint_every_steps=None,
        epochs=2,
    )


@pytest.fixture(scope="module")
def undisturbed(rig: Rig) -> End:
    end = rig.run("undisturbed")
    assert end.code == 0, end.tail
    return end


def rows(end: End) -> list[dict[str, float]]:
    """The epochs of the trainer's metrics, without what depends on the clock."""
    lines = (json.loads(line) for line in store.read(f"{end.job_uri}/metrics.jsonl").splitlines())
    found = [row for row in lines if "train_loss" not in row]
    return [
        {k: v for k, v in row.items() if k in ("step", "epoch", "learning_rate") or "minival" in k} for row in found
    ]


@pytest.mark.slow
def test_a_job_that_ends_at_a_rung_goes_on_to_the_bits_of_one_that_never_stopped(rig: Rig, undisturbed: End) -> None:
    stopped = rig.run("rungs", dataclasses.replace(rig.job, until_epoch=1))
    assert (stopped.code, stopped.object("status.json")["state"]) == (0, "done"), stopped.tail
    assert stopped.object("until-00001.json") == {"epochs": 1, "steps": EPOCH}
    assert stopped.object("result.json") == {}
    assert stopped.steps_saved() == [EPOCH]
    assert rows(stopped) == rows(undisturbed)[:1]
    end = rig.run("rungs")
    assert end.code == 0, end.tail
    assert end.object("status.json")["resumed_at"] == EPOCH
    assert end.sha256 == undisturbed.sha256
    assert rows(end) == rows(undisturbed)
    assert end.object("result.json")["class_correct"] == undisturbed.object("result.json")["class_correct"]


@pytest.mark.slow
def test_counts_by_class_are_the_same_on_one_process_and_on_two(rig: Rig, undisturbed: End) -> None:
    trained = undisturbed.object("result.json")
    labels = np.arange(2048 + 64, 2048 + 64 + 70) % 10
    assert trained["class_total"] == np.bincount(labels, minlength=10).tolist()
    assert trained["top1"] == 100 * sum(trained["class_correct"]) / 70
    asked = dataclasses.replace(rig.job, kind="evaluate", init_weights_uri=trained["weights_uri"])
    job_uri = f"{rig.storage}/jobs/evaluate"
    command, _ = rig.command("evaluate", ranks=1)
    argv = ["models.evaluate" if word == "models.train" else word for word in command.argv]
    store.write(f"{job_uri}/config.yaml", compose.to_yaml(asked).encode())
    end = finish(local.start(dataclasses.replace(command, argv=argv)), job_uri, time.monotonic())
    assert end.code == 0, end.tail
    keys = ("top1", "top5", "class_correct", "class_total")
    assert {key: end.object("result.json")[key] for key in keys} == {key: trained[key] for key in keys}


@pytest.mark.slow
def test_a_job_on_train_and_minival_reads_both_chooses_nothing_and_keeps_the_last_weights(
    rig: Rig, undisturbed: End
) -> None:
    end = rig.run("both", with_recipe(dataclasses.replace(rig.job, split="train+minival"), epochs=1))
    assert end.code == 0, end.tail
    result = end.object("result.json")
    assert (result["steps"], result["n_minival"], result["minival_top1"]) == ((2048 + 64) // 64, 0, 0.0)
    read = [i for line in end.ledger for shard in line["ids"] for i in shard]
    assert sorted(read) == list(range(2048 + 64))
    assert [set(row) for row in rows(end)] == [{"step", "epoch", "learning_rate"}]
    assert result["weights_sha256"] != undisturbed.object("result.json")["weights_sha256"]
    assert sum(result["class_total"]) == result["n_val"] == 70
