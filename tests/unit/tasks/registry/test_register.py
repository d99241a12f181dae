"""The license of a version: never one that a part of what it was made from may not have."""

from __future__ import annotations

import pytest

from conf import schema
from infra.tracking import registry
from infra.tracking.registry import Version
from tasks.registry.register import find_license

IMPORTED = {"license": "Apache-2.0", "origin": "timm"}
TRAINED = {
    "license": "Apache-2.0",
    "dataset": "pets",
}  # as earlier versions of effnet stated it of whatever they trained


def version(tags: dict[str, str]) -> Version:
    return Version("b0", 1, "run", (), tags)


@pytest.mark.parametrize(
    ("data", "start", "license_name"),
    [
        ("elpv", None, "CC-BY-NC-SA-4.0"),
        ("elpv", [IMPORTED], "CC-BY-NC-SA-4.0 AND Apache-2.0"),
        ("elpv", [TRAINED], ""),
        ("elpv", [TRAINED, IMPORTED], "CC-BY-NC-SA-4.0 AND Apache-2.0"),
        ("elpv", [{"origin": "timm"}], ""),
        ("elpv", [], ""),  # weights that are not registered
        ("imagenet", None, ""),
        ("products", None, ""),  # a folder of the user
        ("products", [IMPORTED], ""),
    ],
)
def test_a_license_is_stated_only_if_the_images_and_the_weights_at_the_start_have_one(
    data: str, start: list[dict[str, str]] | None, license_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_weights", lambda sha256: [version(tags) for tags in start or []])
    job = schema.Job(kind="train", data_name=data, init_weights_sha256=None if start is None else "ab" * 32)
    assert find_license(job) == license_name
