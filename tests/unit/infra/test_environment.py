"""The table of environment variables: what a command, its services and its jobs do not see."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path

import pytest
from matrix import with_slow_rest
from requests.utils import get_netrc_auth

from conf.schema import Launch, Services
from infra.environment import (
    COMMAND,
    DROPPED,
    JOBS,
    SERVICES,
    SET,
    check_network,
    check_torch,
    clean,
    describe_dropped,
    inherited,
)
from infra.errors import ConfigError
from infra.launch.command import job_environment
from infra.services import programs, stack

EXTERNAL = Services("https://s3.example", "https://p.example/api", "https://m.example")


@pytest.mark.parametrize(
    ("name", "services", "kept"),
    [
        ("AWS_PROFILE", Services(), False),
        ("AWS_PROFILE", EXTERNAL, True),
        ("PREFECT_LOGGING_LEVEL", Services(), False),
        ("PREFECT_API_KEY", EXTERNAL, True),
        ("MLFLOW_REGISTRY_URI", Services(), False),
        ("MLFLOW_REGISTRY_URI", EXTERNAL, True),
        ("MLFLOW_RUN_ID", EXTERNAL, False),
        ("ALL_PROXY", Services(), False),
        ("HTTPS_PROXY", Services(), True),
        ("https_proxy", EXTERNAL, True),
        ("PYTHONWARNINGS", EXTERNAL, False),
        ("PYTHONDEVMODE", EXTERNAL, False),  # services would take minutes to start
        ("PYTHONFAULTHANDLER", EXTERNAL, True),
        ("SSLKEYLOGFILE", EXTERNAL, False),  # no client can be made if it leads nowhere
        ("CUDA_VISIBLE_DEVICES", Services(), True),
        ("AWSOME", Services(), True),
    ],
)
def test_the_variables_of_a_service_count_only_if_it_is_external(name: str, services: Services, kept: bool) -> None:
    environment = {name: "value", "PATH": "/bin"}
    clean(environment, services)
    assert environment == ({name: "value"} if kept else {}) | {"PATH": "/bin"}


@pytest.mark.parametrize("name", ["TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_path_is_dropped_only_if_it_leads_nowhere(name: str, tmp_path: Path) -> None:
    assert inherited({name: str(tmp_path)}, COMMAND) == {name: str(tmp_path)}
    assert inherited({name: str(tmp_path / "absent")}, COMMAND) == {}


def test_a_job_sees_the_keys_of_its_store_and_no_outer_job() -> None:
    outer = {"RANK": "7", "PET_NNODES": "9", "TORCHELASTIC_RUN_ID": "x", "MKL_NUM_THREADS": "1", "EFFNET_ROUND": "3"}
    passed = {"AWS_ACCESS_KEY_ID": "key", "MLFLOW_TRACKING_URI": "http://m", "NCCL_DEBUG": "INFO", "SLURM_JOB_ID": "1"}
    assert inherited(outer | passed, JOBS) == passed


@pytest.mark.parametrize("child", [COMMAND, JOBS])
def test_variables_that_change_numbers_reach_neither_the_command_nor_its_jobs(child: str) -> None:
    numbers = ("ONEDNN_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE", "ATEN_CPU_CAPABILITY", "TORCHINDUCTOR_FREEZING")
    numbers += ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_TUNABLEOP_ENABLED", "CUBLAS_WORKSPACE_CONFIG")
    passed = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
    passed |= {"TORCH_HOME": "/models", "TORCHINDUCTOR_CACHE_DIR": "/cache", "CUDA_VISIBLE_DEVICES": "0"}
    assert inherited(dict.fromkeys(numbers, "1") | passed, child) == passed


@pytest.mark.parametrize("child", [COMMAND, JOBS])
def test_variables_that_change_no_number_pass(child: str) -> None:
    """Those of conda's OpenMP libraries, without which it aborts, of compilation on clusters, and of diagnostics."""
    passed = ("KMP_DUPLICATE_LIB_OK", "MKL_THREADING_LAYER", "MKL_SERVICE_FORCE_INTEL", "OMP_STACKSIZE", "TORCH_LOGS")
    passed += ("TORCHINDUCTOR_COMPILE_THREADS", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_NVML_BASED_CUDA_CHECK")
    passed += ("TORCH_DEVICE_BACKEND_AUTOLOAD", "TORCH_TRACE", "TORCHDYNAMO_VERBOSE")
    assert inherited(dict.fromkeys(passed, "1"), child) == dict.fromkeys(passed, "1")


def test_dropped_variables_of_kernels_and_threads_are_named_with_the_reason() -> None:
    line = describe_dropped({"OMP_PROC_BIND": "true", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "RANK": "0"})
    assert line.startswith("variables without an effect: OMP_PROC_BIND (number and places of threads")
    assert "; CUBLAS_WORKSPACE_CONFIG (other kernels or fewer bits" in line
    assert "RANK" not in line
    assert describe_dropped({"OMP_NUM_THREADS": "4", "TORCH_LOGS": "recompiles", "PATH": "/bin"}) == ""


def test_a_variable_of_two_rows_is_named_once_with_the_reason_of_its_own() -> None:
    line = describe_dropped(dict.fromkeys(("MKL_CBWR", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE"), "1"))
    assert line == (
        "variables without an effect: MKL_NUM_THREADS (number and places of threads: would overrule "
        "launch.threads_per_proc, or bind all ranks to the same cores); MKL_CBWR, OPENBLAS_CORETYPE (other kernels or "
        "fewer bits than the settings state, so other numbers)"
    )
    every = {name.removesuffix("*") + "X" * name.endswith("*") for row in DROPPED for name in row.names}
    line = describe_dropped(dict.fromkeys(every, "socks://x"))
    assert all(len(re.findall(rf"\b{name}\b", line)) <= 1 for name in every)


def test_places_of_threads_in_a_shell_bind_no_job() -> None:
    places = (
        "OMP_PROC_BIND",
        "OMP_PLACES",
        "KMP_AFFINITY",
        "GOMP_CPU_AFFINITY",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    )
    assert inherited(dict.fromkeys(places, "0") | {"LANG": "C"}, JOBS) == {"LANG": "C"}
    assert inherited({"OMP_NUM_THREADS": "1"}, COMMAND) == {"OMP_NUM_THREADS": "1"}


def test_an_embedded_server_sees_no_options_of_other_servers() -> None:
    foreign = (
        "UVICORN_PORT",
        "WEB_CONCURRENCY",
        "GUNICORN_CMD_ARGS",
        "WEED_GRPC_CA",
        "OTEL_PROPAGATORS",
        "AWS_PROFILE",
    )
    assert inherited(dict.fromkeys(foreign, "x") | {"LANG": "C"}, SERVICES, ("s3", "prefect", "mlflow")) == {
        "LANG": "C"
    }


def test_every_variable_that_is_set_is_a_row_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"PATH": "/bin"})
    clients = stack.environment(tmp_path, Services())
    jobs = job_environment(Launch(device="cpu"), 2, "cache")
    assert set(clients) | set(jobs) <= set(SET)
    assert set(SET) - set(clients) - set(jobs) <= {"PYTHONPATH"}  # set where the code is a checkout


def test_a_login_of_netrc_reaches_no_embedded_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of requests, by which MLflow's client asks, the login of ~/.netrc replaces the one that the client has set."""
    (tmp_path / ".netrc").write_text("default login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    address = "http://127.0.0.1:5000/api"
    assert get_netrc_auth(address) == ("somebody", "else")
    monkeypatch.setattr("os.environ", {"HOME": str(tmp_path), **stack.environment(tmp_path, Services())})
    assert get_netrc_auth(address) is None
    assert "NETRC" not in stack.environment(tmp_path, Services(mlflow="http://m.example"))


def test_every_row_has_a_reason_and_somebody_who_drops_it() -> None:
    for row in DROPPED:
        assert row.reason
        assert row.by
        assert set(row.by) <= {COMMAND, SERVICES, JOBS}
    assert len({name for row in DROPPED if COMMAND in row.by for name in row.names}) > 15


def test_the_worker_gets_what_its_command_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_PROFILE", "theirs")
    monkeypatch.setenv("LANG", "C.UTF-8")
    env = programs.prefect_worker(tmp_path, {"PREFECT_API_URL": "http://p"}).env
    assert (env.get("PREFECT_PROFILE"), env["LANG"], env["PREFECT_API_URL"]) == (None, "C.UTF-8", "http://p")


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", with_slow_rest(["TORCH_LOGS=nonsense", "TORCH_DISTRIBUTED_DEBUG=nonsense", "TORCH_LOGS_OUT=/proc/a/b"])
)
def test_a_variable_with_which_torch_cannot_be_imported_is_refused_in_one_line(value: str) -> None:
    name, _, text = value.partition("=")
    with pytest.raises(ConfigError, match=rf"torch cannot be imported with {value}: [^\n]+; unset or correct it"):
        check_torch({**os.environ, name: text})


@pytest.mark.slow
def test_of_several_variables_the_wrong_one_is_named_and_torch_s_list_of_names_is_not_cut_within_a_word() -> None:
    given = {"TORCH_LOGS": "nonsense", "TORCH_DISTRIBUTED_DEBUG": "INFO"}
    message = (
        "torch cannot be imported with TORCH_LOGS=nonsense: Invalid log settings: nonsense, must be a comma separated "
        "list of fully qualified module names; unset or correct it"
    )
    with pytest.raises(ConfigError, match=f"^{message}$"):
        check_torch({**os.environ, **given})


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("TORCHINDUCTOR_COMPILE_THREADS=nonsense", "must be a number of threads, is 'nonsense'"),
        ("TORCH_TRACE=/dev/null/a/b", "=/dev/null/a/b is no folder that can be written"),
        ("TORCHINDUCTOR_CACHE_DIR=/dev/null/x", "=/dev/null/x is no folder that can be written"),
    ],
)
def test_a_variable_with_which_torch_could_compile_nothing_is_refused(word: str, said: str) -> None:
    name, _, value = word.partition("=")
    with pytest.raises(ConfigError, match=f"^{name}.*{said}.*: unset or correct it"):
        check_torch({name: value})


