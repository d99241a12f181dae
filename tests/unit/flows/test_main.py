"""The command line before anything runs: help, version, and mistakes as one line with exit code 2."""

from __future__ import annotations

import re
import signal
import sys
from importlib import import_module
from pathlib import Path

import pytest
from made_archives import photo, write_archive
from matrix import with_slow_rest

from flows.__main__ import main
from flows.cli import signals
from flows.cli.verbs import VERBS
from infra.environment import cache_folder
from infra.errors import ConfigError


@pytest.fixture(autouse=True)
def no_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers would remain in this process."""
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_help_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert re.findall(r"^  ([a-z]+) +\S", shown, re.MULTILINE) == list(VERBS)


def test_help_of_a_verb_is_that_of_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for words in (["help", "train"], ["train", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert VERBS["train"].summary in texts[0]


def test_a_verb_names_its_flow_or_its_function() -> None:
    for name, verb in VERBS.items():
        assert bool(verb.flow) != bool(verb.call), name
        if verb.call:
            module, _, function = verb.call.partition(":")
            assert callable(getattr(import_module(module), function)), name


def test_a_signal_before_a_command_is_parsed_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise signals.Stopped(signal.SIGTERM)

    monkeypatch.setattr("flows.__main__._parser", stop)
    monkeypatch.delitem(sys.modules, "tasks.supervise", raising=False)  # jobs of other tests in this process
    assert main(["train"]) == signals.INTERRUPTED
    assert capsys.readouterr().err.startswith("stopped by SIGTERM: ")


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_the_version_is_printed_with_the_commit(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("effnet 0.")


@pytest.mark.parametrize(
    ("words", "message"),
    with_slow_rest(
        [
            (["promote", "efficientnet-b0/2"], "effnet promote needs --why TEXT: reason, for the record"),
            (["promote", "efficientnet-b0/2", "--why", ""], "effnet promote needs --why TEXT"),
            (["promote", "--why", "text"], "effnet promote takes NAME/VERSION; 0 given"),
            (["rollback"], "effnet rollback takes NAME; 0 given; see effnet rollback --help"),
            (["trian", "model=b3"], "no verb 'trian'; did you mean 'train'? `effnet --help` lists them"),
            (["model=b3"], "a verb comes first, as in effnet train model=b3; `effnet --help` lists them"),
            (["xyzzy"], "no verb 'xyzzy'; `effnet --help` lists them"),
            (["train", "--model", "b3"], "no option '--model'; settings are written without dashes: model=b3"),
            (["train", "--model=b3"], "no option '--model=b3'; settings are written without dashes: model=b3"),
            (["train", "--run-dir", "x"], "no option '--run-dir'; settings are written without dashes: run_dir=x"),
            (
                ["train", "--epochs", "3"],
                "no option '--epochs', and no setting named 'epochs'; did you mean 'recipe.epochs'?",
            ),
            (
                ["train", "--batch-size=8"],
                "no option '--batch-size=8', and no setting named 'batch_size'; did you mean 'reci",
            ),
            (
                ["train", "-m", "data.seed=1"],
                "no option '-m'; a command has one value of each setting: run it once for each",
            ),
            (["train", "--cfg", "job"], "no option '--cfg'; `effnet config KEY=VALUE` prints the settings"),
            (
                ["train", "--config-dir=/x"],
                "no option '--config-dir=/x'; files of settings are those of conf/, chosen as pr",
            ),
            (["train", "--ledge"], "no option '--ledge'; did you mean --ledger?"),
            (["models", "--dry-run"], "effnet models has no option --dry-run"),
            (["models", "--ledger"], "effnet models has no option --ledger"),
            (["train", "--dry"], "no option '--dry'; did you mean --dry-run?"),
            (["export", "b0/1", "--format", "onnx"], "no option '--format'; did you mean --onnx?"),
            (
                ["train", "--why", "x"],
                "effnet train has no option --why, which belongs to effnet config, promote, rollback",
            ),
            (
                ["train", "--model", "b3", "--data=digits", "recipe.epoch=3"],
                "no option '--model'; settings are written without dashes: model=b3; "
                "no option '--data=digits'; settings are written without dashes: data=digits; "
                "no setting named 'recipe.epoch'; did you mean 'recipe.epochs'? ",
            ),
            (
                ["train", "model=b9", "--why", "x"],
                "effnet train has no option --why, which belongs to effnet config, promote, ",
            ),
            (
                ["promote", "b0/2", "data=x"],
                "effnet promote needs --why TEXT: reason, for the record; no data named 'x'; ",
            ),
            (["train", "epochs=3"], "no setting named 'epochs'; did you mean 'recipe.epochs'? "),
            (
                ["train", "seed=3"],
                "no setting named 'seed'; did you mean 'architecture.seed' or 'data.seed' or 'recipe.seed'? ",
            ),
            (["train", "model=efficientnet_b3"], "no model named 'efficientnet_b3'; did you mean 'b3'? "),
            (
                ["train", "recipe.epoch=3", "model=b9"],
                "no setting named 'recipe.epoch'; did you mean 'recipe.epochs'? `effnet config` lists them; "
                "no model named 'b9'; did you mean 'b8'? ",
            ),
            (
                ["train", "data.leave_out=[a"],
                "data.leave_out='[a': a bracket is missing; a list is data.leave_out=[A,B]",
            ),
            (["open"], "effnet open takes PAGE; 0 given"),
            (["plan", "--price", "cheap"], "--price takes the price of a GPU-hour, a number from 0, is 'cheap'"),
            (["plan", "--price=-1"], "--price takes the price of a GPU-hour, a number from 0, is '-1'"),
            (["register"], "effnet register takes JOB; 0 given"),
            (["train", "register=a/b"], "register must be 1 to 63 of A-Z a-z 0-9 . _ - "),
            (["download", "cifar10", "pets"], "effnet download takes [DATASET]; 2 given: cifar10 pets"),
            (["download", "cifra10"], "no data named 'cifra10'; did you mean 'cifar10'? "),
            (["train", "\x1b[31m"], r"'\x1b[31m' is not KEY=VALUE, as in recipe.epochs=2"),
            (["train", "b3"], "'b3' is not KEY=VALUE; did you mean model=b3?"),
            (["evaluate", "b0@champion"], "'b0@champion' is not KEY=VALUE; did you mean model_ref=b0@champion?"),
            (["train", "/data/pets"], "'/data/pets' is not KEY=VALUE; did you mean data=folder data.path=/data/pets?"),
            (["train data=digits"], "'train data=digits' is one word: write the command without quotes around it"),
            (
                ["shard", "--dry-run"],
                "effnet shard has no option --dry-run, which belongs to effnet reproduce, study, ",
            ),
            (["config", "--quiet"], "effnet config has no option --quiet, which belongs to effnet "),
            (["train", "--dryrun"], "no option '--dryrun'; did you mean --dry-run?"),
            (["shard", "--ledger"], "effnet shard has no option --ledger, which belongs to effnet reproduce, study, "),
        ],
        plain=20,
    ),
)
def test_a_mistake_is_one_line_with_the_nearest_valid_word(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {message}")
    assert shown.err.count("\n") == 1


def test_another_full_disk_is_not_taken_for_that_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flows.__main__._main", fail)
    with pytest.raises(OSError, match="No space left"):
        main(["plan"])


def test_a_connection_that_a_service_closed_is_not_taken_for_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("flows.__main__._main", fail)
    with pytest.raises(BrokenPipeError):
        main(["plan"])


@pytest.mark.parametrize("verb", ["train", "plan", "export", "serve", "up", "worker"])
def test_a_command_that_imports_torch_or_starts_workers_checks_its_variables_first(
    verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object) -> None:
        raise ConfigError("torch cannot be imported")

    modules = ("infra.environment", *(f"flows.cli.{name}" for name in ("prepare", "services", "use", "worker")))
    for module in modules:
        monkeypatch.setattr(f"{module}.check_torch", refuse)
    monkeypatch.setattr("flows.cli.use.check_targets", lambda *_, **__: pytest.fail("may import torch"))
    words = {"export": ["b0@champion", "--onnx", str(tmp_path / "b0.onnx")], "serve": ["b0@champion"]}.get(verb, [])
    assert main([verb, *words, f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err == "error: torch cannot be imported\n"


@pytest.mark.parametrize("given", ["", "elsewhere"])
def test_a_command_unpacks_archives_where_its_jobs_have_their_cache(
    given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFFNET_CACHE", given)
    images = {f"{name}/{number}.jpg": photo(number) for name in ("ant", "bee") for number in range(20)}
    write_archive(tmp_path / "pets.tgz", images)
    before = cache_folder()
    assert main(["train", "--dry-run", "data=folder", "data.path=pets.tgz", "run_dir=there"]) == 0
    place = tmp_path / (given or "there/cache") / "archives"
    assert [path.suffix for path in sorted(place.iterdir())] == [".lock", ".tar"]
    assert not (tmp_path / "runs").exists()
    assert cache_folder() == before  # that of this process
