"""Which stored evaluations are intact, and the input of a registered version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conf import compose, schema
from infra import store
from infra.errors import ArtifactError
from infra.tracking import cards, registry, runs
from infra.tracking.registry import Version
from models.results import EvalResult
from models.training import per_image
from tasks import evaluate
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


@pytest.mark.parametrize(
    ("words", "is_tagged"), [([], True), (["data.limit=9"], False), (["data.leave_out=[x]"], False)]
)
def test_a_version_is_tagged_with_its_accuracy_on_a_whole_data_set_only(
    words: list[str], is_tagged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags: dict[str, str] = {}
    version = Version("b0", 1, "", (), {registry.WEIGHTS_TAG: "1", "dataset": "digits"})
    monkeypatch.setattr(registry, "resolve_version", lambda _: version)
    monkeypatch.setattr(registry, "set_tags", lambda _name, _version, new: tags.update(new))
    monkeypatch.setattr(registry, "version_url", lambda *_: "")
    monkeypatch.setattr(runs, "start_run", lambda *_, **__: "run")
    for module, name in ((runs, "finish_run"), (cards, "log_evaluation")):
        monkeypatch.setattr(module, name, lambda *_: None)
    config = compose.compose(words)
    job = schema.Job("evaluate", data_name="pets", leave_out=config.data.leave_out)
    result = EvalResult(job="", model_ref="b0/1", data="pets", n=100, top1=50.0, top5=90.0)
    evaluate._record_evaluation(JobRun(job, "evaluate-1", "file:///jobs/evaluate-1", ""), config, result)
    assert tags == ({"top1.pets": "50.00", "ci95.pets": "9.80"} if is_tagged else {})
