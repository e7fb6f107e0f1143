"""The C kernels, compiled for this computer and called one at a time: the C side of the operators' tests.

Each is compiled twice, with this computer's vectors and as the boards run it, without; both must do the same.

Signatures and structs are read from the kernels' headers, so a new kernel needs no entry here. Memory is guarded: what
a kernel writes lies between fences that `call` checks, what it only reads lies between NaN, so that one element too
many shows in a sum.
"""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmeta.codegen.boards import COMPILE_FLAGS, native_flags
from pmeta.codegen.plan.program import ShapeConstants
from pmeta.codegen.project.layer_functions import inline_kernels
from pmeta.codegen.project.templates import files_in
from pmeta.host.simulator.arithmetic import canonical_bytes
from tests.compiled import compiler, kernel_objects

Array = npt.NDArray[Any]
Flags = tuple[str, ...]

VECTORS: Flags = native_flags()
SCALAR: Flags = (*COMPILE_FLAGS, "-DPMETA_SCALAR")

FENCE = 64  # bytes before and after every array
UNWRITTEN = 0xAA  # what lies in memory that only kernels write
FOREIGN = 0xFF  # what lies around memory that kernels read; as float32 it is NaN

ELEMENTS: dict[str, tuple[type[np.generic], Any]] = {
    "float": (np.float32, ctypes.c_float),
    "int32_t": (np.int32, ctypes.c_int32),
    "uint32_t": (np.uint32, ctypes.c_uint32),
    "uint16_t": (np.uint16, ctypes.c_uint16),
    "uint8_t": (np.uint8, ctypes.c_uint8),
    "pmeta_float16": (np.uint16, ctypes.c_uint16),
}


# --- what a test passes --------------------------------------------------------------------------------------


class Fenced:
    """Memory that a kernel may write: `array`, between two fences."""

    def __init__(self, shape: Sequence[int], dtype: type[np.generic], around: int = UNWRITTEN) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.raw = np.full(2 * FENCE + size, around, np.uint8)
        self._around = around
        self.array: Array = self.raw[FENCE : FENCE + size].view(dtype).reshape(shape)

    def copy(self) -> Fenced:
        """The same memory once more."""
        return in_place(self.array, self._around)

    def bytes(self) -> bytes:
        """Of the array; any NaN is the canonical one."""
        return canonical_bytes(self.array) if self.array.dtype == np.float32 else self.array.tobytes()

    @property
    def intact(self) -> bool:
        """Whether nothing outside the array was written."""
        outside = np.concatenate([self.raw[:FENCE], self.raw[FENCE + self.array.nbytes :]])
        return bool((outside == self._around).all())


def unwritten(*shape: int, dtype: type[np.generic] = np.float32) -> Fenced:
    """Memory for an output: whatever the kernel leaves out stays 0xAA…"""
    return Fenced(shape, dtype)


def in_place(start: Array, around: int = UNWRITTEN) -> Fenced:
    """Memory that holds `start` and that the kernel changes."""
    memory = Fenced(start.shape, start.dtype.type, around)
    memory.array[...] = start
    return memory


@dataclass(frozen=True)
class Struct:
    """A struct with pointers, which `ShapeConstants` has none of."""

    struct: str
    fields: Mapping[str, int | float | Array]


Argument = Fenced | Array | ShapeConstants | Struct | np.generic | int | float | None


def call(function: str, *arguments: Argument, variants: Sequence[Flags] = (VECTORS, SCALAR)) -> float | None:
    """Call a kernel, compiled with each of these flags; all must give the same bits.

    None is NULL, an array is read only, what may be written must be `Fenced`.
    """
    copies = [_copies(arguments) for _ in variants[1:]]
    result = _call(variants[0], function, arguments)
    for flags, copied in zip(variants[1:], copies, strict=True):
        again = _call(flags, function, copied)
        assert again == result or (again != again and result != result), f"{function}: {again} instead of {result}"
        for one, other in zip(arguments, copied, strict=True):
            if isinstance(one, Fenced) and isinstance(other, Fenced):
                assert one.bytes() == other.bytes(), f"{function}: other bits with {' '.join(flags)}"
    return result


def _copies(arguments: Sequence[Argument]) -> list[Argument]:
    """What may be written once more; what was the same memory stays the same."""
    memory = {id(a): a.copy() for a in arguments if isinstance(a, Fenced)}
    return [memory.get(id(a), a) for a in arguments]


