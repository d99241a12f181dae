"""What `make setup` reads of pip's settings and of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import install


def test_of_pip_s_settings_the_environment_counts_most_and_other_commands_settings_do_not() -> None:
    listing = (
        ":env:.find-links='/wheels'\ndownload.index-url='https://d'\nglobal.find-links='/other'\n"
        "global.index-url='https://g'\ninstall.index-url='https://i'\nglobal.trusted-host='a\\nb'\n"
    )
    settings = {"find-links": "/wheels", "index-url": "https://i", "trusted-host": "a\nb"}
    assert install.pip_settings(listing) == settings


def test_uv_gets_pip_s_settings_unless_it_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*install.UV_NAMES.values(), "UV_INDEX_STRATEGY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine")
    settings = {
        "index-url": "https://i",
        "extra-index-url": "https://a https://b",
        "find-links": "/one\n/two",
        "trusted-host": "a b",
        "cert": "/ca.pem",
        "quiet": "1",
    }
    assert install.uv_environment(settings) == {
        "UV_INDEX": "https://a https://b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/one,/two",
        "UV_INSECURE_HOST": "a b",
        "SSL_CERT_FILE": "/ca.pem",
    }


def test_the_excluded_cpu_build_is_that_of_the_pinned_version() -> None:
    assert f"torch=={install.TORCH_VERSION}" in Path(install.LOCK).read_text().splitlines()


@pytest.mark.parametrize(("program", "build"), [("nvidia-smi", "cuda"), ("other", "cpu")])
def test_a_machine_with_a_gpu_gets_the_cuda_build(
    program: str, build: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / program).write_text("#!/bin/sh\n")
    (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install._torch_build("auto", installed="") == build
    assert install._torch_build("auto", installed="cpu 0123") == "cpu"
    assert install._torch_build("cuda", installed="cpu 0123") == "cuda"
