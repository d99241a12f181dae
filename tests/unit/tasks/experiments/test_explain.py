"""Which images of val the maps are of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, shard

from conf import schema
from conf.schema import Data
from infra.errors import DataError, NotFoundError
from models.data.shards import manifest as manifests
from tasks.experiments.explain import read_images


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_the_images_are_of_the_shards_that_are_not_excluded(damage: str, tmp_path: Path) -> None:
    add(tmp_path / "images", 0, 60)
    data = Data(name="pets", source="folder", path=f"{tmp_path}/images", samples_per_shard=5, val_share=0.3)
    whole = shard(data, f"file://{tmp_path}/store")
    lost = next(one for one in manifests.load(whole.manifest_uri)[1].shards if one.split == "val")
    path = Path(whole.manifest_uri.removeprefix("file://")).with_name(lost.name)
    path.write_bytes(bytes(path.stat().st_size)) if damage == "damaged" else path.unlink()
    options = schema.Explain(count=2)
    with pytest.raises((DataError, NotFoundError)):
        read_images(options, whole)
    manifest, images = read_images(options, replace(whole, left_out=(lost.name,)))
    assert manifest.samples("val") == whole.val - lost.samples
    assert sorted(images.labels) == [0, 1]