def _call(flags: Flags, function: str, arguments: Sequence[Argument]) -> float | None:
    inline = function in inline_kernels()
    kernel = _layer(flags, layer_of(function, arguments)) if inline else _kernels(flags)[function]
    alive: list[Fenced] = []  # until the kernel returns
    values = [
        _passed(f"{function}: {parameter.name}", parameter, argument, alive)
        for parameter, argument in zip(kernel.parameters, arguments, strict=True)
    ]
    result: float | None = kernel.entry(*values)
    for parameter, argument in zip(kernel.parameters, arguments, strict=True):
        if isinstance(argument, Fenced):
            assert argument.intact, f"{function} writes outside {parameter.name}"
    return result


def scalar_function(function: str) -> Callable[[float], float]:
    """A kernel that takes one number and gives one, ready to be called very often."""
    entry: Callable[[float], float] = _kernels(VECTORS)[function].entry
    return entry


# --- compiled once -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """A parameter of a kernel, or a field of a struct."""

    name: str
    ctype: str  # without const and *
    const: bool
    pointer: bool


@dataclass(frozen=True)
class Kernel:
    parameters: tuple[Declared, ...]
    entry: Any  # ctypes' function


@functools.cache
def headers() -> Mapping[str, str]:
    """Text of the kernels' headers without comments, by file name."""
    return {
        name: re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL) for name, text in files_in("kernels", (".h",)).items()
    }


def functions_in(header: str) -> dict[str, tuple[str, str]]:
    """Name -> (result, parameters) of what a header declares."""
    found = re.findall(r"^(?:PMETA_INLINE )?(\w+) (\w+)\(([^(){};]*)\);", headers()[header], flags=re.MULTILINE)
    return {name: (result, parameters) for result, name, parameters in found}


@functools.cache
def _kernels(flags: Flags) -> Mapping[str, Kernel]:
    """Those that know their shape only when they run."""
    library = _library(flags, ())
    return {
        name: _kernel(library, name, result, parameters)
        for header in headers()
        for name, (result, parameters) in functions_in(header).items()
        if name not in inline_kernels()
    }


@dataclass(frozen=True)
class Layer:
    """A kernel, and what is constant where it is compiled for a layer."""

    function: str
    struct: str
    fields: tuple[tuple[str, int | float], ...]  # of the shape
    type: int | None  # how rows are stored

    @property
    def declared(self) -> tuple[str, str]:
        """(result, parameters)."""
        found = (functions_in(header).get(self.function) for header in headers())
        return next(declared for declared in found if declared is not None)

    def source(self, entry: str) -> str:
        """C of a function with the kernel's parameters, as pmeta_layers.c has it."""
        result, parameters = self.declared
        names = [_declared(text).name for text in parameters.split(",")][1:]
        passed = [f"&{entry}_shape", *(str(self.type) if name == "type" else name for name in names)]
        values = ", ".join(f".{name} = {value}" for name, value in self.fields)
        lines = [
            f'#include "{function_header(self.function)}"',
            f"static const {self.struct} {entry}_shape = {{{values}}};",
            f"{result} {entry}({parameters});",
            f"{result} {entry}({parameters})",
            f"{{ (void)s; {'(void)type; ' * ('type' in names)}{self.function}({', '.join(passed)}); }}",
        ]
        return "\n".join(lines) + "\n"


def layer_of(function: str, arguments: Sequence[Argument]) -> Layer:
    """Of a kernel that is compiled for shapes, and what a call passes."""
    shape, *others = arguments
    assert isinstance(shape, ShapeConstants)
    types = [argument for argument in others if isinstance(argument, int)]
    return Layer(function, shape.struct, tuple(shape.fields.items()), types[0] if types else None)


@functools.cache
def _layer(flags: Flags, layer: Layer) -> Kernel:
    return _kernel(_library(flags, (layer.source("entry"),)), "entry", *layer.declared)


def answer(header: str, shape: ShapeConstants, expression: str, *arrays: Array) -> int:
    """What C code of a kernel's header says of a layer's `shape` and of float arrays a, b, ..."""
    names = "abcd"[: len(arrays)]
    values = ", ".join(f".{name} = {value}" for name, value in shape.fields.items())
    lines = [
        f'#include "{header}"',
        f"static const {shape.struct} shape = {{{values}}};",
        f"int entry({', '.join(f'const float *{name}' for name in names) or 'void'});",
        f"int entry({', '.join(f'const float *{name}' for name in names) or 'void'})",
        f"{{ (void)shape; return {expression}; }}",
    ]
    entry = _library((*VECTORS, "-O0"), ("\n".join(lines),)).entry
    entry.argtypes = [ctypes.c_void_p] * len(arrays)
    return int(entry(*(array.ctypes.data for array in arrays)))


