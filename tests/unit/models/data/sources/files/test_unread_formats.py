"""Files of other tools that hold many images: each is named as what it is, with what opens it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_archives import data_settings, open_tree, photo, write_tree

from infra.errors import ConfigError
from models.data.sources.catalog import open_source
from models.data.sources.files.unread_formats import find_format

FORMATS = {
    "00000.tfrecord": "TFRecord of TensorFlow",
    "cifar10/3.0.2/cifar10-train.tfrecord-00000-of-00001": "TFRecord of TensorFlow",
    "train-00000-of-01024": "TFRecord of TensorFlow",
    "tfrecords/ld_train00-1338.tfrec": "TFRecord of TensorFlow",
    "x-train.array_record-00000-of-00001": "ArrayRecord of TFDS",
    "data/train-00000-of-00001.parquet": "Parquet, as of Hugging Face",
    "train/data-00000-of-00001.arrow": "Arrow, as of Hugging Face",
    "train_lmdb/data.mdb": "LMDB",
    "train.lmdb": "LMDB",
    "train.h5": "HDF5",
    "train.npz": "NumPy",
    "train.beton": "FFCV",
    "train/shard.00000.mds": "MosaicML Streaming",
    "train/shard.00000.mds.zstd": "MosaicML Streaming",
    "train.rec": "RecordIO of MXNet",
    "train/chunk-0-0.bin": "litdata",
    "train_X.bin": "STL-10",
    "train-images-idx3-ubyte.gz": "IDX of MNIST",
    "data_batch_1": "a batch of CIFAR-10, which data=cifar10 reads",
    "train.sqlite": "SQLite",
    "train.zarr/0.0.0": "Zarr",
    "train.pkl": "pickle",
}
HEADS = {
    b"PAR1": "Parquet, as of Hugging Face",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"ARROW1\0\0": "Arrow, as of Hugging Face",
    b"\0" * 16 + b"\xde\xc0\xef\xbe": "LMDB",
}


@pytest.mark.parametrize(("name", "form"), FORMATS.items())
def test_a_tree_without_images_is_refused_with_the_format_of_its_files(name: str, form: str, tmp_path: Path) -> None:
    files = {name: b"\0\x01\x02" * 100, "dataset_info.json": b"{}"}
    said = f"{name} ({form}) may hold images and is not read: save them as files CLASS/IMAGE, or as WebDataset shards"
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, files | {f"{label}/{i}.jpg": photo(i) for label in "ab" for i in range(2)}).classes


@pytest.mark.parametrize(("head", "form"), HEADS.items())
def test_a_format_is_recognized_by_its_bytes(head: bytes, form: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"train.dat ({form}) may hold images")):
        open_tree(tmp_path, {"train.dat": head + bytes(range(200))})


@pytest.mark.parametrize("name", ["train.parquet", "train.beton", "train-00000-of-01024"])
def test_a_path_to_such_a_file_is_refused_with_its_format(name: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path, {name: b"\0\x01\x02" * 100})
    for source, path in (("folder", root / name), ("webdataset", root)):
        with pytest.raises(ConfigError, match=re.escape(f"{name} ({FORMATS.get(name) or find_name(name)}) may hold")):
            open_source(data_settings(source, path))


def test_arrays_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.npy \(NumPy\) may hold images and is not read: .*numpy\.load and PIL"):
        open_tree(tmp_path, {"x.npy": b"\x93NUMPY\x01\0" + bytes(90), "y.npy": b"\x93NUMPY\x01\0" + bytes(50)})


def test_such_files_beside_images_are_named_by_their_format(tmp_path: Path) -> None:
    files = {f"{label}/{i}.jpg": photo(i) for label in "ab" for i in range(2)} | {"train.beton": b"\0\x01" * 50}
    assert open_tree(tmp_path, files).unused == ("1 files in the format FFCV, first train.beton",)


def find_name(name: str) -> str:
    form = find_format(name)
    return "" if form is None else form.name
