"""A user's shell full of settings for other programs changes neither the services nor a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

from conf.schema import Services
from infra.environment import DROPPED, SET
from infra.services import stack

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
WORDS = ["data=digits", "data.limit=300", "recipe.epochs=1", "recipe.seed=5"]
PATTERNS = {  # real variables of the rows with a *
    "AWS_*": ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_MAX_ATTEMPTS"),
    "PREFECT_*": ("PREFECT_PROFILE", "PREFECT_API_KEY", "PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_API_PORT"),
    "MLFLOW_*": ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_WORKERS"),
    "WEED_*": ("WEED_JWT_SIGNING_KEY", "WEED_GRPC_CA"),
    "S3_BUCKET*": ("S3_BUCKET",),
    "S3_TABLE_BUCKET*": ("S3_TABLE_BUCKET",),
    "UVICORN_*": ("UVICORN_PORT", "UVICORN_HOST"),
    "GUNICORN_*": ("GUNICORN_CMD_ARGS",),
    "FLASK_*": ("FLASK_ENV",),
    "OTEL_*": ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_PROPAGATORS"),
    "PET_*": ("PET_NNODES", "PET_NPROC_PER_NODE", "PET_RDZV_BACKEND", "PET_STANDALONE"),
    "TORCHELASTIC_*": ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE"),
    "MASTER_*": ("MASTER_ADDR", "MASTER_PORT"),
    "GROUP_*": ("GROUP_RANK", "GROUP_WORLD_SIZE"),
    "ROLE_*": ("ROLE_RANK", "ROLE_NAME"),
    "OMP_*": ("OMP_PROC_BIND", "OMP_PLACES", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "OMP_SCHEDULE", "OMP_STACKSIZE"),
    "GOMP_*": ("GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT"),
    "KMP_*": ("KMP_AFFINITY", "KMP_BLOCKTIME"),
    "MKL_*": ("MKL_NUM_THREADS", "MKL_DYNAMIC"),
    "OPENBLAS_*": ("OPENBLAS_NUM_THREADS",),
    "BLIS_*": ("BLIS_NUM_THREADS",),
    "ONEDNN_*": ("ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"),
    "DNNL_*": ("DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA"),
    "MKLDNN_*": ("MKLDNN_VERBOSE",),
    "NPY_*": ("NPY_DISABLE_CPU_FEATURES", "NPY_PROMOTION_STATE"),
    "CUBLAS_*": ("CUBLAS_WORKSPACE_CONFIG",),
    "CUBLASLT_*": ("CUBLASLT_WORKSPACE_SIZE",),
    "CUDNN_*": ("CUDNN_LOGDEST_DBG",),
    "TORCH_*": (
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "TORCH_LOGS",
        "TORCH_COMPILE_DISABLE",
        "TORCH_MKLDNN_MATMUL_MIN_DIM",
    ),
    "PYTORCH_*": ("PYTORCH_JIT", "PYTORCH_TUNABLEOP_ENABLED", "PYTORCH_NO_CUDA_MEMORY_CACHING"),
    "TORCHDYNAMO_*": ("TORCHDYNAMO_DISABLE", "TORCHDYNAMO_VERBOSE"),
    "TORCHINDUCTOR_*": ("TORCHINDUCTOR_MAX_AUTOTUNE", "TORCHINDUCTOR_FREEZING", "TORCHINDUCTOR_USE_FAST_MATH"),
}
# What this interpreter reads before any line of effnet; and what is checked in the unit tests of the table.
BEFORE_EFFNET = (
    *("PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONIOENCODING", "PYTHONSTARTUP", "PYTHONDEVMODE"),
    *("PYTHONASYNCIODEBUG", "PYTHONTRACEMALLOC", "PYTHONMALLOC", "PYTHONVERBOSE", "PYTHONPROFILEIMPORTTIME"),
    "PYTHONDUMPREFS",
)
UNUSABLE = ("PYTHONUTF8", "PYTHONSAFEPATH", "PYTHONPATH", "PYTHONUNBUFFERED", "NO_PROXY", "no_proxy")


def nonsense() -> dict[str, str]:
    """All variables of the table, and those that pass, with values that would break or redirect a job."""
    names = [name for row in DROPPED for known in row.names for name in PATTERNS.get(known, (known,))]
    names = [name for name in [*names, *SET] if name not in (*BEFORE_EFFNET, *UNUSABLE)]
    addresses = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    socks = dict.fromkeys(("ALL_PROXY", "all_proxy"), "socks5://127.0.0.1:9")
    # Values that are valid, and that would change the numbers or bind all ranks to one core.
    valid = {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "DNNL_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
    valid |= {"OMP_PROC_BIND": "true", "OMP_PLACES": "{0}", "GOMP_CPU_AFFINITY": "0", "OMP_THREAD_LIMIT": "1"}
    valid["TORCH_LOGS"] = "recompiles"  # reaches the job, whose import of torch ends at a word that is no log's
    return dict.fromkeys(names, "nonsense") | valid | {"LC_ALL": "C", "LANG": "nonsense"} | addresses | socks


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home folder with settings for another object store; stops the services of its run folder."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:9\nregion = nowhere\n")
    yield tmp_path
    stack.down(tmp_path / "runs")


@pytest.mark.slow
def test_a_shell_full_of_nonsense_changes_no_result(home: Path, services: stack.Addresses, services_dir: Path) -> None:
    assert services
    assert not [known for row in DROPPED for known in row.names if known.endswith("*") and known not in PATTERNS]
    results = []
    for run_dir, variables in (
        (services_dir, dict(os.environ)),
        (home / "runs", {"PATH": os.environ["PATH"], "HOME": str(home), **nonsense()}),
    ):
        argv = [sys.executable, "-m", "flows", "train", *WORDS, "--json", f"run_dir={run_dir}"]
        ended = subprocess.run(
            argv, cwd=ROOT, env={**variables, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, ended.stderr
        results.append(json.loads(ended.stdout))
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert {name: line.split()[0] for name, line in stack.status(home / "runs", Services()).items()} == {
        "s3": "running",
        "prefect": "running",
        "mlflow": "running",
        "worker": "not",
    }
