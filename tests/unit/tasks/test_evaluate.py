"""Which stored evaluations are intact, and the input of a registered version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conf import schema
from infra import store
from infra.errors import ArtifactError
from models.training import per_image
from tasks.evaluate import intact_result, with_input
from tasks.jobs import JobRun


def test_an_evaluation_that_no_longer_says_which_images_were_right_is_made_again(tmp_path: Path) -> None:
    job_uri = f"file://{tmp_path}"
    run = JobRun(schema.Job(kind="evaluate"), "key", job_uri, "label")
    result = {"class_total": [120], "correct_sha256": per_image.write(job_uri, np.arange(120) < 7)}
    store.write_json(f"{job_uri}/result.json", result)
    assert intact_result(run) == result
    assert store.exists(f"{job_uri}/result.json")
    (tmp_path / per_image.VAL_CORRECT).write_bytes(b"damaged")
    assert intact_result(run) is None
    assert not store.exists(f"{job_uri}/result.json")
    store.write_json(f"{job_uri}/result.json", {"class_total": [120]})  # from before there were bits
    assert intact_result(run) is None
    assert not store.exists(f"{job_uri}/result.json")


PROFILE = schema.Augment(eval_crop_pad=0)


def test_the_registered_input_replaces_the_profile_s_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    registered = {"input": {"crop_pad": 32, "interpolation": "bilinear"}}
    with caplog.at_level("INFO", "effnet"):
        changed = with_input(PROFILE, registered, "b0/1", "data.augment", ["data.path=/x"])
    assert changed == schema.Augment(eval_crop_pad=32, eval_interpolation="bilinear")
    assert "b0/1 was registered with eval_crop_pad 32, which is used instead of 0; data.augment" in caplog.text
    assert "eval_interpolation bilinear, which is used instead of bicubic" in caplog.text
    assert with_input(PROFILE, {"input": {"crop_pad": 0}}, "b0/1", "data.augment", []) == PROFILE
    squashed = with_input(PROFILE, {"input": {"crop_pad": 0, "crop_mode": "squash"}}, "b5/1", "data.augment", [])
    assert squashed == schema.Augment(eval_crop_pad=0, eval_crop_mode="squash")


@pytest.mark.parametrize("word", ["transfer.data.augment.eval_crop_pad=0", "transfer.data.augment={eval_crop_pad:0}"])
def test_what_the_command_sets_remains_and_is_logged(word: str, caplog: pytest.LogCaptureFixture) -> None:
    registered = {"input": {"crop_pad": 32, "interpolation": "bilinear"}}
    with caplog.at_level("INFO", "effnet"):
        changed = with_input(PROFILE, registered, "b0/1", "transfer.data.augment", [word])
    assert changed == schema.Augment(eval_crop_pad=0, eval_interpolation="bilinear")
    assert "registered with eval_crop_pad 32; transfer.data.augment.eval_crop_pad=0 replaces it" in caplog.text


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"input": None},
        {"input": {"crop_pad": "wide"}},
        {"input": {"crop_pad": 1, "interpolation": "x"}},
        {"input": {"crop_pad": 1, "crop_mode": "x"}},
    ],
)
def test_a_description_without_a_crop_is_refused(description: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match=r"b0/1: its config.json states no evaluation crop"):
        with_input(PROFILE, description, "b0/1", "data.augment", [])
