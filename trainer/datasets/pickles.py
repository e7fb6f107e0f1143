"""Reads pickled NumPy arrays, dictionaries, lists, tuples, text and numbers, and refuses everything else by name.

Python's own unpickler calls whatever a file asks for, and reserves as much memory as a file says. This one knows the
few opcodes and NumPy functions that data sets need, checks every size against the file before it reserves anything,
and copies no array: arrays are read-only views of the file mapped into memory, so gigabytes take a moment.

Protocols 2 to 5, of Python 3 and of Python 2, whose strings are bytes: short ones are read as text (Latin-1).
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickletools import opcodes
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import check_regular

_T = TypeVar("_T")
_TODO: Final = "get the file from its source again; do not open it with other tools"
_MAX_BYTES: Final = 1 << 40
_PROTOCOLS: Final = range(2, 6)
_SHORT: Final = 256  # bytes from which a Python-2 string is data rather than text
_DTYPE: Final = re.compile(r"[|<>=]?([biuf][1248]|[SU]\d{1,4}|O[48]?)")
_KEYS: Final = (str, int, bytes)  # of dictionaries


def load_pickle(path: Path) -> Any:
    """Returns the object in a file. Arrays and byte strings of 256 bytes or more are read-only views of the file.

    Raises DataError if the file is missing or damaged, or asks for anything but the types above.
    """
    try:
        check_regular(path, _MAX_BYTES)
        with path.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: empty
        raise DataError("cannot be read", str(path), "check the path and its permissions") from error
    return loads_pickle(content, str(path))


def loads_pickle(content: bytes | mmap.mmap, where: str) -> Any:
    """Returns the object in `content`, like `load_pickle`. where: names the source in errors."""
    machine = _Machine(memoryview(content).toreadonly())
    try:
        return machine.run()
    except _Refused as error:
        raise DataError(str(error), where, _TODO) from None
    except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
        raise DataError("is no pickle, or a damaged one", where, _TODO) from error


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array is a view of a mapped file, and so takes no memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap) or (isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap))


class _Refused(Exception):
    """The pickle asks for something that is not allowed."""


@dataclass
class _Unbuilt:
    """What REDUCE makes and BUILD completes: numpy pickles a dtype or an array in these two steps."""

    build: Callable[[Any], Any]  # from the state of BUILD
    memo_keys: list[int] = field(default_factory=list)  # where to put the completed object, too


@dataclass(frozen=True)
class _Function:
    """A function that a pickle may call; nothing else on the stack can be called."""

    call: Callable[..., Any]


class _Machine:
    """The pickle machine: a stack, marks in it, and a memo."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Returns the object. Raises _Refused, or ValueError, TypeError, LookupError and others if damaged."""
        while True:
            opcode = self.take(1)[0]
            if opcode == ord("."):  # STOP
                (result,) = self.stack
                return result
            handler = _HANDLERS.get(opcode)
            if handler is None:
                name = next((known.name for known in opcodes if known.code == chr(opcode)), hex(opcode))
                raise _Refused(f"holds the pickle opcode {name}, which is not allowed")
            handler(self)

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        end = self.position + count
        if not self.position <= end <= len(self.content):
            raise ValueError("runs past the end")
        part = self.content[self.position : end]
        self.position = end
        return part

    def number(self, layout: struct.Struct) -> int:
        (value,) = layout.unpack(self.take(layout.size))
        return int(value)

    def line(self) -> str:
        """The next line, without its end; only names of globals are written as lines."""
        start = self.position
        while bytes(self.take(1)) != b"\n":
            if self.position - start > _SHORT:
                raise ValueError("a name is too long")
        return bytes(self.content[start : self.position - 1]).decode("utf-8")

    def since_mark(self) -> list[Any]:
        """Takes what was pushed since the last mark."""
        height = self.marks.pop()
        items = self.stack[height:]
        del self.stack[height:]
        return items

    def remember(self, key: int) -> None:
        value = self.stack[-1]
        if isinstance(value, _Unbuilt):
            value.memo_keys.append(key)
        self.memo[key] = value

    def extend_list(self, items: list[Any]) -> None:
        _checked(self.stack[-1], list).extend(items)

    def update_dict(self, items: list[Any]) -> None:
        keys = items[0::2]
        if not all(isinstance(key, _KEYS) for key in keys):
            raise ValueError("a key is neither text nor a number")
        _checked(self.stack[-1], dict).update(zip(keys, items[1::2], strict=True))

    def find(self, module: str, name: str) -> None:
        if (module, name) not in _GLOBALS:
            raise _Refused(f"asks for {module}.{name}, which is not allowed")
        self.stack.append(_GLOBALS[module, name])

    def reduce(self) -> None:
        arguments = _checked(self.stack.pop(), tuple)
        self.stack[-1] = _checked(self.stack[-1], _Function).call(*arguments)

    def build(self) -> None:
        state = self.stack.pop()
        unbuilt = _checked(self.stack[-1], _Unbuilt)
        built = unbuilt.build(state)
        self.stack[-1] = built
        self.memo.update(dict.fromkeys(unbuilt.memo_keys, built))


