"""The verbs that read the registry and the runs, on a real MLflow: models, runs, logs, diff."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.__main__ import main
from infra import store
from infra.tracking import client, runs

pytestmark = pytest.mark.services
SIZES = {"params": "126822", "multiply_adds": "359792", "resolution": "24"}


@pytest.fixture(autouse=True)
def no_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)


@pytest.fixture(scope="module")
def words(mlflow_uri: str, services_dir: Path) -> list[str]:
    """Settings that lead to the services; three versions of two models, and two finished jobs, exist there."""
    assert mlflow_uri
    job = f"file://{services_dir}/browsed"
    for seed, key in enumerate(("train-b0-x-0000000000", "train-b0-x-1111111111")):
        made = runs.start_run(
            "browsed",
            "train b0 x",
            key,
            params={"recipe": {"epochs": 2, "seed": seed}},
            tags={"job_uri": f"{job}/{key}", "role": "train"},
        )
        runs.finish_run(made, "FINISHED", {"val/top1": 90.0 + seed})
    with client.connection() as mlflow:
        for name in ("browsed-b0", "browsed-b1"):
            mlflow.create_registered_model(name)
        for name, top1 in (("browsed-b0", "96.0"), ("browsed-b0", "97.0"), ("browsed-b1", "95.5")):
            tags = {"dataset": "mnist5k", "top1": top1, "ci95": "1.21", "weights_sha256": top1[1] * 64, **SIZES}
            mlflow.create_model_version(name, "s3://effnet/none", run_id=made, tags=tags)
        mlflow.set_registered_model_alias("browsed-b0", "champion", "1")
    return [f"run_dir={services_dir}", "experiment=browsed"]


def show(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(list(words))
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


def test_each_model_is_one_line_of_its_champion_or_its_newest_version(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = show(capsys, "models", "browsed", *words).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["browsed-b0", "1", "champion"], ["browsed-b1", "1", "-"]]
    assert lines[1].split()[3:] == ["mnist5k", "96.00", "1.21", "126,822", "359,792", "24"]


def test_a_model_is_listed_with_all_its_versions_newest_first(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(show(capsys, "models", "browsed-b0", "--json", *words))
    assert [(row["version"], row["top1"], row["aliases"]) for row in rows] == [(2, 97.0, []), (1, 96.0, ["champion"])]
    assert rows[1]["ci95"] == 1.21


def test_runs_are_listed_newest_first_with_their_accuracy(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = show(capsys, "runs", *words).splitlines()
    assert [line.split()[-1] for line in lines] == ["%", "91.00", "90.00"]
    assert [run["key"] for run in json.loads(show(capsys, "runs", "1111", "--json", *words))] == [
        "train-b0-x-1111111111"
    ]


def test_a_list_that_is_cut_off_says_how_the_others_are_found(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.cli.browse.SHOWN_RUNS", 1)
    assert main(["runs", *words]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1 + 1
    assert shown.err == "the newest 1; `effnet runs NAME` searches all by a part of their name\n"


def test_two_runs_differ_in_their_settings_and_results(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sections = json.loads(show(capsys, "diff", "train-b0-x-0", "train-b0-x-1", "--json", *words))
    assert sections["settings"] == {"recipe.seed": ["0", "1"]}
    assert sections["results"] == {"val/top1": ["90", "91"]}
    assert "job_uri" in sections["provenance"]
    same = show(capsys, "diff", "browsed-b0@champion", "browsed-b0/1", *words)
    assert same.endswith(" do not differ\n")


def test_two_versions_differ_in_their_weights_though_not_in_their_runs(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sections = json.loads(show(capsys, "diff", "browsed-b0/1", "browsed-b0/2", "--json", *words))
    assert sections == {"settings": {}, "provenance": {"weights_sha256": ["6" * 64, "7" * 64]}, "results": {}}


def test_the_columns_of_a_comparison_are_named_so_that_they_can_be_told_apart(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pair = show(capsys, "diff", "train-b0-x-0", "browsed-b0@champion", *words).splitlines()
    assert pair[0].split() == ["train", "b0", "x", "browsed-b0/1"]
    ids = [run["id"][:8] for run in json.loads(show(capsys, "runs", "train-b0-x-", "--json", *words))]
    runs_of_one_name = show(capsys, "diff", "train-b0-x-0", "train-b0-x-1", *words).splitlines()
    assert runs_of_one_name[0].split() == ["train", "b0", "x", ids[1], "train", "b0", "x", ids[0]]


def test_a_run_of_another_experiment_is_searched_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    other = runs.start_run(
        "browsed elsewhere", "train b0 z", "train-b0-z-22", params={"recipe": {"epochs": 5}}, tags={}
    )
    runs.finish_run(other, "FINISHED", {"val/top1": 80.0})
    sections = json.loads(show(capsys, "diff", "train-b0-x-0", "train b0 z", "--json", *words))
    assert sections["settings"]["recipe.epochs"] == ["2", "5"]
    assert sections["results"] == {"val/top1": ["90", "80"]}
    with client.connection() as mlflow:
        mlflow.create_registered_model("browsed-b2")
        mlflow.create_model_version("browsed-b2", "s3://effnet/none", run_id=other)
    assert "recipe.epochs" in show(capsys, "diff", "browsed-b2/1", "browsed-b0/1", *words)


def test_a_log_is_that_of_this_machine_or_else_the_epochs(
    words: list[str], services_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"file://{services_dir}/browsed/train-b0-x-1111111111/metrics.jsonl"
    store.write(uri, b'{"epoch": 1, "loss": 0.5}\n')
    assert show(capsys, "logs", "train-b0-x-1", *words) == '{"epoch": 1, "loss": 0.5}\n'
    store.write(uri.replace("metrics.jsonl", "log.txt"), b"rank 1\n")  # as the engine leaves it on another machine
    assert show(capsys, "logs", "train-b0-x-1", *words) == "rank 1\n"
    store.write(uri.replace("metrics.jsonl", "slurm-7.txt"), b"rank 2\n")  # of a job on Slurm that failed
    assert show(capsys, "logs", "train-b0-x-1", *words) == "rank 2\n"
    log = services_dir / "jobs/train-b0-x-1111111111/log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("rank 0\x1b[31m\n")
    assert show(capsys, "logs", "train b0 x", *words) == "rank 0\\x1b[31m\n"


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (["logs", "train-b0-x"], "2 runs begin with 'train-b0-x', the newest are train-b0-x-1111111111, train-b0-x-00"),
        (["logs", "train-b9"], "no run 'train-b9' in the experiment 'browsed'; did you mean 'train"),
        (["models", "browsed-b9"], "no registered model contains 'browsed-b9'; did you mean 'browsed-b"),
        (["diff", "browsed-b0@best", "x"], "browsed-b0 has no alias 'best'; aliases: champion = 1"),
        (["diff", "x"], "effnet diff takes A B; 1 given: x"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(
    verb: list[str], message: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_without_services_the_command_says_how_to_start_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", f"run_dir={tmp_path}"]) == 2
    assert "start the services by `effnet up`" in capsys.readouterr().err
