"""The number of unusable images that is accepted without ``data.allow_partial``."""

from __future__ import annotations

import io
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from growing_folder import add, shard
from matrix import with_slow_rest
from PIL import Image

from conf import compose
from conf.schema import Data
from flows.cli.summary import describe_result
from infra import store
from infra.errors import DataError
from models.data.shards import writer
from models.data.shards.images import convert_to_png
from models.data.shards.manifest import ImageNote, Manifest, describe_notes
from models.data.shards.stored import build_result


@cache
def gray(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def sharded(folder: Path, sound: int, damaged: int, **how: bool) -> tuple[Data, Manifest]:
    """Shards a tree of sound and damaged images of two classes."""
    for number in range(sound + damaged):
        path = folder / "images" / ("cat", "dog")[number % 2] / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < sound:
            path.write_bytes(gray(number % 256))
        else:
            path.write_bytes(b"no image at all")
    data = Data(name="made", source="folder", path=str(folder / "images"), samples_per_shard=200, **how)
    layout = writer.plan(data, f"file://{folder}/store")
    for numbers in writer.groups(layout, data.shards_per_task):
        writer.write_group(layout, numbers)
    return data, writer.write_manifest(layout)[1]


@pytest.mark.parametrize(("sound", "damaged"), with_slow_rest([(50, 10), (1089, 11)]))
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


def test_unusable_images_are_counted_by_what_they_are(tmp_path: Path) -> None:
    strangers = {f"a{i}.png": b"" for i in range(5)} | {f"b{i}.jpg": b"<html>404</html>" for i in range(4)}
    strangers |= {f"c{i}.jpg": b"\xff\xd8" + bytes(i) for i in range(3)}
    for name, content in strangers.items():
        (tmp_path / "images" / "cat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "cat" / name).write_bytes(content)
    with pytest.raises(DataError) as raised:
        sharded(tmp_path, 50, 0)
    said = str(raised.value)
    assert said.startswith("made: 12 of 62 images cannot be used, the first is cat/")
    notes = [
        ImageNote(name, "train", what) for name, what in (("a", "cut"), ("b", "1 of 7 bytes"), ("c", "2 of 9 bytes"))
    ]
    assert describe_notes(notes) == "the first is a: cut; 2 are as b: 1 of 7 bytes"
    for what in ("empty (as a failed", "web page (as a failed download", "a JPEG without a frame header"):
        assert said.count(what) == 1


def test_a_few_unusable_images_are_logged_by_what_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path / "images", 0, 60)
    for name, content in {"a.jpg": b"<html>404</html>", "b.jpg": b"", "c.jpg": b""}.items():
        (tmp_path / "images" / "cat" / name).write_bytes(content)
    shard(Data(name="made", source="folder", path=str(tmp_path / "images")), f"file://{tmp_path}/store")
    (line,) = [line for line in caplog.messages if "excluded" in line]
    assert line.startswith("made: 3 unusable images excluded; the first is cat/")
    assert "web page (as a failed download leaves: fetch them again)" in line
    assert line.count("empty (") == 1


def convertible() -> dict[str, tuple[bytes, Image.Image]]:
    """Encoded images of four formats with the pixels that a shard must hold; one is 16-bit, one misnamed."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    gray = Image.fromarray(rng.integers(0, 2**16, (9, 7), dtype=np.uint16))
    images = {"x.bmp": ("BMP", rgb), "x.tif": ("TIFF", rgb), "y.tif": ("TIFF", gray), "x.webp": ("WebP", rgb)}
    images |= {"x.gif": ("GIF", rgb.quantize(16)), "named.jpg": ("BMP", rgb)}
    made = {}
    for name, (kind, image) in images.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **({"lossless": True} if kind == "WebP" else {}))
        made[name] = (buffer.getvalue(), image)
    return made


def test_other_formats_are_converted_with_equal_pixels_and_remarked(tmp_path: Path) -> None:
    made = convertible()
    for name, (content, _) in made.items():
        (tmp_path / "images" / "cat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "cat" / name).write_bytes(content)
    _, manifest = sharded(tmp_path, 250, 0, convert=True)
    assert (len(manifest.table), manifest.quarantine) == (256, ())
    remarks = {note.name: note.what for note in manifest.unusual}
    assert remarks["cat/x.webp"] == "converted from WebP"
    assert remarks["cat/named.jpg"] == "converted from BMP"
    pixels = set()
    for uri in store.list_sizes(f"file://{tmp_path}/store"):
        if uri[0].endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(store.read(uri[0]))) as reader:
                images = [reader.extractfile(one).read() for one in reader if not one.name.endswith(".cls")]  # type: ignore[union-attr]
            pixels |= {Image.open(io.BytesIO(one)).convert(mode).tobytes() for one in images for mode in ("RGB", "I")}
    for _, image in made.values():
        assert image.convert("I" if image.mode.startswith("I;16") else "RGB").tobytes() in pixels


def test_the_preview_in_a_raw_file_is_not_taken_for_the_image() -> None:
    """The first page of most cameras' raw files, which are TIFFs, is a small copy."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "TIFF", tiffinfo={254: 1})
    with pytest.raises(DataError, match="a TIFF whose first page is a preview, as those of cameras' raw files"):
        convert_to_png(buffer.getvalue())


def test_a_misnamed_format_is_named_in_the_quarantine(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "named.jpg").write_bytes(convertible()["named.jpg"][0])
    _, manifest = sharded(tmp_path, 250, 0)
    assert [note.what for note in manifest.quarantine] == [
        "neither JPEG nor PNG, but BMP (data.convert=true converts them to PNG)"
    ]


def test_unused_files_are_in_the_manifest_the_result_and_the_summary(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "notes.txt").write_text("text")
    data, manifest = sharded(tmp_path, 250, 0)
    assert manifest.unused == ("1 files that are no images, first cat/notes.txt",)
    result = build_result(data, "file:///m", "0" * 64, manifest, reused=False)
    assert result.unused == manifest.unused
    assert f"unused     {manifest.unused[0]}" in describe_result(result, compose.compose([]))
