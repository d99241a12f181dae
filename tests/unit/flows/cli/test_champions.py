"""The verbs that read the registry or move the champion start quickly: they must be there when something is wrong."""

import subprocess
import sys

import pytest
from matrix import with_slow_rest


@pytest.mark.parametrize(
    "module",
    with_slow_rest(
        [
            "flows.cli.champions, infra.tracking.champions, tasks.registry.verdict",
            "flows.cli.browse, infra.tracking.queries",
        ]
    ),
)
def test_verbs_about_the_registry_import_none_of_the_large_libraries(module: str) -> None:
    code = (
        f"import sys, flows.__main__, infra.store, {module}\n"
        "print(sorted({'prefect', 'torch', 'mlflow', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
