import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from serving import serving

from infra.errors import ConfigError, TransientError
from infra.tracking import client as mlflow_client
from infra.tracking import registry, rest, runs

pytestmark = pytest.mark.services
NAMES = {"train_loss": "train/loss", "minival_top1": "minival/top1", "images_per_s": "speed/images_per_s"}
NAMES |= {"decode_ms": "system/decode_ms"}


def start(key: str, **given: Any) -> str:
    return runs.start_run("tests", f"run {key}", key, **{"params": {}, "tags": {}, **given})


def client() -> Any:
    return mlflow_client.library().MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])


def row(epoch: int) -> dict[str, Any]:
    numbers = {"epoch": epoch, "train_loss": 1 / epoch, "minival_top1": 9.5, "images_per_s": 80, "decode_ms": "text"}
    return {"step": 62 * epoch, "time": 1.8e9 + epoch, **numbers, "note": "text is no metric"}


def history(run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client().get_metric_history(run_id, metric)]


def test_four_threads_that_ask_for_the_same_run_in_a_new_experiment_get_one_run(mlflow_uri):
    ask = functools.partial(runs.start_run, "race", "b0", "same", params={"a": 1}, tags={})
    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(lambda _: ask(), range(8)))
    assert len(ids) == 1
    experiment = client().get_experiment_by_name("race")
    assert [r.info.run_id for r in client().search_runs([experiment.experiment_id])] == [*ids]


def test_two_processes_that_both_created_the_run_agree_on_the_older_one(mlflow_uri, monkeypatch):
    first = start("two processes")
    find, calls = runs._find_run, []
    # The first look finds nothing, as if the other process had created its run just after it.
    monkeypatch.setattr(runs, "_find_run", lambda *a: calls.append(a) or (find(*a) if len(calls) > 1 else None))
    assert start("two processes") == first
    monkeypatch.undo()
    assert start("two processes") == first


def test_a_run_says_what_it_was_asked_to_do_and_where_it_belongs(mlflow_uri):
    parent = start("parent")
    params = {"recipe": {"epochs": 3, "deep": {"list": [1, 2]}}, "long": "x" * 7000} | {f"p{i}": i for i in range(120)}
    run = client().get_run(start("child", parent=parent, params=params, tags={"variant": "b0"}))
    assert run.info.run_name == "run child"
    assert run.data.params["recipe.epochs"] == "3"
    assert run.data.params["recipe.deep.list"] == "[1, 2]"
    assert len(run.data.params["long"]) == 6000
    assert run.data.params["p119"] == "119"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["variant"] == "b0"


def test_a_run_names_the_commit_of_the_code(mlflow_uri, monkeypatch):
    monkeypatch.setattr(runs.machine, "commit", lambda: "a" * 40)
    assert client().get_run(start("commit")).data.tags["mlflow.source.git.commit"] == "a" * 40


def test_a_run_names_the_verb_and_the_user_that_made_it(mlflow_uri, monkeypatch):
    monkeypatch.setenv("EFFNET_COMMAND", "effnet train model=b3 recipe.epochs=2")
    monkeypatch.setenv("LOGNAME", "somebody")
    tags = client().get_run(start("origin")).data.tags
    assert (tags["mlflow.source.name"], tags["mlflow.user"]) == ("effnet train", "somebody")
    assert tags["command"] == "effnet train model=b3 recipe.epochs=2"


def test_a_failed_run_runs_again_and_a_finished_one_stays_finished(mlflow_uri):
    run_id = start("again")
    for status, after in (("FAILED", "RUNNING"), ("KILLED", "RUNNING"), ("FINISHED", "FINISHED")):
        runs.finish_run(run_id, status, {})
        assert start("again", params={"added": 1}, tags={"attempt": status}) == run_id
        run = client().get_run(run_id)
        assert (run.info.status, run.data.tags["attempt"], run.data.params["added"]) == (after, status, "1")


def test_a_replay_after_a_crash_logs_no_epoch_twice(mlflow_uri):
    run_id, rows = start("replay"), [row(epoch) for epoch in range(1, 8)]
    for seen in (rows[:2], rows[:2], rows[:5], rows, rows):
        runs.log_rows(run_id, seen, NAMES)
    client().set_tag(run_id, runs.ROWS_TAG, "3")  # the server died after the metrics, before the tag
    runs.log_rows(run_id, rows, NAMES)
    assert history(run_id, "train/loss") == [(62 * e, pytest.approx(1 / e)) for e in range(1, 8)]
    run = client().get_run(run_id)
    assert run.data.tags[runs.ROWS_TAG] == "7"
    assert set(run.data.metrics) == {"train/loss", "minival/top1", "speed/images_per_s"}


