"""The verbs that move the champion by hand start quickly: they must be there when something is wrong."""

import subprocess
import sys


def test_a_rollback_imports_neither_prefect_nor_torch() -> None:
    code = (
        "import sys, flows.__main__, flows.cli.champions\n"
        "import infra.store, infra.tracking.champions, tasks.registry.verdict\n"
        "from infra.tracking import client\n"
        "client.library().MlflowClient\n"
        "print(sorted({'prefect', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
