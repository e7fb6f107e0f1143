"""Kernels under AddressSanitizer: every array is allocated by itself, and one byte beyond it ends the program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pmeta.codegen.boards import native_flags
from pmeta.codegen.plan.program import ShapeConstants
from tests.compiled import compiler
from tests.kernels import Argument, Fenced, layer_of
from tests.sanitized import SANITIZE, Flags, fast_linker, sanitized_kernels

SECONDS = 60
FLAGS = (*native_flags(), "-O0", *SANITIZE)  # without optimization it compiles soonest
HEAD = "#include <stdlib.h>\n#include <string.h>\n"
TENSOR = """
static void *tensor(size_t bytes)
{
    void *memory = malloc(bytes);
    memset(memory, 0, bytes);
    return memory;
}
"""


def assert_stays_inside(calls: Sequence[tuple[str, Sequence[Argument]]], folder: Path, variant: Flags) -> None:
    """Calls of kernels that are compiled for shapes, with zeros for what is `Fenced` memory.

    variant: of the kernels, one of `tests.sanitized.VARIANTS`.
    """
    sources, statements = [], []
    for number, (function, arguments) in enumerate(calls):
        sources.append(layer_of(function, arguments).source(f"call{number}"))
        statements.append(_statement(f"call{number}", arguments))
    program, text = folder / "program", folder / "program.c"
    main = "\n".join(["int main(void)", "{", *statements, "    return 0;", "}"])
    text.write_text("\n".join([HEAD, *sources, TENSOR, main]) + "\n", encoding="utf-8")
    objects = sanitized_kernels(variant)
    include = f"-I{Path(objects[0]).parent}"
    command = [compiler(), *FLAGS, *variant, *fast_linker(), include, "-o", str(program), str(text), *objects]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, env=os.environ, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[:3000]


def _statement(entry: str, arguments: Sequence[Argument]) -> str:
    """A block that allocates, calls and frees."""
    shape, *others = arguments
    assert isinstance(shape, ShapeConstants)
    tensors = [(f"t{n}", each.array.nbytes) for n, each in enumerate(others) if isinstance(each, Fenced)]
    names = [f"t{n}" if isinstance(each, Fenced) else _literal(each) for n, each in enumerate(others)]
    lines = [*(f"void *{name} = tensor({size});" for name, size in tensors)]
    lines += [f"{entry}({', '.join(['NULL', *names])});", *(f"free({name});" for name, _ in tensors)]
    return "\n".join(["    {", *(f"        {line}" for line in lines), "    }"])


def _literal(argument: Argument) -> str:
    assert argument is None or isinstance(argument, int)
    return "NULL" if argument is None else str(argument)
