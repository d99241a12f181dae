"""Reads CIFAR's pickles as data: nothing that a file names is imported or called.

``pickletools`` lists the opcodes first, without executing them, and all but those of plain data and of numpy arrays are
refused. The unpickler then resolves the names of an array's pickle to a recorder, and no other name.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from dataclasses import dataclass
from typing import Any

from infra.errors import DataError

_NUMPY = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }
)
_OPCODES = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE
    BININT BININT1 BININT2 INT LONG LONG1 BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_DICT EMPTY_LIST EMPTY_TUPLE DICT LIST TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    GLOBAL STACK_GLOBAL REDUCE BUILD
"""
_ALLOWED = frozenset(_OPCODES.split())
_MAX_CONTAINERS = 1000  # CIFAR's files have about ten; deep nesting would overflow the stack


@dataclass(frozen=True)
class Array:
    """An array of bytes of shape ``shape`` in C order; its content begins at byte ``start`` of the file."""

    shape: tuple[int, ...]
    start: int


class _Recorder:
    """Stands for a numpy name: records the arguments of a call and the state that is set."""

    __slots__ = ("arguments", "name", "state")  # without a dictionary, which a pickle could fill

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None

    def __call__(self, *arguments: Any) -> _Recorder:
        return _Recorder(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY:
            raise pickle.UnpicklingError(f"it imports {module}.{name}")
        return _Recorder(name)


def read(data: bytes, where: str) -> dict[str, Any]:
    """Returns the dictionary in a pickle; byte strings become text in latin-1, arrays of bytes become ``Array``.

    Args:
        data: The file.
        where: Its location, for messages.

    Raises:
        DataError: The file is damaged, or contains more than data.
    """
    try:
        positions = _check_opcodes(data)
        result = _Unpickler(io.BytesIO(data), encoding="latin-1").load()
        if not isinstance(result, dict):
            raise pickle.UnpicklingError("it is not a dictionary")
        return {
            str(key): _to_array(value, data, positions) if isinstance(value, _Recorder) else value
            for key, value in result.items()
        }
    except Exception as error:  # of a dozen kinds, depending on the damage
        raise DataError(f"{where} is not a pickle of plain data: {error}; nothing in it was executed") from error


def _check_opcodes(data: bytes) -> list[int]:
    """Returns the position of every opcode, if all of them are allowed."""
    positions, containers = [], 0
    for number, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        positions.append(position or 0)
        if opcode.name not in _ALLOWED:
            raise pickle.UnpicklingError(f"opcode {opcode.name} at byte {position}")
        # The unpickler allocates a table as long as the largest number.
        if opcode.name.endswith("PUT") and int(argument or 0) > number:
            raise pickle.UnpicklingError(f"memo {argument} at byte {position}")
        containers += "TUPLE" in opcode.name or "DICT" in opcode.name or "LIST" in opcode.name
        if containers > _MAX_CONTAINERS:
            raise pickle.UnpicklingError(f"more than {_MAX_CONTAINERS} lists, dictionaries and tuples")
    return positions


def _to_array(recorder: _Recorder, data: bytes, positions: list[int]) -> Array:
    if recorder.name != "_reconstruct":
        raise pickle.UnpicklingError(f"it calls numpy.{recorder.name}")
    _, shape, dtype, is_fortran, content = recorder.state
    raw = content.encode("latin-1") if isinstance(content, str) else content
    size = 1
    for side in shape:
        size *= side
    if dtype.arguments[0] != "u1" or is_fortran or len(raw) != size:
        raise pickle.UnpicklingError(f"an array of shape {shape} that is not of plain bytes")
    # The content is the argument of an opcode, so it ends where the next opcode begins.
    starts = (end - size for end in positions if end >= size)
    return Array(tuple(shape), next(start for start in starts if data.startswith(raw, start)))
