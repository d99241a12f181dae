"""MLflow as effnet imports it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from checkout import ROOT


@pytest.mark.slow
def test_mlflow_is_imported_without_warnings_where_python_drops_docstrings() -> None:
    argv = [
        sys.executable,
        "-c",
        "import gc; gc.disable(); from infra.tracking.client import library; library(); gc.freeze()",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONOPTIMIZE": "2"}
    ended = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
