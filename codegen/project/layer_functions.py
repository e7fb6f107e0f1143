"""Functions of single layers: kernels that are compiled once for each shape, in pmeta_layers.c.

Such a kernel is declared PMETA_INLINE in its header and takes a shape first. In a function of its own, where the shape
and the types of stored rows are constants, the compiler writes out its blocks. All steps and predictions share them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.plan.program import Argument, Call, Constant
from pmeta.codegen.project.c_text import shape_struct, wrapped
from pmeta.codegen.project.kernel_files import headers_of
from pmeta.codegen.project.templates import files_in, render

HEADER = "pmeta_layers.h"
PREFIX = "pmeta_layer_"  # of the functions: a layer's name is the user's
ROW_TYPES = ("PMETA_FLOAT32", "PMETA_FLOAT16", "PMETA_INT8")  # pmeta_rows.h


@dataclass(frozen=True)
class LayerFunction:
    """One function: a kernel with a shape, and row types, that are constants."""

    kernel: str
    shape: Constant
    fixed: tuple[str | None, ...]  # of the arguments behind the shape: the constant; None: a parameter

    @property
    def name(self) -> str:
        """In C; unique, as shapes' names are."""
        layer = self.shape.name.removesuffix("_shape")
        types = [text.removeprefix("PMETA_").lower() for text in self.fixed if text not in (None, ROW_TYPES[0])]
        operation = self.kernel.removeprefix(self.shape.value.struct.removesuffix("shape"))
        return PREFIX + "_".join([layer, operation, *filter(None, types)])

    def arguments(self, call: Call) -> tuple[Argument, ...]:
        """What a call passes."""
        pairs = zip(call.arguments[1:], self.fixed, strict=True)
        return tuple(argument for argument, constant in pairs if constant is None)


def layer_function(call: Call) -> LayerFunction | None:
    """The function that a call calls; None where it calls its kernel."""
    if call.function not in inline_kernels():
        return None
    shape, *others = call.arguments
    if not isinstance(shape, Constant):
        raise AssertionError(f"{call.function} begins with no shape")
    return LayerFunction(call.function, shape, tuple(a if a in ROW_TYPES else None for a in others))


def layer_files(plan: Plan, common: Mapping[str, Any]) -> dict[str, str]:
    """File name -> text of pmeta_layers.h and .c; none where no kernel is compiled for shapes."""
    calls = (call for program in (*plan.adapt, plan.predict) for call in program.calls)
    functions = list(dict.fromkeys(f for call in calls if (f := layer_function(call)) is not None))
    if not functions:
        return {}
    values = {
        **common,
        "kernel_headers": headers_of(function.kernel for function in functions),
        "type_headers": _type_headers(functions),
        "shapes": [shape_struct(shape) for shape in dict.fromkeys(function.shape for function in functions)],
        "functions": [_function(function) for function in functions],
    }
    return {
        HEADER: render("model/pmeta_layers.h.j2", **values),
        "pmeta_layers.c": render("model/pmeta_layers.c.j2", **values),
    }


@cache
def inline_kernels() -> Mapping[str, tuple[str, ...]]:
    """The kernels that are compiled for shapes, with the declarations of the parameters behind the shape."""
    texts = (re.sub(r"\s*/\*.*?\*/", "", text, flags=re.DOTALL) for text in files_in("kernels", (".h",)).values())
    pattern = r"^PMETA_INLINE void (\w+)\(const \w+_shape \*s,([^()]*)\);"
    found = (match for text in texts for match in re.findall(pattern, text, flags=re.MULTILINE))
    return {name: tuple(" ".join(part.split()) for part in parameters.split(",")) for name, parameters in found}


def _type_headers(functions: Iterable[LayerFunction]) -> list[str]:
    """The kernels' headers that define the types of parameters; others may be missing from the library."""
    types = {word for f in functions for part in inline_kernels()[f.kernel] for word in re.findall(r"pmeta_\w+", part)}
    pattern = rf"^typedef [^;{{}}]* (?:{'|'.join(sorted(types))});"
    texts = files_in("kernels", (".h",)).items()
    return [name for name, text in texts if types and re.search(pattern, text, flags=re.MULTILINE)]


def _function(function: LayerFunction) -> dict[str, Any]:
    """Its declaration and its only statement."""
    declared = inline_kernels()[function.kernel]
    pairs = list(zip(declared, function.fixed, strict=True))
    parameters = [parameter for parameter, constant in pairs if constant is None]
    passed = [constant or re.findall(r"\w+", parameter)[-1] for parameter, constant in pairs]
    return {
        "signature": "\n".join(wrapped(f"void {function.name}(", parameters, ")")),
        "statement": "\n    ".join(wrapped(f"{function.kernel}(", [f"&{function.shape.name}", *passed])),
    }
