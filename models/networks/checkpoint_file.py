"""Reads the tensors of a checkpoint that others wrote: safetensors, or a pickle of which only tensors are read.

A pickle is read by torch's restricted reader (``weights_only``), which runs no code of the file. Objects of other
classes in it, as the ``argparse.Namespace`` in timm's checkpoints, are replaced by empty mappings. A file that
names functions which start programs or evaluate code is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from conf.text import list_some, logger
from infra.errors import ArtifactError, ConfigError
from models.networks.unread_weights import describe_content, describe_part, describe_suffix

log = logger()
PICKLES = (".pth", ".pt", ".bin", ".pth.tar", ".ckpt")
# Keys under which tools save a state dict, and its moving average.
_PLAIN = ("state_dict", "model", "model_state_dict", "module", "net", "params")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
_CLASSES = frozenset(("class_to_idx", "idx_to_class", "classes", "class_names", "labels"))  # keys beside the tensors
_REMEDY = "torch.save(model.state_dict(), FILE), where the model can be loaded, saves its tensors alone"
_ZIP = b"PK\x03\x04"
_NEWEST_PROTOCOL = 3  # of pickle, that torch's restricted reader knows
_OLD_PICKLES = 4  # of a file of torch before 1.6: a magic number, a version, the machine, and the content
_DEEPEST = 3  # keys above the names of a network
# Modules whose functions a harmless checkpoint does not name.
_DANGEROUS = frozenset(
    (
        *("os", "posix", "nt", "sys", "subprocess", "commands", "importlib", "imp", "runpy", "shutil", "socket", "pty"),
        *("code", "codeop", "ctypes", "pickle", "_pickle", "marshal", "types", "builtins", "__builtin__", "functools"),
        *(
            "operator",
            "webbrowser",
            "multiprocessing",
            "threading",
            "pathlib",
            "tempfile",
            "http",
            "urllib",
            "copyreg",
            "copy_reg",
        ),
    )
)  # commands and copy_reg are the names of subprocess and copyreg in files of protocol 2
_HARMLESS = frozenset(
    (
        "types.SimpleNamespace",
        # Python 3.13 has the classes in pathlib._local.
        *(f"pathlib.{place}{kind}Path" for place in ("", "_local.") for kind in ("", "Posix", "Windows")),
        *(f"pathlib.{place}Pure{kind}Path" for place in ("", "_local.") for kind in ("", "Posix", "Windows")),
        *("builtins.list", "builtins.dict", "builtins.set", "builtins.int", "builtins.float", "builtins.str"),
        *("builtins.frozenset", "builtins.range", "builtins.slice"),
    )
)


class _Skipped:
    """Takes the place of a class that is not read: its objects become empty, except for the items of a mapping.

    Torch's reader fills exact types only, and Lightning saves settings in subclasses of ``dict``.
    """

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


class _SkippedList:
    """As ``_Skipped``, for ``collections.deque``, whose items are read after it."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return []


