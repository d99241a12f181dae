"""Completion: the words for each place of a command, and the scripts in the shells that this machine has."""

from __future__ import annotations

import subprocess
import sys

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


@pytest.mark.slow
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
