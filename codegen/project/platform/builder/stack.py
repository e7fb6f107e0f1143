"""How deep the stack can grow: GCC's call graph with each function's frame (-fcallgraph-info=su), summed along calls.

    bound = deepest(read_graph(files), ["board_start"])

Standard library only. What the figures do not tell (recursion, arrays of variable length, calls through pointers,
functions of other compilers) is never guessed: the bound is then an `Unbounded` that says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

INDIRECT = "__indirect_call"  # what GCC calls the target of a call through a pointer

NODE = re.compile(r'node: \{ title: "(.*?)" label: "(.*?)"')
EDGE = re.compile(r'edge: \{ sourcename: "(.*?)" targetname: "(.*?)"')
FRAME = re.compile(r"\\n(\d+) bytes \((.*?)\)")


@dataclass
class Function:
    """One function of the program."""

    file: str = ""  # where it is defined
    frame: int | None = None  # bytes; None where the compiler does not tell
    fixed: bool = False  # whether the frame is never larger
    calls: dict[str, None] = field(default_factory=dict)  # keys of the graph, in the order of the calls


@dataclass(frozen=True)
class Bound:
    """The most bytes of stack, and the chain of functions that takes them."""

    bytes: int
    chain: tuple[str, ...]


@dataclass(frozen=True)
class Unbounded:
    """Why there is no bound."""

    reason: str


def read_graph(files: Iterable[Path]) -> dict[str, Function]:
    """The call graph of all files that GCC wrote beside the objects; static functions have their file in the key."""
    graph: dict[str, Function] = {}
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            if node := NODE.match(line):
                _add_node(graph, *node.groups())
            elif edge := EDGE.match(line):
                graph[edge[1]].calls[edge[2]] = None
    return graph


def _add_node(graph: dict[str, Function], key: str, label: str) -> None:
    known = graph.setdefault(key, Function())
    if frame := FRAME.search(label):  # else it is only called here
        known.file = label.split(r"\n")[1].rsplit(":", 2)[0]
        known.frame, known.fixed = int(frame[1]), "dynamic" not in frame[2] or "bounded" in frame[2]


def deepest(graph: Mapping[str, Function], entries: Iterable[str]) -> Bound | Unbounded:
    """The bound over all chains of calls that begin in `entries`."""
    done: dict[str, Bound | Unbounded] = {}
    found = [_deepest(graph, key, (), done) for key in entries]
    unbounded = next((one for one in found if isinstance(one, Unbounded)), None)
    bounds = (one for one in found if isinstance(one, Bound))
    return unbounded or max(bounds, key=lambda bound: bound.bytes, default=Bound(0, ()))


def name(key: str) -> str:
    """The function's name, without the file of a static one."""
    return key.rpartition(":")[2]


def verdict(firmware: Bound | Unbounded, library: Bound | Unbounded, reserved: int) -> str:
    """One line: the bound of the whole firmware, the library's part of it, and what is reserved."""
    part = f" (lib/pmeta_model: {library.bytes} B)" if isinstance(library, Bound) else ""
    if isinstance(firmware, Unbounded):
        return f"unbounded, {firmware.reason}{part}; {reserved} B reserved"
    most = f"at most {firmware.bytes} B by the compiler's figures{part}"
    if firmware.bytes <= reserved:
        return f"{most}, {reserved} B reserved"
    chain = " > ".join(firmware.chain)
    return f"{most}, but only {reserved} B reserved; set board_build.stack_bytes in platformio.ini. Deepest: {chain}"


def _deepest(
    graph: Mapping[str, Function], key: str, callers: tuple[str, ...], done: dict[str, Bound | Unbounded]
) -> Bound | Unbounded:
    if key in callers:
        cycle = (*callers[callers.index(key) :], key)
        return Unbounded(f"recursion: {' calls '.join(map(name, cycle))}")
    if key not in done:
        done[key] = _sum(graph, key, callers, done)
    return done[key]


def _sum(
    graph: Mapping[str, Function], key: str, callers: tuple[str, ...], done: dict[str, Bound | Unbounded]
) -> Bound | Unbounded:
    """Its own frame, and the deepest of what it calls."""
    function = graph.get(key, Function())
    if function.frame is None:
        what = "a function through a pointer" if key == INDIRECT else f"{name(key)}, of which nothing is known"
        return Unbounded(f"{name(callers[-1])} calls {what}" if callers else f"the start is {what}")
    if not function.fixed:
        return Unbounded(f"{name(key)} has a frame of variable size")
    below = Bound(0, ())
    for called in function.calls:
        other = _deepest(graph, called, (*callers, key), done)
        if isinstance(other, Unbounded):
            return other
        below = max(below, other, key=lambda bound: bound.bytes)
    return Bound(function.frame + below.bytes, (name(key), *below.chain))
