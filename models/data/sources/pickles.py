"""The data in a pickle, without running the code in it: what CIFAR's files need and nothing more.

``pickle.load`` calls whatever function the file names. Here the opcodes are only walked over (``pickletools``
disassembles, it does not execute): lists, dictionaries, numbers and texts are built, a numpy array of bytes
becomes its shape and its place in the file, and any other name of a function or class is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infra.errors import DataError

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NAMES = frozenset({*((module, "_reconstruct") for module in _MODULES), ("numpy", "ndarray"), ("numpy", "dtype")})
_HEADER_BYTES = {"BINSTRING": 5, "BINBYTES": 5, "BINBYTES8": 9}  # opcode and length before the raw bytes
_LONG = 4096  # from here on a text is kept as its place
_MAX_STACK = 1_000_000
_CONSTANTS = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "INT",
        "LONG",
        "LONG1",
        "BINFLOAT",
        "SHORT_BINSTRING",
        "STRING",
        "BINSTRING",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BINBYTES8",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "UNICODE",
    }
)
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()


@dataclass
class Array:
    """Bytes of shape ``shape`` in C order, from position ``start`` of the file; ``shape`` is empty until known."""

    shape: tuple[int, ...] = ()
    start: int = -1


@dataclass
class _Named:
    """A name that is allowed, or what calling it would give."""

    name: tuple[str, str]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Place:
    """A long text, by where it lies."""

    start: int
    length: int


class _Refused(Exception):  # noqa: N818 - never leaves this file
    pass


def read(data: bytes, where: str) -> dict[str, Any]:
    """The dictionary that a pickle holds; byte strings come as text in latin-1, arrays as ``Array``.

    Raises:
        DataError: damaged, or it holds more than data.
    """
    walker = _Walker()
    try:
        for opcode, argument, position in pickletools.genops(data):
            walker.step(opcode.name, argument, position or 0)
        (result,) = walker.stack
        if not isinstance(result, dict):
            raise _Refused("it holds no dictionary")
    except (_Refused, ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise DataError(f"{where} is not a pickle of plain data: {error}; nothing in it was run") from error
    return {str(key): value for key, value in result.items()}


class _Walker:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        push = self.stack.append
        self._steps: dict[str, Callable[[Any], None]] = {
            "PROTO": _nothing,
            "FRAME": _nothing,
            "STOP": _nothing,
            "MARK": lambda _: push(_MARK),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_TUPLE": lambda _: push(()),
            "DICT": lambda _: push(_paired(self._marked())),
            "LIST": lambda _: push(self._marked()),
            "TUPLE": lambda _: push(tuple(self._marked())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "APPEND": lambda _: self._append([self.stack.pop()]),
            "APPENDS": lambda _: self._append(self._marked()),
            "SETITEM": lambda _: self._set([self.stack.pop(-2), self.stack.pop()]),
            "SETITEMS": lambda _: self._set(self._marked()),
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "PUT": self._put,
            "MEMOIZE": lambda _: self._put(len(self.memo)),
            "BINGET": self._get,
            "LONG_BINGET": self._get,
            "GET": self._get,
            "GLOBAL": lambda name: self._name(*name.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self._name(self.stack.pop(-2), self.stack.pop()),
            "REDUCE": self._reduce,
            "BUILD": self._build,
        }

    def step(self, opcode: str, argument: Any, position: int) -> None:
        """One opcode at ``position`` of the file."""
        if opcode in _CONSTANTS:
            long = opcode in _HEADER_BYTES and len(argument) >= _LONG
            text = argument.decode("latin-1") if isinstance(argument, bytes) and not long else argument
            self.stack.append(_Place(position + _HEADER_BYTES[opcode], len(argument)) if long else text)
        elif opcode in _LITERALS:
            self.stack.append(_LITERALS[opcode])
        elif opcode in self._steps:
            self._steps[opcode](argument)
        else:
            raise _Refused(f"opcode {opcode} at byte {position}")
        if len(self.stack) > _MAX_STACK:
            raise _Refused("too deep")

    def _marked(self) -> list[Any]:
        mark = len(self.stack) - 1
        while self.stack[mark] is not _MARK:
            mark -= 1
        items = self.stack[mark + 1 :]
        del self.stack[mark:]
        return items

    def _tuple(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _append(self, items: list[Any]) -> None:
        self.stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        self.stack[-1].update(_paired(items))

    def _put(self, key: Any) -> None:
        self.memo[int(key)] = self.stack[-1]

    def _get(self, key: Any) -> None:
        self.stack.append(self.memo[int(key)])

    def _name(self, module: str, name: str) -> None:
        if (module, name) not in _NAMES:
            raise _Refused(f"it asks for {module}.{name}")
        self.stack.append(_Named((module, name)))

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function.name[1] == "_reconstruct":
            self.stack.append(Array())
        elif function.name[1] == "dtype":
            self.stack.append(_Named(function.name, arguments))
        else:
            raise _Refused(f"it calls {'.'.join(function.name)}")

    def _build(self, _: Any) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, Array):
            _, shape, kind, fortran, place = state
            size = 1
            for side in shape:
                size *= side
            if kind.arguments[0] != "u1" or fortran or not isinstance(place, _Place) or place.length != size:
                raise _Refused(f"an array of shape {shape} that is no plain bytes")
            built.shape, built.start = tuple(shape), place.start
        elif not isinstance(built, _Named):
            raise _Refused("it sets the state of something")


def _nothing(_: Any) -> None: ...


def _paired(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))
