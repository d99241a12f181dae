"""Prefect in a folder with settings for another server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from matrix import with_slow_rest

from flows.cli.working_folder import check_prefect_settings
from infra.errors import ConfigError

# A process of its own: Prefect reads its settings when it is imported.
READ = """
from flows.cli.working_folder import ignore_prefect_files
ignore_prefect_files()
from prefect.context import get_settings_context
settings = get_settings_context().settings
print(settings.tasks.default_retries, settings.client.max_retries, settings.logging.level)
"""


@pytest.mark.parametrize("places", with_slow_rest([[".env"], ["prefect.toml", "pyproject.toml"]]))
def test_its_settings_in_the_working_folder_do_not_count(places: list[str], tmp_path: Path) -> None:
    settings = {
        ".env": "PREFECT_TASKS_DEFAULT_RETRIES=50\nPREFECT_CLIENT_MAX_RETRIES=abc\nPREFECT_LOGGING_LEVEL=nonsense\n",
        "prefect.toml": '[tasks]\ndefault_retries = 50\n[client]\nmax_retries = "abc"\n',
        "pyproject.toml": '[tool.prefect.logging]\nlevel = "nonsense"\n',
    }
    for place in places:
        (tmp_path / place).write_text(settings[place])
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables |= {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=100
    )
    assert (done.stdout, done.stderr) == ("0 5 INFO\n", "")


@pytest.mark.parametrize(
    ("place", "content", "message"),
    with_slow_rest(
        [
            (
                ".env",
                "PREFECT_CLIENT_MAX_RETRIES=abc\n",
                r"settings of Prefect in \.env are wrong: PREFECT_CLIENT_MAX_RETRIES is 'abc': Input should be a valid",
            ),
            (
                "prefect.toml",
                "[client\n",
                r"settings of Prefect in prefect\.toml are wrong: SettingsError: .*invalid TOML",
            ),
            ("PREFECT_TASKS_DEFAULT_RETRIES", "x", r"PREFECT_TASKS_DEFAULT_RETRIES is 'x': Input should be a valid"),
        ]
    ),
)
def test_wrong_settings_for_a_server_of_the_user_s_are_one_line(
    place: str, content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables |= {"HOME": str(tmp_path), "PREFECT_API_URL": "https://prefect.example/api"}
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if place.startswith("PREFECT_"):
        variables[place] = content
    else:
        (tmp_path / place).write_text(content)
    with pytest.raises(ConfigError, match=f"^{message}[^\n]*; correct (or unset it|them)$"):
        check_prefect_settings(variables)


def test_a_shell_and_a_folder_without_settings_of_prefect_need_no_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("imports Prefect"))
    (tmp_path / ".env").write_text("OTHER=1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    check_prefect_settings({"PREFECT_API_URL": "https://prefect.example/api", "PREFECT_API_KEY": "k"})
