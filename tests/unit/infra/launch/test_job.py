"""The request of a job in its run folder, which others may have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import schema
from infra import store
from infra.errors import ConfigError, NotFoundError
from infra.launch.job import read_request, write_request


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    job_uri = f"file://{tmp_path}/jobs/train-b0-x-0123456789"
    with pytest.raises(NotFoundError):
        read_request(job_uri)
    job = schema.Job(kind="train", data_name="x", manifest_uri="s3://b/m", manifest_sha256="0" * 64, until_epoch=2)
    write_request(job_uri, job)
    assert read_request(job_uri) == job


@pytest.mark.parametrize("text", [b"\xff\xfe", b"42", b"", b"{" * 3000, b"data_name: ${oc.env:HOME}"])
def test_what_is_no_request_is_the_user_s_mistake_in_one_line(tmp_path: Path, text: bytes) -> None:
    store.write(f"file://{tmp_path}/config.yaml", text)
    with pytest.raises(ConfigError, match=r"/config\.yaml does not describe a job: ") as caught:
        read_request(f"file://{tmp_path}")
    assert str(caught.value).isprintable()
