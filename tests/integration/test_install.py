"""What `make setup` calls, with programs on PATH that record how they were called, and with real pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra import install

FAKE_UV = """#!/bin/sh
echo "$* | links=$UV_FIND_LINKS index=$UV_INDEX default=$UV_DEFAULT_INDEX" >> "$CALLS"
case "$*" in *--no-index*) test -n "$HAS_CPU_WHEEL" ;; *) test -z "$FAIL" ;; esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake uv is the first program on PATH; pip has no settings but those of the test."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uv").write_text(FAKE_UV)
    (programs / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in (*install.UV_NAMES.values(), "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environments") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


@pytest.fixture
def venv(empty_venv: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty_venv, tmp_path / "venv", symlinks=True))


def test_a_cpu_wheel_in_a_folder_that_pip_knows_is_taken(
    calls: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("HAS_CPU_WHEEL", "yes")
    install._install(venv, "cpu", ["-e", "effnet[dev]"])
    torch, project, baselines = calls.read_text().splitlines()
    assert torch.endswith("--no-index --no-deps torch | links=/wheels index= default=")
    assert "[dev]" in project
    assert "--no-deps pytorchcv" in baselines
    assert all(f"-c {install.LOCK}" in line for line in (torch, project, baselines))


def test_without_such_a_wheel_uv_takes_the_build_for_the_cpu(
    calls: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install._install(venv, "cpu", ["-e", "effnet[dev]"])
    assert "--no-deps --torch-backend cpu torch" in calls.read_text().splitlines()[0]
    calls.unlink()
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    install._install(venv, "cpu", ["-e", "effnet[dev]"])
    assert "--no-deps --torch-backend cpu torch" in calls.read_text().splitlines()[1]


def test_where_that_build_cannot_be_reached_the_registry_s_build_is_taken_and_it_says_so(
    calls: Path, venv: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "_fails", lambda argv, _: "--torch-backend" in argv)
    install._install(venv, "cpu", ["-e", "effnet[dev]"])
    project, baselines = calls.read_text().splitlines()
    assert "[dev]" in project
    assert "pytorchcv" in baselines
    assert "no CPU build of torch; taking that of the package index" in capfd.readouterr().out


def test_for_a_gpu_a_cpu_wheel_in_a_folder_is_not_taken(
    calls: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    install._install(venv, "cuda", ["-e", "effnet[dev]"])
    assert "torch!=2.13.0+cpu | links=/wheels" in calls.read_text().splitlines()[0]
    assert "--torch-backend" not in calls.read_text()


def test_pip_installs_where_uv_fails_and_says_so(
    calls: Path, venv: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIL", "yes")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # so pip fails at its first package
    with pytest.raises(subprocess.CalledProcessError) as failed:
        install._install(venv, "cpu", ["-e", "effnet[dev]"])
    assert "pip" in failed.value.cmd
    assert "uv failed, as it says above; continuing with pip" in capfd.readouterr().out


def test_pip_installs_where_uv_cannot_be_installed_and_says_so(
    calls: Path, venv: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(subprocess.CalledProcessError):
        install._install(venv, "cpu", ["-e", "effnet[dev]"])
    assert "uv cannot be installed; using pip" in capfd.readouterr().out


def test_a_second_setup_does_nothing(
    calls: Path, venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "_compile", lambda *_: None)  # nothing was installed that could be imported
    monkeypatch.setenv("TORCH", "cpu")
    assert install.main(["install.py", str(venv)]) == 0
    before = calls.read_text()
    monkeypatch.setenv("TORCH", "auto")
    assert install.main(["install.py", str(venv)]) == 0
    assert calls.read_text() == before
    assert capsys.readouterr().out.endswith("setup: venv is current (torch: cpu)\n")


def test_for_an_image_the_project_is_copied_with_its_extras_and_needs_no_checkout(
    calls: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    monkeypatch.setattr(install, "_compile", lambda _, folder: folders.append(folder))
    monkeypatch.setenv("TORCH", "cpu")
    assert install.main(["install.py", str(venv), "kubernetes,postgres"]) == 0
    [project] = [line for line in calls.read_text().splitlines() if "[" in line]
    assert f" {install.ROOT}[kubernetes,postgres] |" in project
    assert " -e " not in project
    assert folders == [venv]  # not the checkout, whose modules would be imported instead of the installed ones
    calls.unlink()
    assert install.main(["install.py", str(venv), "kubernetes"]) == 0
    assert "[kubernetes]" in calls.read_text()


def test_another_build_of_torch_than_the_two_is_refused(
    venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH", "rocm")
    assert install.main(["install.py", str(venv)]) == 2
    assert capsys.readouterr().err == "error: TORCH=rocm: cpu, cuda or auto\n"
