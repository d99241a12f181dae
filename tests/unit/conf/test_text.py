"""Text from outside on its way to people: nothing in it acts on a terminal, and nothing of it gets lost."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flows.__main__ as command
from conf import compose, schema
from conf.text import did_you_mean, escaped, first_line, format_duration, list_some, logger, printable, quoted
from flows.cli import prepare, progress, summary
from flows.cli.command import Command
from infra import doctor, errors
from infra.doctor.finding import OK, Finding
from infra.services.stack import Addresses
from models.data.sources.folders.folder import open_folder
from models.results import EvalResult

EVIL = "a\x1b]0;title\x07\x9b31m\u202egpj\r\n\x00\u2028.tar"
SAFE = r"a\x1b]0;title\x07\x9b31m\u202egpj\r\n\x00\u2028.tar"


@pytest.fixture
def loggers() -> Iterator[None]:
    """Leaves both loggers as they were: ``progress.attach`` is for the whole process."""
    both = [logging.getLogger(name) for name in ("effnet", "effnet-progress")]
    before = [(log, log.handlers[:], log.propagate, log.level) for log in both]
    yield
    for log, handlers, propagate, level in before:
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_a_terminal_would_obey_is_escaped_and_plain_text_stays() -> None:
    assert escaped(EVIL) == printable(EVIL) == SAFE
    assert escaped("blüte ± 0.1 %, α·β² [b0]") == "blüte ± 0.1 %, α·β² [b0]"
    assert escaped("\udcff") == r"\udcff"  # a file name that is not UTF-8


@given(st.text())
def test_printable_text_is_printable_but_for_the_breaks_before_quoted_lines(text: str) -> None:
    shown = printable(text)
    assert shown.replace("\n  | ", "").isprintable()
    assert printable(shown) == shown
    assert escaped(text).isprintable()


def test_the_lines_of_a_log_stay_lines() -> None:
    message = "it failed:" + quoted("one\ttwo\n\x1b[31mred")
    assert message == printable(message) == "it failed:\n  | one     two\n  | \\x1b[31mred"
    assert str(errors.JobError(f"x{EVIL}:{quoted('a')}")) == f"x{SAFE}:\n  | a"


def test_a_mistyped_word_is_answered_with_the_nearest_choice_or_with_nothing() -> None:
    assert did_you_mean("resnet51", {"resnet50": 1, "mobilenet": 2}) == "did you mean 'resnet50'?"
    assert did_you_mean("CIFAR10", ["pets", "cifar10"]) == "did you mean 'cifar10'?"
    assert did_you_mean("resnet51", ["x"]) == did_you_mean("", []) == ""


@pytest.mark.parametrize(
    ("items", "separator", "text"),
    [
        ([], ", ", ""),
        (["a", "b", "c"], ", ", "a, b, c"),
        (["a", "b", "c", "d"], ", ", "a, b, c and 1 more"),
        (["a: 1", "b: 2", "c: 3", *"x" * 1234], "; ", "a: 1; b: 2; c: 3; and 1,234 more"),
    ],
)
def test_a_long_list_is_shown_by_its_first_items_and_the_number_of_others(
    items: list[str], separator: str, text: str
) -> None:
    assert list_some(items, 3, separator) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (41.6, "42 s"),
        (754.2, "12 min 34 s"),
        (11_520, "3 h 12 min"),
        (47.5 * 3600, "47 h 30 min"),
        (904.8 * 3600, "37 d 16 h"),
        (1_550_597.5 * 3600, "64,608 d 5 h"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError(), "ValueError"),
        (KeyError(""), "''"),
        (ValueError("\n \n"), "ValueError"),
        (MuteError(), "MuteError"),
        (ValueError("\n  two words \nmore"), "two words"),
        (ValueError(f"a\x1b[0m{chr(10)}b"), r"a\x1b[0m"),
    ],
)
def test_every_error_has_a_first_line(error: BaseException, line: str) -> None:
    assert errors.first_line(error) == first_line(error) == line


@pytest.mark.parametrize("kind", [errors.ConfigError, errors.DataError, errors.TransientError, errors.PreemptedError])
def test_an_error_of_ours_is_escaped_where_it_is_made(kind: type[errors.EffnetError]) -> None:
    assert str(kind(f"no such file: {EVIL}")) == f"no such file: {SAFE}"
    assert str(kind()) == ""


def test_a_class_folder_with_control_characters_is_named_escaped(tmp_path: Path) -> None:
    (tmp_path / "cat\x1b[31m").mkdir()
    with pytest.raises(errors.ConfigError, match="its top folder contains ") as caught:
        open_folder(schema.Data(name="x", source="folder", path=str(tmp_path)))
    assert r"top folder contains cat\x1b[31m" in str(caught.value)


def test_a_log_line_keeps_its_brackets_in_a_terminal(loggers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich's markup took ``[train-00001.tar]`` for a style, and raised at ``[/red]``."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    with progress.attach():
        logger().info("set data.leave_out=[train-00001.tar], see %s", "/images/[/red]/:smile:")
        status = {"job": "train [b0] [/red]\x1b[2J", "step": 1, "steps": 9}
        logger().info("%s: epoch [1/2]", status["job"], extra={"progress": status})
    shown = terminal.getvalue()
    assert "set data.leave_out=[train-00001.tar], see /images/[/red]/:smile:" in shown
    assert r"train [b0] [/red]\x1b[2J" in shown
    assert "epoch [1/2]" in shown


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_log_line_is_escaped_wherever_it_is_shown(
    loggers: None, monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]
) -> None:
    kept: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", shown := stream())
    monkeypatch.setenv("COLUMNS", "200")
    logging.getLogger("effnet").addHandler(handler)  # as Prefect adds its own
    with progress.attach():
        logging.getLogger("effnet").warning("leaves out %s", EVIL)
    assert kept == [f"leaves out {SAFE}"]
    assert f"leaves out {SAFE}" in shown.getvalue()


def test_a_log_call_with_wrong_arguments_stops_nobody(loggers: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.attach():
        logger().info("%d epochs", "many")
    assert "%d epochs ('many',)" in capsys.readouterr().err


def test_a_quiet_command_shows_warnings_only(loggers: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.attach(quiet=True):
        logger().info("step 1")
        logger().warning("lost")
    assert capsys.readouterr().err.endswith(" lost\n")


def test_a_failing_command_says_one_escaped_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> int:
        raise errors.DataError(f"damaged: {EVIL}")

    monkeypatch.setattr(command, "_call", fails)
    assert command.main(["down"]) == 3
    assert capsys.readouterr().err == f"error: damaged: {SAFE}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["train", f"data.path={EVIL}", f"recipe.epochs={EVIL}"],
        ["train", f"recipe.epochs={EVIL}"],
        ["train", EVIL],
        ["train", f"{EVIL}=1"],
        ["train", f"data={EVIL}"],
        ["train", f"data.name={EVIL}"],
        ["train", f"run_dir='{EVIL}"],
        ["train", f"storage={EVIL}"],
        ["train", f"data.path=[{EVIL}"],
        ["train", f"--{EVIL}"],
        [EVIL],
        ["up", f"-{EVIL}"],
    ],
)
def test_a_wrong_word_is_never_repeated_raw(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = command.main(words)
    except SystemExit as ended:  # argparse's own way
        code = int(ended.code or 0)
    assert code == 2
    shown = capsys.readouterr().err.removesuffix("\n")
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "error: " in shown


def test_the_block_that_ends_a_command_is_escaped_line_by_line() -> None:
    result = EvalResult("job", EVIL, "mnist5k", 50.0, 90.0, 2, (1, 0), (1, 1))
    addresses = Addresses("http://127.0.0.1:1", f"http://x/{EVIL}/api", "http://127.0.0.1:2")
    block = summary.block(result, compose.compose(), addresses, 3.0)
    assert all(line.isprintable() for line in block.split("\n"))
    assert f"{SAFE} on mnist5k" in block
    assert "time       3 s" in block.split("\n")


def test_the_doctor_and_the_plan_print_escaped_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_checks", lambda *_: {"data": lambda: [Finding(OK, "data", EVIL)]})
    config = compose.compose([f"run_dir={tmp_path}", "services.s3=aws"])
    doctor.print_findings(doctor.examine(config, {}, frozenset()))
    monkeypatch.setattr("tasks.plan.lines", lambda *_: iter(["", f"transfer to {EVIL}"]))
    assert prepare.plan(Command("plan", (), [], config)) == 0
    shown = capsys.readouterr().out
    assert shown.count(SAFE) == 2
    assert all(line.isprintable() for line in shown.split("\n"))


def test_mlflow_gets_escaped_names_tags_and_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.tracking import runs

    sent: list[object] = []
    run = SimpleNamespace(
        info=SimpleNamespace(run_id="1", status="RUNNING"), data=SimpleNamespace(params={}, tags={"same": SAFE})
    )

    def log_batch(run_id: str, **what: list[object]) -> None:
        sent.extend(next(iter(what.values())))

    runs._complete(SimpleNamespace(log_batch=log_batch), run, {"data": {"path": EVIL}}, {"t": EVIL, "same": EVIL})  # type: ignore[arg-type]
    assert [(each.key, each.value) for each in sent] == [("data.path", SAFE), ("t", SAFE)]  # type: ignore[attr-defined]
