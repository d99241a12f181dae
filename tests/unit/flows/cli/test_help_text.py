"""The help is readable in a terminal of 80 columns, and what it shows can be typed."""

from __future__ import annotations

import re
import shlex

import pytest
from checkout import ROOT
from matrix import with_slow_rest

from conf import compose
from flows.__main__ import main
from flows.cli import help_text
from flows.cli.verbs import GROUPS, VERBS
from infra import errors


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_every_verb_is_one_line_of_the_list() -> None:
    lines = [line for line in help_text.list_verbs().splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == list(VERBS)
    assert max(map(len, lines)) <= 80


def test_the_readme_has_the_groups_of_the_help() -> None:
    section = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("\n## ")[0]
    listed = re.findall(r"^- \*\*(.+?)\*\*: (.*?)(?=\n- |\n\n|\s*\Z)", section, re.MULTILINE | re.DOTALL)
    assert {title: re.findall(r"`effnet ([a-z]+)`", verbs) for title, verbs in listed} == {
        title: list(verbs) for title, verbs in GROUPS.items()
    }


def test_the_help_fits_a_terminal_and_has_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    codes = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    assert codes <= set(map(int, re.findall(r"\b\d+\b(?= [a-z])", shown.partition("exit codes:")[2])))


@pytest.mark.parametrize("verb", with_slow_rest(VERBS, plain=14))
def test_the_help_of_a_verb_fits_a_terminal_but_for_commands(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    commands = [f"  effnet {example}" for example in VERBS[verb].examples]
    assert not [line for line in shown.splitlines() if len(line) > 80 and line not in commands]
    assert VERBS[verb].summary in shown


def test_a_setting_too_long_for_its_column_stands_on_a_line_of_its_own() -> None:
    text = help_text.describe_settings(VERBS["architecture"], width=80)
    assert re.search(r"^  architecture\.target_multiply_adds=X\n {32}\S", text, re.MULTILINE)


EXAMPLES = [example.partition("   #")[0] for verb in VERBS.values() for example in verb.examples]


@pytest.mark.parametrize(
    "example", with_slow_rest([example for example in EXAMPLES if example.split()[0] in VERBS], plain=16)
)
def test_an_example_can_be_typed(example: str) -> None:
    """Words in capitals and dots stand for something of the user's."""
    verb, *words = shlex.split(example)
    settings = [word for word in words if re.match(r"[a-z_@.]+=(?!.*\.\.\.)(?![A-Z3]+\b)", word)]
    compose.compose([word for word in settings if not word.endswith("://BUCKET/PREFIX")])
    options = {word for word in words if word.startswith("--")}
    row = VERBS[verb]
    known = {*row.options, *row.switches, *(["dry-run"] if row.dry_run else [])}
    assert options <= {f"--{name}" for name in known}
    objects = [word for word in words if not word.startswith(("--", "...")) and "=" not in word]
    assert objects or all(name.startswith("[") for name in row.objects), "what it acts on is missing"