def test_the_350_epochs_of_the_paper_are_logged_in_one_call(mlflow_uri):
    run_id = start("paper")
    runs.log_rows(run_id, [row(epoch) for epoch in range(1, 351)], NAMES)
    assert [step for step, _ in history(run_id, "minival/top1")] == [62 * e for e in range(1, 351)]


def test_a_run_is_finished_once_with_its_final_numbers(mlflow_uri):
    run_id = start("finish")
    for _ in range(2):
        runs.finish_run(run_id, "FINISHED", {"top1": 77.1, "diverged": float("nan")}, {"params": "7"})
    run = client().get_run(run_id)
    assert (run.info.status, run.data.metrics["top1"]) == ("FINISHED", 77.1)
    assert run.data.tags["params"] == "7"
    assert len(history(run_id, "top1")) == 1


def test_texts_and_files_lie_in_the_run(mlflow_uri, tmp_path):
    run_id = start("files")
    (tmp_path / "cam.txt").write_text("seen")
    for text in ("old", "new"):
        runs.log_text(run_id, text, "config.yaml")
    runs.log_file(run_id, tmp_path / "cam.txt", "cams")
    load = mlflow_client.library().artifacts.load_text
    assert load(f"runs:/{run_id}/config.yaml") == "new"
    assert load(f"runs:/{run_id}/cams/cam.txt") == "seen"
    assert (
        runs.run_url(run_id)
        == f"{mlflow_uri}/#/experiments/{client().get_run(run_id).info.experiment_id}/runs/{run_id}"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def every_call(tmp_path: Path) -> Iterator[Any]:
    yield lambda: start("down")
    yield lambda: runs.log_rows("0" * 32, [row(1)], NAMES)
    yield lambda: runs.finish_run("0" * 32, "FINISHED", {})
    yield lambda: runs.log_text("0" * 32, "text", "a.txt")
    yield lambda: registry.champion("b0")
    yield lambda: registry.fetch_weights("b0@champion", tmp_path)


def test_a_server_that_is_down_is_a_transient_error_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}/")
    for call in every_call(tmp_path):
        begun = time.monotonic()
        with pytest.raises(TransientError, match="does not answer: start it with `effnet up`"):
            call()
        assert time.monotonic() - begun < 15


def test_a_server_that_takes_the_call_and_never_answers_is_a_transient_error_too(monkeypatch):
    assert rest.PROBE_TIMEOUT_S < 15
    monkeypatch.setattr(rest, "PROBE_TIMEOUT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(TransientError, match="did not answer within 1 s"):
            start("silent")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(("status", "error"), [(401, ConfigError), (403, ConfigError), (503, TransientError)])
def test_a_refusal_is_a_persons_mistake_and_a_failure_is_not(monkeypatch, status, error):
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else status)
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, *_: Any) -> None:
            pass

    with serving(HTTPServer(("127.0.0.1", 0), Answers)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"):
            monkeypatch.delenv(name, raising=False)  # as a command does that connects to the embedded services
        begun = time.monotonic()
        with pytest.raises(error, match=str(status) if status < 500 else "fails"):
            start("refused")
        assert time.monotonic() - begun < 60, "MLflow's own retries take four minutes"


def test_a_password_in_the_address_is_refused_before_it_stands_in_a_log(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        start("password")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["sqlite:///runs.db", "databricks", "file:///runs"])
def test_an_address_that_is_not_that_of_a_server_is_refused(address, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ConfigError, match="must be the http:// or https:// address of a server"):
        start("no server")


def test_without_an_address_a_person_is_told_what_to_do(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="effnet up"):
        start("nowhere")


def test_importing_the_runs_does_not_import_mlflow_and_using_them_does_not_import_torch(mlflow_uri):
    script = """
import sys
from infra.tracking import registry, rest, runs
assert 'mlflow' not in sys.modules
runs.start_run('tests', 'light', 'light', params={}, tags={})
assert 'mlflow' in sys.modules and 'torch' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
