"""The budget of a command: a limit is confirmed in a terminal, by --yes, or not at all."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from conf import compose
from flows import configure
from flows.__main__ import main
from flows.cli import session
from flows.cli.command import Command
from flows.cli.prepare import confirm_budget
from infra import doctor, machine
from infra.doctor.finding import FAIL, Finding
from infra.errors import ConfigError

ABOVE = ["budget.hours=0.001"]


def _command(*words: str, yes: bool = False) -> Command:
    return Command("train", (), [*words], compose.compose([*words]), switches=frozenset({"yes"} if yes else ()))


def test_a_command_above_its_budget_starts_nothing_where_nobody_can_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    monkeypatch.setattr(session, "run", lambda *_, **__: pytest.fail("the flow started"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert main(["train", *ABOVE, f"run_dir={tmp_path / 'runs'}"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: effnet train is estimated: 0.01 hours exceed budget.hours=0.001; --yes runs it")
    assert shown.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_yes_and_an_estimate_within_the_budget_need_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.cli.prepare.ask", lambda _: pytest.fail("asked"))
    confirm_budget(_command(*ABOVE, yes=True))
    confirm_budget(_command("budget.hours=1"))
    confirm_budget(_command())


@pytest.mark.parametrize(
    ("answer", "runs"), [("y\n", True), ("Yes\n", True), ("\n", False), ("no\n", False), ("", False)]
)
def test_in_a_terminal_the_answer_decides(answer: str, runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO(answer)  # "" is the end of the input
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    if runs:
        confirm_budget(_command(*ABOVE))
    else:
        with pytest.raises(ConfigError, match="nothing was started"):
            confirm_budget(_command(*ABOVE))


def test_a_budget_that_cannot_be_compared_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of a folder are not counted yet: its estimate was half a minute."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    with pytest.raises(
        ConfigError, match="train cannot be compared with its budget \\(folder: the number of its images"
    ):
        confirm_budget(_command("data=folder", "data.path=images", "budget.hours=100"))


def test_gpus_of_other_machines_count_for_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    with pytest.raises(ConfigError, match=r"GPU-hours exceed budget\.gpu_hours=1"):
        confirm_budget(
            _command("profile=paper", "transfer.sets=[pets]", "launch.engine=workpool", "budget.gpu_hours=1")
        )


def test_a_run_of_a_deployment_above_its_budget_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configure, "deployment_run", object)
    monkeypatch.setattr(configure, "_flow_name", lambda: "train")
    monkeypatch.setenv(machine.COMMAND, "")  # which is set there, and restored
    with pytest.raises(ConfigError, match=r"0\.01 hours exceed budget\.hours=0\.001; a run with a higher budget"):
        configure.configure(ABOVE)
    configure.configure(["budget.hours=1"])


def test_a_plan_is_printed_as_one_json_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    words = ["profile=laptop", "recipe.epochs=2", f"run_dir={tmp_path}", "--json"]
    assert main(["plan", "train", "--price", "3", *words]) == 0
    planned = json.loads(capsys.readouterr().out)
    (network,), (training,) = planned["networks"], planned["trainings"]
    assert (planned["verb"], network["name"]) == ("train", "efficientnet_b0")
    assert (training["jobs"], training["done"], training["multiply_adds"]) == (1, 0, network["multiply_adds"])
    assert planned["gpu_hours"] == training["gpu_hours"] > 0
    assert planned["money"] == 3 * planned["gpu_hours"]
    assert planned["cpu"]["wall_s"] > 3600 * planned["cpu_hours"] / 64
    assert main(["plan", "nightly", *words]) == 0
    shown = capsys.readouterr()
    assert (json.loads(shown.out)["verb"], json.loads(shown.out)["night"]) == ("nightly", None)
    assert "unknown: the champion that the night continues" in shown.err


def test_the_findings_of_the_doctor_are_printed_as_one_json_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    monkeypatch.setattr(doctor, "_checks", lambda *_: {"data": lambda: [Finding(FAIL, "data", "gone: restore it")]})
    assert main(["doctor", f"run_dir={tmp_path}", "services.s3=aws", "--json"]) == 2
    finding = {"mark": "fail", "topic": "data", "text": "gone: restore it"}
    assert json.loads(capsys.readouterr().out) == {"findings": [finding], "failures": 1, "warnings": 0}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trian", "did you mean 'train'? it takes reproduce, study, search"),
        ("linear", "effnet plan linear: effnet linear is not estimated; it takes reproduce, study, search"),
        ("xyzzy", "effnet plan xyzzy: it takes reproduce, study, search"),
    ],
)
def test_plan_names_the_verbs_that_it_can_estimate(
    word: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    assert main(["plan", word]) == 2
    assert message in capsys.readouterr().err


def test_the_source_of_a_setting_is_beside_its_name_however_long_the_values_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    assert main(["config", "recipe.epochs=2", "--why", f"run_dir={tmp_path / 'runs'}"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["recipe.epochs"].split() == ["recipe.epochs", "recipe.epochs=2", "2"]
    assert len(lines["recipe.epochs"]) < 160 < len(lines["scaling.points"])
