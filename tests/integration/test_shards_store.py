"""Shards in the real object store: an interrupted run goes on, and what it writes is what a loader reads."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fault_proxy
import numpy as np
import pytest
from fault_proxy import FaultProxy
from PIL import Image

from conf.schema import Augment, Data
from infra import store
from models.data.loading import crops, decode
from models.data.loading.loader import Loader
from models.data.shards import manifest, writer
from models.data.shards.layout import ShardLayout

pytestmark = pytest.mark.services
IMAGES = 24


@pytest.fixture
def proxy(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    started = fault_proxy.through(monkeypatch)
    yield started
    started.close()


def noise(seed: int, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def folder(root: Path, width: int = 40, height: int = 30) -> Path:
    for number in range(IMAGES):
        path = root / f"class-{number % 2}" / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(number, width, height))
    return root


def dying_at(layout: ShardLayout, number: int) -> ShardLayout:
    """The plan with a source that dies at the last image of a shard, as a killed task does."""
    last, read = int(layout.members[number][-1]), layout.source.read

    def dying(index: int) -> bytes:
        if index == last:
            raise KeyboardInterrupt
        return read(index)

    return dataclasses.replace(layout, source=dataclasses.replace(layout.source, read=dying))


def puts(proxy: FaultProxy) -> Counter[str]:
    """How often each tar was sent, whole or as the end of a multipart upload."""
    return Counter(
        path.partition("?")[0].rpartition("/")[2]
        for method, path in proxy.written
        if path.partition("?")[0].endswith(".tar")
        and ((method == "PUT" and "partNumber" not in path) or (method == "POST" and "uploadId" in path))
    )


def test_an_interrupted_run_goes_on_and_no_finished_shard_is_sent_twice(
    object_store: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    data = Data(
        name="once", source="folder", path=str(folder(tmp_path)), val_share=0.25, minival_share=0.2, samples_per_shard=4
    )
    layout = writer.plan(data, f"{object_store}/once")
    everything = range(len(layout.names))
    with pytest.raises(KeyboardInterrupt):
        writer.write_group(dying_at(layout, 3), everything)
    first = puts(proxy)
    assert 0 < len(first) < len(layout.names)
    assert layout.names[3] not in first
    assert writer.write_group(layout, everything) == len(layout.names) - len(first)
    assert puts(proxy) == dict.fromkeys(layout.names, 1)
    assert writer.write_group(layout, everything) == 0
    assert puts(proxy) == dict.fromkeys(layout.names, 1)
    _, written = writer.write_manifest(layout)
    assert len(written.table) == IMAGES


@pytest.mark.slow
def test_a_shard_of_many_parts_sends_each_of_them_once(object_store: str, proxy: FaultProxy, tmp_path: Path) -> None:
    large = io.BytesIO()  # noise does not compress: four of them are three parts, three are more than one
    noise_pixels = np.random.default_rng(0).integers(0, 256, (2200, 2200, 3), np.uint8)
    Image.fromarray(noise_pixels).save(large, "JPEG", quality=95)
    for number in range(IMAGES // 2):
        path = tmp_path / f"class-{number % 2}" / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        comment = b"\xff\xfe\x00\x03%c" % number  # identical images would be in one split
        path.write_bytes(large.getvalue()[:2] + comment + large.getvalue()[2:])
    data = Data(
        name="parts", source="folder", path=str(tmp_path), val_share=0.25, minival_share=0.2, samples_per_shard=6
    )
    layout = writer.plan(data, f"{object_store}/parts")
    everything = range(len(layout.names))
    assert len(layout.members[0]) >= 4
    with pytest.raises(KeyboardInterrupt):
        writer.write_group(dying_at(layout, 0), everything)
    assert not store.exists(f"{layout.root}/{layout.names[0]}")
    aborted = [path for method, path in proxy.written if method == "DELETE" and "uploadId" in path]
    assert len(aborted) == 1  # what had arrived of the shard that died
    proxy.written.clear()
    writer.write_group(layout, everything)
    sent = Counter(path for method, path in proxy.written if method == "PUT" and "partNumber" in path)
    size = store.size(f"{layout.root}/{layout.names[0]}")
    assert len([path for path in sent if layout.names[0] in path]) == -(-size // store.PART_BYTES) > 2
    assert set(sent.values()) == {1}
    proxy.written.clear()
    assert writer.write_group(layout, everything) == 0
    assert [method for method, _ in proxy.written if method != "HEAD"] == []


def test_images_made_smaller_are_what_the_loader_reads_and_larger_ones_are_nowhere(
    object_store: str, tmp_path: Path
) -> None:
    data = Data(
        name="small",
        source="folder",
        path=str(folder(tmp_path / "images", 200, 100)),
        val_share=0.25,
        minival_share=0.2,
        samples_per_shard=8,
        max_side=64,
    )
    layout = writer.plan(data, f"{object_store}/small")
    writer.write_group(layout, range(len(layout.names)))
    sha256, _ = writer.write_manifest(layout)
    found = manifest.load_verified(layout.manifest_uri, sha256)
    assert found.encoding == "max_side=64"
    assert {(int(row["width"]), int(row["height"])) for row in found.table} == {(64, 32)}
    assert max(found.table["size"]) < min(path.stat().st_size for path in (tmp_path / "images").rglob("*.jpg"))
    reader = Loader(found, layout.manifest_uri, "val", 24, Augment(), tmp_path / "cache", 2)
    [batch] = reader.eval_batches(100, 0, 1)
    reader.close()
    rows = manifest.Samples(found, ["val"])
    for image, row, number in zip(batch.images, rows.rows, rows.shard_numbers(np.arange(len(rows))), strict=True):
        uri = store.join(layout.root, rows.shards[number].name)
        stored = decode.open_image(store.read_range(uri, int(row["offset"]), int(row["size"])))
        assert stored.size == (64, 32)
        [box] = crops.eval_boxes(np.array([64]), np.array([32]), 24, Augment().evaluation).tolist()
        expected = np.asarray(stored.crop(tuple(box)).resize((24, 24), Image.Resampling.BICUBIC), float)
        assert np.abs(expected - image.numpy()).mean() < 1