class _SkippedArray:
    """As ``_Skipped``, for values of NumPy, as the best accuracy: their state is no mapping."""

    def __new__(cls, *_: Any, **__: Any) -> _SkippedArray:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def read(data: bytes, file: str, weights: str | None = None) -> dict[str, Tensor]:
    """Reads the tensors of a network from a ``.safetensors`` file or a pickle, at the top or under a usual key.

    Args:
        data: Content of the file, whose first bytes tell the format.
        file: Name of the file; its suffix counts only where they do not, as in a damaged file.
        weights: ``model`` or ``ema``, of a file that has both; None for ``ema`` where there is one.

    Raises:
        ConfigError: unsupported file type, or the file has no weights of the requested kind.
        ArtifactError: the file is damaged, holds no named tensors, or could execute code; nothing of it is executed.
    """
    suffix = _suffix_of(data, file)
    if suffix and not data:
        raise ArtifactError(f"{file} is empty")
    if part := describe_part(file):
        raise ArtifactError(f"{file} {part}")
    known = (".safetensors", *PICKLES)
    if suffix == ".safetensors":
        try:
            return safetensors.torch.load(data)
        except Exception as error:  # as below
            what = "" if b"\0" in data[:8] else describe_content(data, known)  # a length, whose first byte may be any
            damaged = f"damaged or not a safetensors file: {_summarize(error)}"
            raise ArtifactError(f"{file} is {what or damaged}") from error
    if what := describe_content(data, known) or ("" if suffix else describe_suffix(file)):
        raise (ArtifactError if suffix else ConfigError)(f"{file} is {what}")
    if suffix not in PICKLES:
        raise ConfigError(
            f"{file} is neither {', '.join(known[:-1])} nor {known[-1]}; save the state dict of a PyTorch network in "
            "one of these formats"
        )
    whole = _load(data, file)
    content = _select(whole, file, weights)
    if names := sorted(_CLASSES.intersection(map(str, whole))):
        log.info("%s: %s is not read; published.class_file=FILE gives the names of the classes", file, names[0])
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    unusable = [str(key) for key, value in tensors.items() if not isinstance(key, str) or not _is_plain(value)]
    others = [str(key) for key in content if key not in tensors]
    if unusable:
        raise ArtifactError(
            f"{file}: {list_some(unusable)} are no plain tensors but quantized, complex, sparse or without a name: "
            "save the state dict of the network in float32"
        )
    if packed := [key for key in others if key.endswith("_packed_params")]:
        raise ArtifactError(f"{file}: {packed[0]} is of a quantized network: save the state dict of the one in float32")
    networks = [str(key) for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
    if not tensors and len(networks) > 1:
        raise ArtifactError(f"{file} holds several networks, {list_some(networks)}: save the state dict of one of them")
    if not tensors:
        held = f"{list_some(others)}, of which none is a tensor" if others else "no tensors"
        are_arrays = any(isinstance(value, _SkippedArray) for value in content.values())
        of_arrays, usual = "torch.from_numpy makes tensors of arrays of NumPy", "save the state dict of the network"
        raise ArtifactError(f"{file} holds {held}: {of_arrays if are_arrays else usual}")
    if others:
        log.info("%s: %d entries are no tensors and are skipped, as %s", file, len(others), ", ".join(others[:5]))
    return tensors


def _suffix_of(data: bytes, file: str) -> str:
    """Returns the usual suffix of the format by the first bytes, or else the suffix of the name."""
    header = int.from_bytes(data[:8], "little")  # length of the JSON of a safetensors file
    if 2 <= header <= len(data) - 8 and data[8:9] == b"{" and data[8:500].lstrip(b"{ ").startswith(b'"'):
        return ".safetensors"
    if data.startswith((_ZIP, b"\x80\x02")):
        return PICKLES[0]
    known = (".safetensors", *PICKLES)
    return next((suffix for suffix in known if file.lower().endswith(suffix)), "")


def _load(data: bytes, file: str, stubs: Sequence[tuple[type, str]] = ()) -> Any:
    """Unpickles what is made of tensors and plain values; other objects become those of stubs, by their names."""
    try:
        with torch.serialization.safe_globals(list(stubs)):
            return _unpickle(data)
    except pickle.UnpicklingError as error:
        names = () if stubs else _list_globals(data)
        if not names or any(map(_is_dangerous, names)):
            raise ArtifactError(f"{file} is refused: {_describe_refusal(data, names)}") from error
    except Exception as error:  # torch's reader raises almost any exception on random bytes
        raise ArtifactError(f"{file} is damaged or was not written by torch.save: {_summarize(error)}") from error
    log.info("%s: objects of %s are skipped, only tensors are read", file, list_some(names))
    return _load(data, file, [(_stub_of(name), name) for name in names])


def _describe_refusal(data: bytes, names: Sequence[str]) -> str:
    if dangerous := [name for name in names if _is_dangerous(name)]:
        return f"it names {list_some(dangerous)}, by which a pickle could execute code; {_REMEDY}"
    if _uses_later_protocol(data):
        limit = f"pickle_protocol above {_NEWEST_PROTOCOL}"
        return f"it was saved by pickle or with a {limit}, which is not read; {_REMEDY}"
    if data.startswith(_ZIP) or data[:1] == b"\x80":
        return (
            f"damaged, or a pickle that holds more than tensors, such as a whole model, and could run code; {_REMEDY}"
        )
    return "it is damaged, or no file of torch.save"


def _unpickle(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its oldest file format
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _list_globals(data: bytes) -> Sequence[str]:
    """Returns the classes and functions that a pickle names beyond those of tensors; empty if it cannot be told."""
    try:
        archive = data if data.startswith(_ZIP) else _archive_pickle(data)
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(archive)))
    except Exception:  # noqa: BLE001 - of any kind on random bytes
        return ()


def _archive_pickle(data: bytes) -> bytes:
    """Returns the pickle of a file of torch before 1.6 as an archive of later ones, of which torch lists the names."""
    stream, start = io.BytesIO(data), 0
    for _ in range(_OLD_PICKLES):
        start = stream.tell()
        deque(pickletools.genops(stream), maxlen=0)  # which reads to the end of a pickle
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("x/data.pkl", data[start : stream.tell()])
        members.writestr("x/version", "3")
    return archive.getvalue()


def _stub_of(name: str) -> type:
    """Returns what takes the place of a class or function."""
    if name.startswith("numpy."):
        return _SkippedArray
    return _SkippedList if name == "collections.deque" else _Skipped