def _checked(value: Any, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
    return value


# --- what a pickle may call ------------------------------------------------------------------------------------


def _dtype(specification: Any, *_flags: Any) -> _Unbuilt:
    """numpy.dtype(specification, align, copy), completed by a state whose second element is the byte order."""
    text = _bytes_of(specification).decode("latin-1")
    if not _DTYPE.fullmatch(text):
        raise _Refused(f"holds an array of type {text!r}, which is not allowed")

    def build(state: Any) -> np.dtype[Any]:
        # numpy's own __setstate__ would take sizes, offsets and flags from the file, too.
        order = _bytes_of(_checked(state, tuple)[1]).decode("latin-1")
        kind: np.dtype[Any] = np.dtype(text)
        return kind if order == "|" else kind.newbyteorder("=" if order == "=" else _checked_order(order))

    return _Unbuilt(build)


def _checked_order(order: str) -> Any:
    if order not in ("<", ">"):
        raise ValueError(f"{order!r} is no byte order")
    return order


def _reconstruct(array_type: Any, _shape: Any, _kind: Any) -> _Unbuilt:
    """An array, completed by the state (version, shape, dtype, is Fortran-ordered, content)."""
    if array_type is not _NDARRAY:
        raise _Refused("holds an array of a class of its own, which is not allowed")

    def build(state: Any) -> NDArray[Any]:
        _, final_shape, dtype, is_fortran, content = _checked(state, tuple)
        return _array(content, dtype, final_shape, "F" if is_fortran else "C")

    return _Unbuilt(build)


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """The array of `shape` with this content: bytes, or a list for an array of objects."""
    kind: np.dtype[Any] = _checked(dtype, np.dtype)
    if not all(isinstance(size, int) and size >= 0 for size in _checked(shape, tuple)) or order not in ("C", "F"):
        raise ValueError("no shape of an array")
    count = math.prod(shape)
    if kind.kind == "O":
        objects = _checked(content, list)
        if len(objects) != count:
            raise ValueError("an array's content is not as long as its shape says")
        flat = np.empty(count, object)
        for index, item in enumerate(objects):
            flat[index] = item
        return flat.reshape(shape, order=order)
    data = _bytes_of(content)
    if len(data) != count * kind.itemsize:
        raise ValueError("an array's content is not as long as its shape says")
    if count == 0:
        return np.empty(shape, kind)
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    if _checked(dtype, np.dtype).kind == "O":
        raise _Refused("holds a NumPy scalar of objects, which is not allowed")
    return _array(content, dtype, (1,), "C")[0]


def _encode(text: Any, encoding: Any) -> bytes:
    """bytes, as Python 3 writes them in protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"asks for the encoding {encoding!r}, which is not allowed")
    return _checked(text, str).encode("latin-1")


def _bytes_of(value: Any) -> Any:
    """bytes or a view of them; short Python-2 strings were read as text."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, bytes | memoryview):
        raise TypeError(f"expected bytes, not {type(value).__name__}")
    return value


_NDARRAY: Final = object()
_GLOBALS: Final[dict[tuple[str, str], object]] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Function(_dtype),
    ("_codecs", "encode"): _Function(_encode),
    ("__builtin__", "bytes"): _Function(lambda: b""),  # no bytes, as Python 3 writes them in protocol 2
} | {
    (f"numpy.{core}.{module}", name): _Function(function)
    for core in ("core", "_core")  # the package's name before and since NumPy 2
    for module, name, function in (
        ("multiarray", "_reconstruct", _reconstruct),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _array),  # protocol 5: content, dtype, shape, order
    )
}


# --- opcodes ---------------------------------------------------------------------------------------------------

_U1, _U2, _I4, _U4, _U8 = (struct.Struct(layout) for layout in ("<B", "<H", "<i", "<I", "<Q"))


def _protocol(machine: _Machine) -> None:
    if machine.number(_U1) not in _PROTOCOLS:
        raise ValueError("an unknown protocol")


