"""What a worker hands to its flow runs, and how a run's overrides come on top of it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf import compose
from flows import configure
from infra import machine
from infra.environment import cache_folder


def settings_of(*words: str) -> list[str]:
    environment = configure.worker_environment(compose.compose(words), words)
    return list(json.loads(environment[configure.VARIABLE]))


def test_a_run_s_overrides_win_over_its_worker_s_settings() -> None:
    merged = configure.merge(["storage=s3://a", "recipe.epochs=3"], ["recipe.epochs=1", "model=b3"])
    assert merged == ["storage=s3://a", "recipe.epochs=1", "model=b3"]


def test_another_data_set_does_not_get_the_path_of_the_worker_s() -> None:
    settings = ["data=imagenet", "data.path=/archives", "transfer.data.limit=9", "recipe.epochs=3"]
    assert configure.merge(settings, ["data=digits"]) == ["transfer.data.limit=9", "recipe.epochs=3", "data=digits"]
    assert configure.merge(settings, ["data@transfer.data=digits"])[:-1] == [*settings[:2], settings[3]]


def test_a_worker_in_another_folder_uses_the_run_folder_and_the_data_of_the_command_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it's, [odd] (1)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    settings = settings_of("data=folder", "data.path=images", "launch.nproc_per_node=3")
    monkeypatch.chdir("/")
    config = compose.compose(settings)
    assert (config.run_dir, config.data.path) == (str(folder / "runs"), str(folder / "images"))
    assert config.launch.nproc_per_node == 3


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data.class_file=names.txt", "data.class_file={here}/names.txt"),
        ("published.class_file=null", "published.class_file=null"),
        ("photographs.images=[a.jpg,s3://b/c.jpg]", "photographs.images=[{here}/a.jpg,s3://b/c.jpg]"),
        ("gate.weights=['a, b.pth',/c.pth]", "gate.weights=['{here}/a, b.pth',/c.pth]"),
        ("gate.weights=[]", "gate.weights=[]"),
        ("data.path=a-{{0..3}}.tar::b.tar::/c.tar", "data.path={here}/a-{{0..3}}.tar::{here}/b.tar::/c.tar"),
        ("data.path=there::it", "data.path={here}/there::it"),
    ],
)
def test_every_file_that_a_setting_names_is_the_same_for_a_worker_in_another_folder(
    word: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there::it").mkdir()
    word = word.format()
    assert configure.settings_of_worker_runs([word]) == [expected.format(here=tmp_path)]


def test_a_list_of_files_is_read_by_a_worker_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "it's, [odd] (1)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    settings = settings_of("photographs.images=[cat.jpg,'a, b.jpg']")
    assert compose.compose(settings).photographs.images == [str(folder / "cat.jpg"), str(folder / "a, b.jpg")]


def test_the_command_that_runs_in_mlflow_show_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.COMMAND, "")
    monkeypatch.setattr(configure, "_flow_name", lambda: "nightly")
    kept = [
        "nightly.alerts.late_minutes=9",
        "nightly.alerts.heartbeat=BEAT_URL",
        "services.database=postgresql://me@h/x",
    ]
    secret = [
        "nightly.alerts.webhook=https://hooks.example/S3CRET",
        "nightly.alerts={heartbeat: 'https://hc.example/S3CRET'}",
        "services.mlflow=https://me:S3CRET@mlflow.example",
    ]
    config, _ = configure.configure([*kept, *secret[::2]])
    assert config.nightly.alerts.webhook == "https://hooks.example/S3CRET"
    shown = [*kept, "'services.mlflow=https://***@mlflow.example'"]
    assert os.environ[machine.COMMAND] == f"effnet nightly {' '.join(shown)}"
    configure.configure([kept[2], secret[1]])
    assert os.environ[machine.COMMAND] == f"effnet nightly {kept[2]}"


def test_a_command_that_is_no_up_hands_only_places_to_the_worker() -> None:
    words = ["recipe.epochs=1", "storage=s3://a", "services.s3=aws", "model=b3"]
    assert configure.select_places(words) == ["storage=s3://a", "services.s3=aws"]


def test_only_a_flow_run_of_a_deployment_takes_the_settings_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(configure.VARIABLE, json.dumps(["data.limit=9", "services.s3=aws", "run_dir=/there"]))
    monkeypatch.setattr(configure, "deployment_run", lambda: SimpleNamespace())
    assert configure.settings_of_this_run() == ["data.limit=9", "services.s3=aws", "run_dir=/there"]
    monkeypatch.setattr(configure, "deployment_run", lambda: None)  # in a terminal
    assert configure.settings_of_this_run() == []


def test_a_flow_run_on_a_worker_has_its_caches_where_its_jobs_have_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(configure, "deployment_run", lambda: SimpleNamespace())
    monkeypatch.setenv(configure.VARIABLE, json.dumps([f"run_dir={tmp_path}"]))
    monkeypatch.setenv("EFFNET_CACHE", "")
    configure.configure([])
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("EFFNET_CACHE", "/scratch")
    configure.configure([])
    assert cache_folder() == Path("/scratch")
