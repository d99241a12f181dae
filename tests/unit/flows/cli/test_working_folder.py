"""Prefect in a folder with settings for another server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from matrix import with_slow_rest

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