def function_header(function: str) -> str:
    """The header that declares a kernel."""
    return next(header for header in headers() if function in functions_in(header))


def _library(flags: Flags, texts: tuple[str, ...]) -> ctypes.CDLL:
    """All kernels and these C files, compiled; the library stays loaded when its file is gone."""
    objects = kernel_objects(flags=flags)
    with tempfile.TemporaryDirectory() as folder:
        files = [*objects]
        for number, text in enumerate(texts):
            path = Path(folder) / f"{number}.c"
            path.write_text(text, encoding="utf-8")
            files.append(str(path))
        target = f"{folder}/libkernels.so"
        include = f"-I{Path(objects[0]).parent}"
        subprocess.run([compiler(), *flags, include, "-fPIC", "-shared", "-o", target, *files], check=True)
        return ctypes.CDLL(target)


def _kernel(library: ctypes.CDLL, name: str, result: str, parameters: str) -> Kernel:
    declared = tuple(_declared(text) for text in parameters.split(","))
    entry = getattr(library, name)
    entry.restype = None if result == "void" else ELEMENTS[result][1]
    entry.argtypes = [ctypes.c_void_p if p.pointer else ELEMENTS[p.ctype][1] for p in declared]
    return Kernel(declared, entry)


def _declared(text: str) -> Declared:
    """Of a declaration like `const float *x`."""
    found = re.fullmatch(r"\s*(const\s)?\s*(\w+)\s+(\*?)(\w+)\s*", text)
    assert found is not None, f"cannot read {text!r}: keep kernels' headers plain"
    return Declared(found[4], found[2], bool(found[1]), bool(found[3]))


@functools.cache
def _fields(struct: str) -> tuple[Declared, ...]:
    """The fields of a struct in the order of its header."""
    body = next(
        found[1]
        for text in headers().values()
        if (found := re.search(rf"typedef struct {struct} {{(.*?)}}", text, re.S))
    )
    fields = []
    for statement in filter(str.strip, body.split(";")):
        first, *others = statement.split(",")
        declared = _declared(first)
        fields += [declared, *(Declared(name.strip(), declared.ctype, False, False) for name in others)]
    return tuple(fields)


# --- from Python to C ----------------------------------------------------------------------------------------


def _passed(where: str, parameter: Declared, argument: Argument, alive: list[Fenced]) -> Any:
    """What ctypes passes for one argument; memory made for it goes into `alive`."""
    if not parameter.pointer:
        assert isinstance(argument, int | float | np.generic), where
        return argument.item() if isinstance(argument, np.generic) else argument
    if argument is None:
        return None
    if isinstance(argument, ShapeConstants | Struct):
        assert argument.struct == parameter.ctype, where
        raw = np.frombuffer(bytearray(_struct(argument, alive)), np.uint8)
        return _address(_read_only(raw, alive))
    if isinstance(argument, Fenced):
        memory = argument
    else:
        assert parameter.const, f"{where} may be written: pass unwritten(...) or in_place(...)"
        memory = _read_only(argument, alive)
    if parameter.ctype != "void":
        assert memory.array.dtype == ELEMENTS[parameter.ctype][0], f"{where} is {parameter.ctype}"
    return _address(memory)


def _read_only(array: Array, alive: list[Fenced]) -> Fenced:
    memory = in_place(array, FOREIGN)
    alive.append(memory)
    return memory


def _struct(values: ShapeConstants | Struct, alive: list[Fenced]) -> ctypes.Structure:
    """The struct as its header lays it out; the fields must be the same ones in the same order."""
    fields = _fields(values.struct)
    assert [field.name for field in fields] == list(values.fields), f"{values.struct}: not the fields of its header"
    types = [(f.name, ctypes.c_void_p if f.pointer else ELEMENTS[f.ctype][1]) for f in fields]
    layout = type(values.struct, (ctypes.Structure,), {"_fields_": types})
    return layout(*(_passed(f"{values.struct}.{f.name}", f, values.fields[f.name], alive) for f in fields))


def _address(memory: Fenced) -> int:
    return memory.array.ctypes.data
