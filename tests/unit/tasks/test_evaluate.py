"""Which stored evaluations are intact, and the crop of a registered version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conf import compose, schema
from infra import store
from infra.errors import ArtifactError
from models.training import per_image
from tasks.evaluate import intact_result, with_crop
from tasks.jobs import JobRun


def test_an_evaluation_that_no_longer_says_which_images_were_right_is_made_again(tmp_path: Path) -> None:
    job_uri = f"file://{tmp_path}"
    run = JobRun(schema.Job(kind="evaluate"), "key", job_uri, "label")
    result = {"class_total": [120], "correct_sha256": per_image.write(job_uri, np.arange(120) < 7)}
    store.write_json(f"{job_uri}/result.json", result)
    assert intact_result(run) == {"minutes": 0.0, **result}
    assert store.exists(f"{job_uri}/result.json")
    (tmp_path / per_image.VAL_CORRECT).write_bytes(b"damaged")
    assert intact_result(run) is None
    assert not store.exists(f"{job_uri}/result.json")
    store.write_json(f"{job_uri}/result.json", {"class_total": [120]})  # from before there were bits
    assert intact_result(run) is None
    assert not store.exists(f"{job_uri}/result.json")


def test_the_crop_of_the_registered_version_replaces_the_profile_s_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = compose.compose(["data=digits", "data.augment.eval_crop_pad=0"])
    with caplog.at_level("INFO", "effnet"):
        changed = with_crop(config, {"input": {"crop_pad": 32}}, "b0/1")
    assert (changed.data.augment.eval_crop_pad, config.data.augment.eval_crop_pad) == (32, 0)
    assert "b0/1 was registered with eval_crop_pad 32, which is used instead of 0" in caplog.text
    assert with_crop(config, {"input": {"crop_pad": 0}}, "b0/1") == config


@pytest.mark.parametrize("description", [{}, {"input": None}, {"input": {"crop_pad": "wide"}}])
def test_a_description_without_a_crop_is_refused(description: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match=r"b0/1: its config.json states no evaluation crop"):
        with_crop(compose.compose(["data=digits"]), description, "b0/1")
