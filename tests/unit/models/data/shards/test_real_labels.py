"""The label of every sample in the shards is that of the published set, read here by tarfile and webdataset alone."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import webdataset
from checkout import REAL_DATA
from matrix import with_slow_rest

from conf.schema import Data
from models.data.shards import writer

REAL = REAL_DATA / "transfer"
pytestmark = [
    pytest.mark.skipif(not REAL.is_dir(), reason="no real images: ../shared/data is absent"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # webdataset's reader does not close it
]


def is_photo(name: str) -> bool:
    return name.endswith((".jpg", ".png")) and not PurePosixPath(name).name.startswith("._")


def published(archive: Path, label_of: Any) -> dict[str, str]:
    """The class by digest of each image, from the names in the archive."""
    stated: dict[str, str] = {}
    with tarfile.open(archive) as reader:
        for member in reader:
            if member.isfile() and is_photo(member.name):
                content = reader.extractfile(member)
                assert content is not None
                stated[hashlib.sha256(content.read()).hexdigest()] = label_of(PurePosixPath(member.name))
    return stated


def sharded(data: Data, root: Path) -> dict[str, str]:
    """The class by digest of each image in the shards."""
    layout = writer.plan(data, f"file://{root}")
    for numbers in writer.groups(layout, data.shards_per_task):
        writer.write_group(layout, numbers)
    classes = writer.write_manifest(layout)[1].classes
    shards = sorted(map(str, Path(layout.root.removeprefix("file://")).rglob("*.tar")))
    samples = [sample for shard in shards for sample in list(webdataset.WebDataset(shard, shardshuffle=False))]
    return {
        hashlib.sha256(sample.get("jpg", sample.get("png"))).hexdigest(): classes[int(sample["cls"])]
        for sample in samples
    }


@pytest.mark.parametrize(
    ("source", "archive", "label_of"),
    with_slow_rest(
        [
            ("folder", "flowers17-12x80.tar", lambda path: path.parts[-2]),
            ("food101", "food-101-10x40.tar", lambda path: path.parts[-2]),
            ("pets", "oxford-iiit-pet-37x10.tar", lambda path: path.stem.rpartition("_")[0]),
        ]
    ),
)
def test_labels_after_sharding_are_those_of_the_published_archive(
    source: str, archive: str, label_of: Any, tmp_path: Path
) -> None:
    truth = published(REAL / archive, label_of)
    data = Data(name="real", source=source, path=str(REAL / archive), allow_partial=True, verify_images=False)
    labels = sharded(data, tmp_path)
    assert len(labels) > 300
    assert labels == {digest: label for digest, label in truth.items() if digest in labels}
    assert len(truth) - len(labels) <= 5  # the lists of a set may omit images of its archive


@pytest.mark.slow
def test_labels_of_the_same_images_in_the_layout_of_hugging_face_are_equal(tmp_path: Path) -> None:
    """``train/metadata.csv`` and ``test/metadata.jsonl`` with equal names in both folders."""
    archive = REAL / "flowers17-12x80.tar"
    truth = published(archive, lambda path: path.parts[-2])
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    with tarfile.open(archive) as reader:
        for member in (one for one in reader if is_photo(one.name)):
            split, label = PurePosixPath(member.name).parts[-3:-1]
            name = f"{len(rows[split]):04d}.jpg"
            rows[split].append((name, label))
            content = reader.extractfile(member)
            assert content is not None
            (tmp_path / "set" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / split / name).write_bytes(content.read())
    text = "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in rows["train"])
    (tmp_path / "set" / "train" / "metadata.csv").write_text(text)
    lines = "".join(f'{{"file_name": "{name}", "label": "{label}"}}\n' for name, label in rows["test"])
    (tmp_path / "set" / "test" / "metadata.jsonl").write_text(lines)
    data = Data(name="real", source="folder", path=str(tmp_path / "set"), verify_images=False)
    assert sharded(data, tmp_path / "store") == truth
