"""The command as users start it, in a process of its own: its output, its imports, and the shells that complete it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from matrix import with_slow_rest

from conf import compose
from flows.cli import signals


def test_a_command_collects_little_garbage_and_none_at_its_end() -> None:
    code = (
        "import atexit, gc, sys; from flows.__main__ import main\n"
        "atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000))\n"
        "main(['completion', 'bash'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "50000 True", ended.stderr


OUTPUTS = with_slow_rest([["--version"], ["completion", "bash"], ["config"], ["plan"], ["train", "--help"]], plain=2)


@pytest.mark.parametrize("words", OUTPUTS)
def test_a_reader_that_goes_away_ends_a_command_without_a_word(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run([sys.executable, "-m", "flows", *words], cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert process.stderr == b""
    assert process.returncode == signals.OUTPUT_CLOSED


@pytest.mark.parametrize("words", OUTPUTS)
def test_an_output_on_a_full_disk_is_one_line_and_a_code_of_its_own(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.run([sys.executable, "-m", "flows", *words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE)
    expected = b"error: the output cannot be written: No space left on device; the work itself may be done\n"
    assert (process.returncode, process.stderr) == (signals.OUTPUT_LOST, expected)


@pytest.mark.parametrize("where", ["PYTHONPATH", "working folder"])
def test_modules_of_the_user_with_names_of_ours_are_not_imported(where: str, tmp_path: Path) -> None:
    """Projects often have a models.py or a folder conf, and their folder on PYTHONPATH."""
    for name in ("conf", "flows", "infra", "models", "tasks"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not ours')")
    code = "import sys; sys.argv[1:] = ['plan']; from effnet_cli import main; from infra import machine; import os;"
    code += "sys.exit(main() or machine.import_path()['PYTHONPATH'].split(os.pathsep)[0] != str(machine.CODE))"
    paths = [str(tmp_path), str(ROOT)] if where == "PYTHONPATH" else [str(ROOT)]
    done = subprocess.run(
        [sys.executable, *(["-P"] if where == "PYTHONPATH" else []), "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    code = "import os, sys; os.mkdir('x'); os.chdir('x'); os.rmdir('../x'); from flows.__main__ import main;"
    code += "sys.exit(main(['plan']))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "error: the working folder no longer exists; change to one that does\n",
    )


def test_a_mistake_has_its_code_where_stderr_is_closed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows", "train", "model=b9"], cwd=ROOT, preexec_fn=lambda: os.close(2)
    )
    assert done.returncode == 2


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "K\u00e4fer"), ("ascii", "K\\xe4fer")])
def test_text_that_the_output_has_no_characters_for_is_escaped(encoding: str, shown: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    argv = [sys.executable, "-m", "flows", "config", "data.path=/K\u00e4fer"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f'data.path="/{shown}"' in done.stdout.decode(encoding).splitlines()


def test_pythonwarnings_does_not_make_errors_of_the_warnings_of_libraries() -> None:
    code = """import sys, warnings
from flows.__main__ import main
main(["completion", "bash"])
warnings.warn("of a library", UserWarning)
warnings.warn("of a library", DeprecationWarning)
print(sys.warnoptions)"""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")
    assert "UserWarning: of a library" in done.stderr
    assert "DeprecationWarning" not in done.stderr


def test_env_without_services_is_one_line_that_says_how_to_start_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows", "env", f"run_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: not running in {tmp_path}: s3, prefect, mlflow")
    assert "`effnet up`" in done.stderr


def test_env_names_the_services_of_somebody_else_as_they_are(tmp_path: Path) -> None:
    words = ["services.s3=https://s3.example", "services.prefect=https://p.example/api", "services.mlflow=https://m.ex"]
    command = [sys.executable, "-m", "flows", "env", f"run_dir={tmp_path}", *words]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert all(line.startswith("export ") for line in printed.splitlines())
    shell = f'{printed}\necho "$AWS_ENDPOINT_URL_S3 $PREFECT_API_URL $MLFLOW_TRACKING_URI"; echo "$EFFNET_SETTINGS"'
    clean = {"PATH": os.environ["PATH"]}
    said = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=clean, check=True).stdout
    addresses, settings = said.splitlines()
    assert addresses == "https://s3.example https://p.example/api https://m.ex"
    assert compose.compose(json.loads(settings)).services.mlflow == "https://m.ex"


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


def test_a_plan_of_the_family_does_not_wait_for_torch() -> None:
    code = "import sys\nfrom flows.__main__ import main\nmain(['plan'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stdout + done.stderr