def _frame(machine: _Machine) -> None:
    # A frame only says how much to read ahead; here everything is in memory.
    if machine.number(_U8) > len(machine.content) - machine.position:
        raise ValueError("a frame runs past the end")


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(make(machine))


def _integer(layout: struct.Struct) -> Callable[[_Machine], None]:
    return _push(lambda machine: machine.number(layout))


def _text(length: struct.Struct) -> Callable[[_Machine], None]:
    return _push(lambda machine: str(machine.take(machine.number(length)), "utf-8", "surrogatepass"))


def _string(length: struct.Struct) -> Callable[[_Machine], None]:
    """A string of Python 2."""

    def make(machine: _Machine) -> str | memoryview:
        part = machine.take(machine.number(length))
        return str(part, "latin-1") if len(part) < _SHORT else part

    return _push(make)


def _data(length: struct.Struct) -> Callable[[_Machine], None]:
    """Bytes of Python 3."""

    def make(machine: _Machine) -> bytes | memoryview:
        part = machine.take(machine.number(length))
        return bytes(part) if len(part) < _SHORT else part

    return _push(make)


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def make(machine: _Machine) -> None:
        if len(machine.stack) < count:
            raise IndexError("the stack is empty")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return make


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.update_dict([key, value])


def _stack_global(machine: _Machine) -> None:
    name, module = _checked(machine.stack.pop(), str), _checked(machine.stack.pop(), str)
    machine.find(module, name)


def _put(layout: struct.Struct) -> Callable[[_Machine], None]:
    return lambda machine: machine.remember(machine.number(layout))


def _get(layout: struct.Struct) -> Callable[[_Machine], None]:
    return _push(lambda machine: machine.memo[machine.number(layout)])


_HANDLERS: Final[dict[int, Callable[[_Machine], None]]] = {
    0x80: _protocol,  # PROTO
    0x95: _frame,  # FRAME
    ord("("): lambda machine: machine.marks.append(len(machine.stack)),  # MARK
    ord("N"): _push(lambda _: None),  # NONE
    0x88: _push(lambda _: True),  # NEWTRUE
    0x89: _push(lambda _: False),  # NEWFALSE
    ord("J"): _integer(_I4),  # BININT
    ord("K"): _integer(_U1),  # BININT1
    ord("M"): _integer(_U2),  # BININT2
    0x8A: _push(lambda machine: int.from_bytes(machine.take(machine.number(_U1)), "little", signed=True)),  # LONG1
    ord("G"): _push(lambda machine: struct.unpack(">d", machine.take(8))[0]),  # BINFLOAT
    ord("U"): _string(_U1),  # SHORT_BINSTRING
    ord("T"): _string(_I4),  # BINSTRING
    ord("C"): _data(_U1),  # SHORT_BINBYTES
    ord("B"): _data(_U4),  # BINBYTES
    0x8E: _data(_U8),  # BINBYTES8
    0x96: _data(_U8),  # BYTEARRAY8
    0x8C: _text(_U1),  # SHORT_BINUNICODE
    ord("X"): _text(_U4),  # BINUNICODE
    0x8D: _text(_U8),  # BINUNICODE8
    ord("]"): _push(lambda _: []),  # EMPTY_LIST
    ord("a"): lambda machine: machine.extend_list([machine.stack.pop()]),  # APPEND
    ord("e"): lambda machine: machine.extend_list(machine.since_mark()),  # APPENDS
    ord(")"): _push(lambda _: ()),  # EMPTY_TUPLE
    ord("t"): _push(lambda machine: tuple(machine.since_mark())),  # TUPLE
    0x85: _tuple_of(1),  # TUPLE1
    0x86: _tuple_of(2),  # TUPLE2
    0x87: _tuple_of(3),  # TUPLE3
    ord("}"): _push(lambda _: {}),  # EMPTY_DICT
    ord("s"): _set_item,  # SETITEM
    ord("u"): lambda machine: machine.update_dict(machine.since_mark()),  # SETITEMS
    ord("q"): _put(_U1),  # BINPUT
    ord("r"): _put(_U4),  # LONG_BINPUT
    0x94: lambda machine: machine.remember(len(machine.memo)),  # MEMOIZE
    ord("h"): _get(_U1),  # BINGET
    ord("j"): _get(_U4),  # LONG_BINGET
    ord("c"): lambda machine: machine.find(machine.line(), machine.line()),  # GLOBAL
    0x93: _stack_global,  # STACK_GLOBAL
    ord("R"): lambda machine: machine.reduce(),  # REDUCE
    ord("b"): lambda machine: machine.build(),  # BUILD
}
