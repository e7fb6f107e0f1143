"""Which kernel files a generated library needs: those that declare what it calls, and what they include."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from pmeta.codegen.project.templates import files_in, template_text


def headers_of(functions: Iterable[str]) -> tuple[str, ...]:
    """The kernels' headers that declare these functions, sorted; functions of C's own library have none."""
    wanted = set(functions)
    headers = files_in("kernels", (".h",))
    return tuple(name for name, text in headers.items() if wanted.intersection(_declared(text)))


def kernel_files(headers: Iterable[str]) -> dict[str, str]:
    """Name -> text of the headers, of those that the library's own code includes, and of all they need in turn."""
    available = files_in("kernels", (".c", ".h"))
    needed: dict[str, None] = {}
    waiting = [*headers, *_included(template_text("model/pmeta_model.c"), available)]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            pair = [file for file in (name, name.removesuffix(".h") + ".c") if file in available]
            needed.update(dict.fromkeys(pair))
            waiting.extend(header for file in pair for header in _included(available[file], available))
    return {name: available[name] for name in sorted(needed)}


def _declared(header: str) -> list[str]:
    without_comments = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    return re.findall(r"^\w[\w *]*?(\w+)\([^(){};]*\);", without_comments, flags=re.MULTILINE)


def _included(text: str, available: Mapping[str, str]) -> Iterator[str]:
    return (name for name in re.findall(r'^#include "(.*)"$', text, flags=re.MULTILINE) if name in available)
