"""Completion: the words for each place of a command, and the scripts in the shells that this machine has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from conf import compose
from flows.__main__ import main
from flows.cli.completion import complete
from flows.cli.verbs import VERBS


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["tra"], ["train", "transfer"]),
        (["help", "nig"], ["nightly"]),
        (["train", "--le"], ["--ledger"]),
        (["config", "--"], ["--why", "--json", "--help"]),
        (["train", "recipe.ep"], ["recipe.epochs="]),
        (["train", "launch.s"], ["launch.slurm.", "launch.stall_timeout_s=", "launch.start_timeout_s="]),
        (["train", "model"], ["model.", "model=", "model_ref="]),
        (["train", "model=b3"], ["model=b3"]),
        (["train", "data@transfer.data=cifar"], ["data@transfer.data=cifar10", "data@transfer.data=cifar100"]),
        (["train", "recipe.recompute="], ["recipe.recompute=true", "recipe.recompute=false"]),
        (["train", "data.path=/a"], []),
        (["download", "cifar"], ["cifar10", "cifar100"]),
        (["open", "p"], ["prefect", "photographs.", "profile=", "prune.", "published."]),
        (["xyzzy", "m"], []),
    ],
)
def test_the_words_fit_the_place(typed: list[str], words: list[str]) -> None:
    assert complete(typed) == words


def test_without_a_letter_all_verbs_are_proposed_and_then_all_settings() -> None:
    assert complete([]) == complete([""]) == list(VERBS)
    for verb in VERBS:
        assert {"recipe.", "run_dir=", "model="} <= set(complete([verb, ""]))


def test_every_proposed_assignment_of_a_group_composes() -> None:
    for word in complete(["train", "profile="]):
        assert compose.compose([word]).profile == word.partition("=")[2]


def test_the_words_are_computed_without_heavy_imports() -> None:
    heavy = "{'torch', 'prefect', 'mlflow', 'boto3', 'hydra', 'omegaconf', 'yaml', 'numpy', 'rich'}"
    call = "import sys; from flows.__main__ import main; main(['completion', 'words', 'train', 'mod'])"
    code = f"{call}; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["model.", "model=", "model_ref=", "set()"]


def test_an_unknown_shell_is_a_mistake(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    assert main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "error: effnet completion tcsh: there are bash, zsh, fish\n"


PROBES = {
    "bash": 'source "$1"; COMP_LINE="$2"; COMP_POINT=${#2}; _effnet; printf "%s\\n" "${COMPREPLY[@]}"',
    "zsh": 'compdef() { :; }; compset() { :; }; _files() { :; }; compadd() { print -l -- "$@"; }\n'
    'source "$1"; words=(${=2}); CURRENT=$#words; _effnet',
    "fish": "source $argv[1]; complete -C $argv[2]",
}


@pytest.mark.parametrize("shell", list(PROBES))
def test_a_shell_completes(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} on this machine")
    effnet = tmp_path / "effnet"
    effnet.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flows "$@"\n')
    effnet.chmod(0o755)
    for name, value in (("PATH", f"{tmp_path}:/usr/bin:/bin"), ("HOME", str(tmp_path)), ("PYTHONPATH", str(ROOT))):
        monkeypatch.setenv(name, value)
    script = tmp_path / "script"
    script.write_text(subprocess.run([effnet, "completion", shell], capture_output=True, text=True, check=True).stdout)
    quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["-N"]}[shell]
    for line, expected in (
        ("effnet tra", {"train", "transfer"}),
        ("effnet train recipe.epo", {"recipe.epochs="}),
        ("effnet train data@transfer.data=flow", {"data@transfer.data=flowers102", "flowers102"}),
    ):
        argv = [program, *quiet, "-c", PROBES[shell], *(["probe"] if shell != "fish" else []), str(script), line]
        shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        assert set(shown) & expected, (line, shown)
        assert not {word for word in shown if word.startswith("search")}
