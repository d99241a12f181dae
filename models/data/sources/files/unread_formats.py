"""Files in which other tools keep many images or arrays, which are not read: what they are, and what opens them.

Sources of the names: tensorflow.org/datasets (``-train.tfrecord-00000-of-00001``), the ImageNet TFRecords of
github.com/tensorflow/models (``train-00000-of-01024``), huggingface.co/docs/datasets (``dataset_info.json`` beside
Arrow), docs.ffcv.io, docs.mosaicml.com (``shard.00000.mds``), github.com/Lightning-AI/litdata (``chunk-0-0.bin``),
mxnet.apache.org (``.rec`` beside ``.idx``), cs.toronto.edu/~kriz/cifar.html and cs.stanford.edu/~acoates/stl10.
Of the first bytes: the specification of each format.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from models.data.sources.files.image_format import UNKNOWN, describe_files

_ARRAYS = "PIL.Image.fromarray(array).save(NAME)"
_HUGGING_FACE = 'row["image"].save(NAME) of each row'


class UnreadFormat(NamedTuple):
    """A format: its name, the pattern of the names of its files, and what opens them."""

    name: str
    pattern: re.Pattern[str]
    opener: str


_FORMATS = tuple(
    UnreadFormat(name, re.compile(pattern, re.IGNORECASE), opener)
    for name, pattern, opener in (
        ("Parquet, as of Hugging Face", r"\.parquet$", f"datasets.load_dataset and {_HUGGING_FACE}"),
        ("Arrow, as of Hugging Face", r"\.(arrow|feather)$", f"datasets.load_from_disk and {_HUGGING_FACE}"),
        ("TFRecord of TensorFlow", r"\.tfrec(ords?)?\b", "tf.data.TFRecordDataset, or tfds.load for a set of TFDS"),
        ("ArrayRecord of TFDS", r"\.array_record\b", "tfds.data_source"),
        ("TFRecord of TensorFlow", r"-\d{5}-of-\d{5}$", "tf.data.TFRecordDataset, or tfds.load for a set of TFDS"),
        ("HDF5", r"\.(h5|hdf5|hdf|he5)$", f"h5py.File and {_ARRAYS}"),
        ("NumPy", r"\.np[yz]$", f"numpy.load and {_ARRAYS}"),
        ("MATLAB", r"\.mat$", f"scipy.io.loadmat and {_ARRAYS}"),
        ("LMDB", r"(^|/)data\.mdb$|\.lmdb$", "lmdb.open"),
        ("LevelDB", r"leveldb/|\.ldb$", "plyvel.DB"),
        ("SQLite", r"\.(sqlite3?|db)$", "sqlite3.connect"),
        ("RecordIO of MXNet", r"\.rec$", "mxnet.recordio.MXIndexedRecordIO"),
        ("FFCV", r"\.(beton|ffcv)$", "what its DatasetWriter has read"),
        ("MosaicML Streaming", r"\.mds(\.\w+)?$", "streaming.StreamingDataset"),
        ("litdata", r"(^|/)chunk-\d+-\d+(\.\w+)?\.bin$", "litdata.StreamingDataset"),
        ("a batch of CIFAR-10, which data=cifar10 reads", r"(^|/)data_batch_\d$", f"pickle and {_ARRAYS}"),
        ("a batch of CIFAR-10, whose Python version data=cifar10 reads", r"(^|/)data_batch_\d\.bin$", _ARRAYS),
        ("STL-10", r"(^|/)\w+_x\.bin$", f"numpy.fromfile and {_ARRAYS}"),
        ("IDX of MNIST", r"-ubyte$", f"torchvision.datasets.MNIST and {_ARRAYS}"),
        ("Zarr", r"\.zarr/", f"zarr.open and {_ARRAYS}"),
        ("Lance", r"\.lance/", "lance.dataset"),
        ("Deep Lake", r"(^|/)(dataset_meta|tensor_meta)\.json$", "deeplake.open"),
        ("pickle", r"\.(pkl|pickle)$", f"pickle and {_ARRAYS}"),
        ("PyTorch", r"\.(pt|pth)$", f"torch.load and {_ARRAYS}"),
        ("safetensors", r"\.safetensors$", f"safetensors.numpy.load_file and {_ARRAYS}"),
    )
)
_SIGNATURES = (
    (b"PAR1", ".parquet"),
    (b"ARROW1", ".arrow"),
    (b"\x89HDF", ".h5"),
    (b"\x93NUMPY", ".npy"),
    (b"SQLite format 3\0", ".sqlite"),
    (b"\x0a\x23\xd7\xce", ".rec"),
    (b"MATLAB 5.0", ".mat"),
)
_LMDB_PLACE, _LMDB = 16, b"\xde\xc0\xef\xbe"  # of the magic number in the first page


def find_format(name: str, head: bytes = b"") -> UnreadFormat | None:
    """Returns the format of a file by its first bytes, or else by its name; None for other files."""
    suffix = next((suffix for signature, suffix in _SIGNATURES if head.startswith(signature)), "")
    suffix = suffix or ".lmdb" * (head[_LMDB_PLACE:].startswith(_LMDB))
    known = suffix or re.sub(r"\.(gz|bz2|xz|zst)$", "", name, flags=re.IGNORECASE)
    return next((one for one in _FORMATS if one.pattern.search(known)), None)


def describe(name: str, form: UnreadFormat) -> str:
    """Returns a remark on a file that may hold the images, and what to do."""
    return (
        f"{name} ({form.name}) may hold images and is not read: save them as files CLASS/IMAGE, or as WebDataset "
        f"shards for data=webdataset, by {form.opener}"
    )


def describe_unread(kind: str, name: str) -> str:
    """Returns the plural of what a file of a format of ``image_format.py`` is, by its name if the format is unknown."""
    form = find_format(name) if kind == UNKNOWN else None
    return describe_files(kind) if form is None else f"files in the format {form.name}"
