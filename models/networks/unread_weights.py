"""Files of weights that are not read: what they are by their first bytes or their names, and what to do.

Sources of the signatures: the specification of each format; a plan of TensorRT begins with ``ftrt`` or ``ptrt``.
"""

from __future__ import annotations

import codecs
import io
import re
import zipfile
from collections.abc import Sequence

_ZIP = b"PK\x03\x04"
_HEAD_BYTES, _TAR_MAGIC = 512, 257  # bytes of a tar's first header, and where in it the format is named
_SHOWN = 60  # characters of a text that a message shows
_TENSORS = "save the state dict of a PyTorch network"
_TENSORFLOW = "timm has Google's weights for PyTorch, under the names tf_efficientnet"
_JOIN = (
    "join them, as by safetensors.torch.save_file({name: tensor for part in PARTS for name, tensor in "
    "safetensors.torch.load_file(part).items()}, FILE)"
)
_ENGINE = "an engine of TensorRT, which holds no weights that can be read: import those that it was built from"
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the file"),
    (b"<", "a web page or XML"),
    (b"{", "JSON text, as config.json or an error that a server reports; the tensors are in another file"),
    (b"\x89HDF", f"an HDF5 file, as Keras writes; {_TENSORS}; {_TENSORFLOW}"),
    (b"\x08", f"probably an ONNX or TensorFlow file; {_TENSORS}"),
    (b"ftrt", _ENGINE),
    (b"ptrt", _ENGINE),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "compressed by gzip; unpack it"),
    (b"\xfd7zXZ\x00", "compressed by xz; unpack it"),
    (b"BZh", "compressed by bzip2; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"Rar!", "a rar archive; unpack it"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"\x7fELF", "a program"),
)
# Formats of other tools that are told by the suffix alone.
_SUFFIXES = {
    ".onnx": "a file of ONNX",
    **dict.fromkeys((".engine", ".plan", ".trt"), _ENGINE),
    ".pdparams": "a file of PaddlePaddle",
    ".pdiparams": "a file of PaddlePaddle",
    ".params": "a file of MXNet",
    ".msgpack": "a file of Flax",
    **dict.fromkeys((".mlmodel", ".mlpackage"), "a model of Core ML"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), "a pickle, which could run code, and is not read"),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), f"a file of Keras; {_TENSORFLOW}"),
    ".npz": "a file of NumPy",
}
# Files that hold a part of a network, by their names.
_PARTS = (
    (
        re.compile(r"\.distcp$"),
        "is a part of a distributed checkpoint: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
        "FOLDER FILE makes one file of it",
    ),
    (
        re.compile(r"\.(data-\d{5}-of-\d{5}|ckpt(-\d+)?\.(index|meta))$"),
        f"is a file of a TensorFlow checkpoint: {_TENSORFLOW}",
    ),
    (
        re.compile(r"-\d{5}-of-(?!00001\.)\d{5}\.\w+$"),
        f"is one of several files with the tensors of a network: {_JOIN}",
    ),
)


def describe_part(file: str) -> str:
    """Returns of which network a file has a part by its name, as the rest of a sentence; empty for others."""
    return next((what for pattern, what in _PARTS if pattern.search(file)), "")


def describe_content(data: bytes, suffixes: Sequence[str]) -> str:
    """Returns what a file is by its content, other than a checkpoint, with an article; empty if it is not known.

    Args:
        data: Content of the file.
        suffixes: Those of the files that are read, for what an archive may hold.
    """
    head = data[:_HEAD_BYTES].removeprefix(codecs.BOM_UTF8).lstrip()  # a web page may begin with a line break
    if head.startswith(b"{") and b'"weight_map"' in data:
        return f"the index of several files, which hold the tensors: {_JOIN}"
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    if data[_TAR_MAGIC : _TAR_MAGIC + 5] == b"ustar":
        return "a tar archive; unpack it"
    if data.startswith(_ZIP):
        return _describe_zip(data, suffixes)
    return f"a TensorFlow Lite file; {_TENSORS}" if data[4:8] == b"TFL3" else _describe_text(head)


def describe_suffix(file: str) -> str:
    """Returns what a file is by its suffix, with an article and what to do; empty if it is not known."""
    what = next((what for suffix, what in _SUFFIXES.items() if file.lower().endswith(suffix)), "")
    return what if not what or ": " in what or "; " in what else f"{what}; {_TENSORS}"


def _describe_zip(data: bytes, suffixes: Sequence[str]) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:  # damaged, which torch's reader describes
        return ""
    if any(name.endswith(("/archive_format", ".pt2", "/serialized_exported_program.json")) for name in names):
        return "a program of torch.export; save the state dict of the network"
    if any(name.endswith("model.weights.h5") for name in names):
        return f"a model of Keras; {_TENSORS}; {_TENSORFLOW}"
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program; save the state dict of the network"
    if any(name.endswith("data.pkl") for name in names):
        return ""
    weights = [name for name in names if name.lower().endswith(tuple(suffixes))]
    return f"a zip archive of {[*weights, *names, 'nothing'][0]}{'; unpack it' * bool(weights)}"


def _describe_text(head: bytes) -> str:
    """Returns how a text begins, as the answer of a server that refuses a download; empty for other bytes."""
    lines = head.decode("utf-8", errors="replace").strip().splitlines()
    is_text = bool(lines) and lines[0].isascii() and all(line.replace("\t", " ").isprintable() for line in lines)
    return f"a text, which begins with {lines[0].strip()[:_SHOWN]!r}" if is_text else ""