def _uses_later_protocol(data: bytes) -> bool:
    """Whether the pickle is of a protocol that torch's restricted reader does not know; torch writes protocol 2."""
    try:
        if data.startswith(_ZIP):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    except Exception:  # noqa: BLE001 - as above
        return False
    return data[:1] == b"\x80" and _NEWEST_PROTOCOL < data[1] <= pickle.HIGHEST_PROTOCOL


def _is_dangerous(name: str) -> bool:
    return name.partition(".")[0] in _DANGEROUS and name.replace("__builtin__.", "builtins.") not in _HARMLESS


def _select(content: Any, file: str, weights: str | None) -> Mapping[Any, Any]:
    """Returns the mapping that holds the tensors: the content itself, or what is under one of the usual keys."""
    if isinstance(content, OrderedDict) and not content:
        raise ArtifactError(f"{file} holds a whole model or another object, whose code is not run: {_REMEDY}")
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ArtifactError(f"{file} holds a {kind}, not the named tensors of a network: {_REMEDY}")
    plain, averaged = _list_networks(content, file)
    if weights == "ema" and not averaged and plain and any(is_averaged(str(key)) for key in content[plain[0]]):
        weights = None  # both are under one key, told apart by their prefixes (wrappers.strip_wrappers)
    chosen = plain if weights == "model" else averaged if weights == "ema" else averaged or plain
    if not chosen:
        if weights == "ema" or (weights == "model" and averaged):
            held = ", ".join([*plain, *averaged]) or "one set of tensors"
            raise ConfigError(f"{file} has no weights of the kind published.weights={weights}; it holds {held}")
        if _has_tensors(content):
            return content
        nested = dict(_find_nested(content, _DEEPEST))
        if len(nested) != 1:
            return content
        log.info("%s: the weights are taken from %s", file, min(nested))
        return nested[min(nested)]
    if averaged and plain:
        kind, other = ("model", plain[0]) if chosen is averaged else ("ema", averaged[0])
        log.info("%s: the weights are taken from %s; published.weights=%s takes %s", file, chosen[0], kind, other)
    else:
        log.info("%s: the weights are taken from %s", file, chosen[0])
    return _select(content[chosen[0]], file, None)


def _list_networks(content: Mapping[Any, Any], file: str) -> tuple[list[Any], list[Any]]:
    """Returns the keys of the raw weights and of their moving averages; the usual ones come first.

    Source: Lightning's ``WeightAveraging`` callback saves the average as ``state_dict``.
    """
    if {"averaging_state", "current_model_state", "state_dict"} <= content.keys():
        return ["current_model_state"], ["state_dict"]
    usual = [key for key in (*_PLAIN, *_AVERAGED) if isinstance(content.get(key), Mapping)]
    if usable := [key for key in usual if any(True for _ in _find_nested(content[key], _DEEPEST))]:
        for key in usual:
            if key not in usable and key in _AVERAGED and content[key]:
                log.warning("%s: %s has no tensors with names, and is not used", file, key)
        usual = usable
    others = [key for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
    others = [key for key in others if key not in usual]
    averaged = [key for key in usual if key in _AVERAGED] + [key for key in others if is_averaged(str(key))]
    plain = [key for key in usual if key in _PLAIN]
    rest = [key for key in others if key not in averaged]
    return plain or (rest if averaged and len(rest) == 1 else []), averaged


def _find_nested(content: Mapping[Any, Any], deepest: int, path: str = "") -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yields the mappings that hold tensors by names, and the keys above them; those of optimizers have numbers."""
    if any(isinstance(value, Tensor) and isinstance(key, str) for key, value in content.items()):
        yield path, content
    elif deepest:
        for key, value in content.items():
            if isinstance(value, Mapping) and isinstance(key, str):
                yield from _find_nested(value, deepest - 1, f"{path}.{key}".lstrip("."))


def is_averaged(name: str) -> bool:
    """Whether a part of a name says that it belongs to an average of weights, as ``ema_model.conv_stem.weight``."""
    return not {"ema", "swa"}.isdisjoint(re.split(r"[._]", name))


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _summarize(error: Exception) -> str:
    """Returns an error's first sentence in one line; for errors that name only a byte or a key, their type."""
    words = " ".join(str(error).split()).partition(". ")[0][:200]
    return words if isinstance(error, RuntimeError | OSError | safetensors.SafetensorError) else type(error).__name__


def _is_plain(value: Tensor) -> bool:
    """Whether it is a dense CPU tensor of real numbers; a file may also describe sparse, meta and quantized tensors."""
    is_dense = value.device.type == "cpu" and value.layout is torch.strided
    return is_dense and not (value.is_quantized or value.is_complex())