def test_folders_and_numbers_that_torch_can_use_pass(tmp_path: Path) -> None:
    check_torch(
        {"TORCH_TRACE": f"{tmp_path}/a/b", "TORCHINDUCTOR_COMPILE_THREADS": " 4", "TORCHINDUCTOR_CACHE_DIR": ""}
    )


@pytest.mark.slow
def test_variables_with_which_torch_can_be_imported_pass() -> None:
    check_torch({**os.environ, "TORCH_LOGS": "recompiles", "PYTORCH_JIT": "nonsense"})  # this one is not passed on


def test_a_socks_proxy_reaches_no_client_of_an_embedded_server() -> None:
    proxies = {"HTTPS_PROXY": "socks5://127.0.0.1:9", "http_proxy": "SOCKS5h://127.0.0.1:9"}
    environment = proxies | {"HTTP_PROXY": "http://127.0.0.1:9"}
    assert all(name in describe_dropped(environment) for name in proxies)
    clean(environment, Services())
    assert environment == {"HTTP_PROXY": "http://127.0.0.1:9"}
    kept = dict(proxies)
    clean(kept, EXTERNAL)
    assert kept == proxies


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("HTTPS_PROXY=socks5://me:secret@127.0.0.1:9", "HTTPS_PROXY is a SOCKS proxy"),
        ("HTTP_PROXY=ftp://127.0.0.1", "HTTP_PROXY is no address of a proxy"),
        ("https_proxy=http://127.0.0.1:port", "https_proxy is no address of a proxy"),
        ("SSL_CERT_FILE={file}", "SSL_CERT_FILE={file} is no file of certificates"),
        ("REQUESTS_CA_BUNDLE={file}", "REQUESTS_CA_BUNDLE={file} is no file of certificates"),
    ],
)
def test_a_proxy_or_certificates_that_no_client_reads_are_refused_in_one_line(
    value: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("junk")
    name, _, text = value.format(file=file).partition("=")
    with pytest.raises(ConfigError) as raised:
        check_network({name: text})
    assert str(raised.value).startswith(message.format(file=file))
    assert "secret" not in str(raised.value)


def test_a_file_of_certificates_is_read_once_for_all_variables_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(ssl, "create_default_context", lambda cafile: read.append(cafile))
    (file := tmp_path / "ca.pem").write_text("as good as any")
    variables = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(file))
    check_network(variables)
    check_network(variables)
    assert read == [str(file)]
    file.write_text("another one")
    check_network(variables)
    assert read == [str(file)] * 2


def test_proxies_and_certificates_that_clients_read_pass() -> None:
    check_network({"HTTP_PROXY": "127.0.0.1:9", "https_proxy": "http://me:secret@host:8080", "SSL_CERT_FILE": "/none"})


@pytest.mark.parametrize(
    ("value", "passes"), [("4", True), (" 4,2", True), ("0", False), ("-1", False), ("all", False)]
)
def test_numbers_of_threads_that_openmp_complains_about_do_not_reach_the_command(value: str, passes: bool) -> None:
    assert ("OMP_NUM_THREADS" in inherited({"OMP_NUM_THREADS": value}, COMMAND)) is passes
