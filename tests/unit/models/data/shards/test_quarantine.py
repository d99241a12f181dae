"""The number of unusable images that is accepted without ``data.allow_partial``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conf import compose
from conf.schema import Data
from flows.cli.summary import describe_result
from infra.errors import DataError
from models.data.shards import writer
from models.data.shards.manifest import Manifest
from tasks.shard import build_result


def sharded(folder: Path, sound: int, damaged: int, **how: bool) -> tuple[Data, Manifest]:
    """Shards a tree of sound and damaged images of two classes."""
    for number in range(sound + damaged):
        path = folder / "images" / ("cat", "dog")[number % 2] / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < sound:
            Image.fromarray(np.full((4, 4, 3), number % 256, np.uint8)).save(path)
        else:
            path.write_bytes(b"no image at all")
    data = Data(name="made", source="folder", path=str(folder / "images"), samples_per_shard=200, **how)
    layout = writer.plan(data, f"file://{folder}/store")
    for numbers in writer.groups(layout, data.shards_per_task):
        writer.write_group(layout, numbers)
    return data, writer.write_manifest(layout)[1]


@pytest.mark.parametrize(("sound", "damaged"), [(50, 10), (1089, 11)])
def test_a_few_damaged_images_are_excluded(sound: int, damaged: int, tmp_path: Path) -> None:
    data, manifest = sharded(tmp_path, sound, damaged)
    assert (len(manifest.table), len(manifest.quarantine)) == (sound, damaged)
    first, second = describe_result(
        build_result(data, "file:///m", "0" * 64, manifest, reused=False), compose.compose([])
    )[:2]
    assert first.endswith(f" shards, {damaged} unusable images excluded")
    assert second == "manifest   file:///m lists them"


def test_more_than_one_percent_of_damaged_images_requires_allow_partial(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"made: 11 of 511 images cannot be used, the first is \w+/\d+.png: .*; fetch"):
        sharded(tmp_path, 500, 11)
    assert len(sharded(tmp_path, 500, 11, allow_partial=True)[1].quarantine) == 11
