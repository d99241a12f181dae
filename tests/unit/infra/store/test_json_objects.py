"""JSON that is read back: whatever lies there, the reader gets what it needs or one line that names the place."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_parts
import pytest

from conf import compose, schema
from infra import store
from infra.errors import ArtifactError, ConfigError, DataError
from infra.services import keys, ports, processes, stack
from infra.store.json_objects import NUMBER, check_object, read_lines, read_object
from infra.tracking import registry
from models.results import EvalResult, TrainResult, result_from
from tasks import jobs, supervise, train, transfer
from tasks.registry import register
from tasks.report import publish
from tasks.report import results as report_results

NO_OBJECTS = {"[]": "a list", "3": "a number", "null": "null", '"x"': "a string", "true": "true or false"}
RESULT = {
    "job": "train-b0-x-1",
    "job_uri": "file:///j",
    "model": "efficientnet_b0",
    "params": 1,
    "multiply_adds": 2,
    "resolution": 32,
    "classes": 2,
    "epochs": 1,
    "steps": 2,
    "top1": 50,
    "top5": 100.0,
    "n_val": 4,
    "minival_top1": 0.0,
    "n_minival": 0,
    "minutes": 0.1,
    "images_per_s": 9.5,
    "weights_uri": "file:///w",
    "weights_sha256": "00",
    "class_correct": [1, 1],
    "class_total": [2, 2],
}


def put(tmp_path: Path, name: str, text: str) -> str:
    uri = f"file://{tmp_path}/{name}"
    store.write(uri, text.encode())
    return uri


@pytest.mark.parametrize(("text", "title"), NO_OBJECTS.items())
def test_json_that_is_no_object_is_named_with_its_place(tmp_path: Path, text: str, title: str) -> None:
    uri = put(tmp_path, "x.json", text)
    with pytest.raises(DataError) as caught:
        read_object(uri)
    assert str(caught.value) == f"{uri} does not hold a JSON object but {title}"


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({}, "does not hold the key 'step'"),
        ({"step": "7"}, "does not hold a number as 'step' but '7'"),
        ({"step": None}, "a number as 'step' but null"),
        ({"step": True}, "a number as 'step' but 'True'"),
        ({"step": [1]}, "a number as 'step'"),
        ({"step": 1}, "does not hold the key 'name'"),
        ({"step": 1.5, "name": 3}, "does not hold a string as 'name' but '3'"),
    ],
)
def test_a_key_that_is_missing_or_of_another_type_is_named(held: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_object("s3://b/x.json", held, step=NUMBER, name=str)
    whole = {"step": 1, "name": "x", "more": []}
    assert check_object("s3://b/x.json", whole, step=NUMBER, name=str) == whole


def test_a_bad_line_is_named_by_its_number(tmp_path: Path) -> None:
    uri = put(tmp_path, "metrics.jsonl", '{"step": 1}\n[]\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2, does not hold a JSON object but a list"):
        read_lines(uri)
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1, does not hold the key 'time'"):
        read_lines(uri, time=NUMBER)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": \x00}', "NaN}"])
def test_what_is_no_json_is_a_data_error_too(tmp_path: Path, text: str) -> None:
    for read in (read_object, read_lines):
        uri = put(tmp_path, "x.json", text or "\n")
        with pytest.raises(DataError, match="not JSON"):
            read(uri)


def config_of(tmp_path: Path) -> schema.Config:
    return compose.compose([f"storage=file://{tmp_path}", f"run_dir={tmp_path}/runs"])


@pytest.mark.parametrize("text", NO_OBJECTS)
def test_a_summary_that_is_no_object_is_one_line_and_a_part_of_the_report_a_line_on_it(
    tmp_path: Path, text: str
) -> None:
    config = config_of(tmp_path)
    summary = put(tmp_path, "reports/laptop/summary.json", text)
    with pytest.raises(DataError, match=r"summary\.json does not hold a JSON object"):
        publish.render_again(config)
    store.delete(summary)
    put(tmp_path, "reports/laptop/scaling.json", text)
    [problem] = report_results.load_parts(config)["scaling"].problems
    assert "scaling.json does not hold a JSON object" in problem
    put(tmp_path, "reports/laptop/transfer/row.json", text)
    transfer.publish_transfer(config, [])
    assert "row.json does not hold a JSON object" in report_results.load_parts(config)["transfer"].result.missing[0]


def test_a_row_of_the_transfer_part_without_its_keys_is_a_line_on_the_report(tmp_path: Path) -> None:
    row = {key: value for key, value in made_parts.transfer()["rows"][0].items() if key != "network"}
    put(tmp_path, "reports/laptop/transfer/row.json", json.dumps(row | {"format": transfer.FORMAT}))
    config = config_of(tmp_path)
    transfer.publish_transfer(config, [])
    [part] = report_results.load_parts(config).values()
    assert "row.json does not hold the key 'network'" in part.result.missing[0]


def job_run(tmp_path: Path) -> jobs.JobRun:
    return jobs.JobRun(schema.Job(kind="train"), "train-b0-x-1", f"file://{tmp_path}/jobs/1", "train b0")


@pytest.mark.parametrize("text", NO_OBJECTS)
def test_a_result_that_is_no_object_is_one_line(tmp_path: Path, text: str) -> None:
    put(tmp_path, "jobs/1/result.json", text)
    with pytest.raises(DataError, match=r"jobs/1/result\.json does not hold a JSON object"):
        jobs.stored_result(job_run(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top1": None}, "a number as 'top1'"),
        ({"n_val": 4.5}, "a number as 'n_val'"),
        ({"extra": 1}, "the key 'extra'"),
        ({"class_total": [1, "2"]}, r"a number as 'class_total\[1\]' but '2'"),
        ({"class_total": 3}, "a list as 'class_total'"),
        ({"weights_uri": 3}, "a string as 'weights_uri'"),
        ({"compiled": 1}, "true or false as 'compiled'"),
    ],
)
def test_a_result_with_other_fields_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        result_from(TrainResult, RESULT | change, "s3://b/result.json")
    with pytest.raises(DataError, match="does not hold the key 'params'"):
        result_from(TrainResult, {k: v for k, v in RESULT.items() if k != "params"}, "s3://b/result.json")


def test_a_whole_result_is_taken_as_it_is() -> None:
    stored = json.loads(json.dumps(asdict(result_from(TrainResult, RESULT, "s3://b/r"))))
    assert stored.items() >= RESULT.items()
    scored = {"job": "j", "model_ref": "b0/1", "data": "x", "top1": 1.0, "top5": 2.0, "n": 3}
    assert result_from(EvalResult, scored, "s3://b/r") == EvalResult("j", "b0/1", "x", 1.0, 2.0, 3)


STATUS = {"epoch": 1, "epochs": 2, "step": 3, "steps": 4, "loss": 1.5, "images_per_s": 10.0, "eta_s": 5.0}


@pytest.mark.parametrize(
    "text",
    [
        *NO_OBJECTS,
        '{"step": 1}',
        json.dumps(STATUS | {"eta_s": "soon"}),
        json.dumps(STATUS | {"resumed_at": "x"}),
        json.dumps(STATUS | {"minival_top1": []}),
        json.dumps(STATUS | {"data_wait": None}),
        "{",
    ],
)
def test_a_damaged_status_is_no_sign_of_life_and_no_end_of_the_watch(tmp_path: Path, text: str) -> None:
    watch = supervise._Watch(job_run(tmp_path), schema.Launch(), "")
    put(tmp_path, "jobs/1/status.json", json.dumps(STATUS))
    watch.poll_status()
    seen_at = watch.changed_at
    put(tmp_path, "jobs/1/status.json", text)
    watch.poll_status()
    assert (watch.last, watch.changed_at) == (STATUS, seen_at)


@pytest.mark.parametrize("eta_s", [float("inf"), float("nan"), 5.0])
def test_a_status_without_an_estimate_has_a_line_all_the_same(eta_s: float) -> None:
    assert supervise.progress_line("train b0", STATUS | {"eta_s": eta_s}).endswith(" left")


@pytest.mark.parametrize("text", [*NO_OBJECTS, "{"])
def test_a_damaged_object_at_a_job_s_end_leaves_the_exit_code_to_decide(tmp_path: Path, text: str) -> None:
    assert supervise._read_object_or_empty(put(tmp_path, "failure.json", text)) == {}


@pytest.mark.parametrize(
    "text", ["[]\n", '{"epoch": 1}\n', "\n", '{"epoch": 99, "minival_top1": 1, "minival_mean_per_class": 1}\n']
)
def test_a_log_of_epochs_that_does_not_fit_is_one_line(tmp_path: Path, text: str) -> None:
    put(tmp_path, "jobs/1/metrics.jsonl", text)
    run = jobs.JobRun(schema.Job(recipe=schema.Recipe(epochs=2)), "k", f"file://{tmp_path}/jobs/1", "l")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        train._last_row(run)


def test_a_registered_description_that_is_none_is_an_artifact_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = SimpleNamespace(name="b0", version=1, tags={registry.WEIGHTS_TAG: "00", registry.CONFIG_TAG: "00"})
    monkeypatch.setattr(registry, "resolve_version", lambda _: version)
    for text, message in {"[]": "does not hold a JSON object", "{": "is not JSON"}.items():
        monkeypatch.setattr(registry, "_fetch", lambda _uri, _sha, path, text=text: path.write_text(text))
        with pytest.raises(ArtifactError, match=message):
            registry.fetch_weights("b0/1", tmp_path)
    put(tmp_path, "weights/00.safetensors", "")
    for described in ({}, {"model": 3}, {"model": {"name": "../x"}}, {"model": {"width": "wide"}}):
        monkeypatch.setattr(registry, "describe", lambda _, described=described: described)
        with pytest.raises(ArtifactError, match=r"b0/1: its config\.json does not describe a network"):
            register._fetch("b0/1", f"file://{tmp_path}")


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"access_key": 3}', '{"access_key": ""}', "{", "[" * 100_000])
def test_keys_of_the_services_that_are_none_are_refused_where_they_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_text(text)
    with pytest.raises(ConfigError, match=r"credentials\.json is damaged; delete it, new keys will be made"):
        keys.credentials(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"access_key": "a"}'])
def test_keys_that_an_older_version_did_not_know_are_made_and_the_others_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_text(text)
    made = keys.credentials(tmp_path)
    assert made == made | json.loads(text)
    assert all(made.values())
    assert len(made) == len(keys.credentials(tmp_path)) > 5


def test_keys_that_were_made_are_read_again(tmp_path: Path) -> None:
    assert keys.credentials(tmp_path) == keys.credentials(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        *NO_OBJECTS,
        "{}",
        '{"ports": []}',
        '{"ports": {"s3": 1}}',
        "[" * 100_000,
        json.dumps({"ports": ports.PREFERRED | {"s3": "8333"}}),
        json.dumps({"ports": ports.PREFERRED | {"s3": 99999}}),
    ],
)
def test_damaged_ports_are_chosen_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert stack._chosen_ports(tmp_path) == {}
    (tmp_path / "state.json").write_text(json.dumps({"ports": ports.PREFERRED}))
    assert stack._chosen_ports(tmp_path) == ports.PREFERRED


@pytest.mark.parametrize(
    "text",
    [
        *NO_OBJECTS,
        "{}",
        '{"pid": "1", "born": "x"}',
        '{"pid": -1, "born": "x"}',
        '{"pid": true, "born": "x"}',
        '{"pid": 1.5, "born": "x"}',
        '{"pid": OURS, "born": 5}',
        "[" * 100_000,
    ],
)
def test_a_note_of_a_process_that_is_none_means_that_nothing_runs(tmp_path: Path, text: str) -> None:
    (tmp_path / "s3.process.json").write_text(text.replace("OURS", str(os.getpid())))
    assert processes.running(tmp_path, "s3") is None
    assert processes.stop(tmp_path, ["s3"]) == []


@pytest.mark.parametrize(
    "text",
    [
        *NO_OBJECTS,
        '{"x": {}}',
        '{"x": []}',
        '{"x": {"at": "now", "ports": []}}',
        '{"x": {"at": 1e12, "ports": 3}}',
        '{"x": {"at": 1e12, "ports": ["a"]}}',
        "",
        "{",
        "[" * 100_000,
    ],
)
def test_claims_of_ports_that_another_user_wrote_end_no_command(text: str) -> None:
    assert ports._fresh_claims(text) == {}
