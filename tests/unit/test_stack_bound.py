"""The stack's bound: summed along the deepest chain of calls, and never where the compiler's figures do not suffice."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pmeta.codegen.project import platformio

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def stack() -> ModuleType:
    """The build script's module: it travels in the project, and is no part of the package."""
    path = Path(platformio.__file__).parent / "platform" / "builder" / "stack.py"
    spec = importlib.util.spec_from_file_location("pmeta_builder_stack", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def node(title: str, frame: str = "") -> str:
    """As GCC writes it: with a frame where the function is defined, without where it is only called."""
    name = title.rpartition(":")[2]
    label = f"{name}\\nlib/m/{name}.c:3:5" + (f"\\n{frame}\\n0 dynamic objects" if frame else "")
    return f'node: {{ title: "{title}" label: "{label}"{"" if frame else " shape : ellipse"} }}'


def edge(source: str, target: str) -> str:
    return f'edge: {{ sourcename: "{source}" targetname: "{target}" label: "a.c:9:1" }}'


def deepest(stack: ModuleType, folder: Path, *files: list[str], entry: str = "main") -> object:
    for number, lines in enumerate(files):
        (folder / f"{number}.ci").write_text("\n".join(['graph: { title: "a.c"', *lines, "}"]))
    return stack.deepest(stack.read_graph(sorted(folder.glob("*.ci"))), [entry])


def test_the_deepest_chain_counts(stack: ModuleType, tmp_path: Path) -> None:
    """Over several files; a function's frame may stand in another than its calls."""
    first = [node("main", "16 bytes (static)"), node("a"), edge("main", "a"), node("b"), edge("main", "b")]
    second = [node("a", "100 bytes (static)"), node("b", "40 bytes (dynamic,bounded)"), edge("b", "a")]
    bound = deepest(stack, tmp_path, first, second)
    assert bound == stack.Bound(156, ("main", "b", "a"))


def test_static_functions_of_one_name_are_two(stack: ModuleType, tmp_path: Path) -> None:
    files = [
        [node("main", "8 bytes (static)"), node("x.c:help", "32 bytes (static)"), edge("main", "x.c:help")],
        [node("y.c:help", "4096 bytes (static)")],
    ]
    assert deepest(stack, tmp_path, *files) == stack.Bound(40, ("main", "help"))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([edge("main", "f"), node("f", "8 bytes (static)"), edge("f", "f")], "recursion: f calls f"),
        (
            [node("f", "8 bytes (static)"), node("g", "0 bytes (static)"), edge("main", "f"), edge("f", "g")]
            + [edge("g", "main")],
            "recursion: main calls f calls g calls main",
        ),
        ([node("f", "8 bytes (dynamic)"), edge("main", "f")], "f has a frame of variable size"),
        ([node("__aeabi_fmul"), edge("main", "__aeabi_fmul")], "main calls __aeabi_fmul, of which nothing is known"),
        ([node("__indirect_call"), edge("main", "__indirect_call")], "main calls a function through a pointer"),
    ],
)
def test_what_is_not_known_is_not_summed(lines: list[str], reason: str, stack: ModuleType, tmp_path: Path) -> None:
    """Not in a branch that is not the deepest, either."""
    deep = [node("deep", "5000 bytes (static)")]
    main = [node("main", "16 bytes (static)"), edge("main", "deep")]
    assert deepest(stack, tmp_path, main, deep, lines) == stack.Unbounded(reason)


def test_a_missing_start_has_no_bound(stack: ModuleType, tmp_path: Path) -> None:
    bound = deepest(stack, tmp_path, [node("main", "16 bytes (static)")], entry="board_start")
    assert bound == stack.Unbounded("the start is board_start, of which nothing is known")


def test_no_entries_take_nothing(stack: ModuleType) -> None:
    """A project without lib/pmeta_model."""
    assert stack.deepest({}, []) == stack.Bound(0, ())


def test_verdicts(stack: ModuleType) -> None:
    bound, library = stack.Bound(476, ("board_start", "main")), stack.Bound(388, ("pmeta_predict",))
    assert stack.verdict(bound, library, 2048) == (
        "at most 476 B by the compiler's figures (lib/pmeta_model: 388 B), 2048 B reserved"
    )
    assert "but only 400 B reserved; set board_build.stack_bytes in platformio.ini. Deepest: board_start > main" in (
        stack.verdict(bound, library, 400)
    )
    unbounded = stack.Unbounded("recursion: f calls f")
    assert stack.verdict(unbounded, unbounded, 2048) == "unbounded, recursion: f calls f; 2048 B reserved"


SOURCE = """
struct large { int numbers[40]; };
void use(struct large *one);
static int twice(int n) { volatile int a[8]; a[0] = n; return a[0] * 2; }
int plain(int n) { return twice(n) + twice(n + 1); }
int through_pointer(int (*f)(int)) { return f(3) + 1; }
int recursive(int n) { volatile int a[4]; a[0] = n; return n ? recursive(n - 1) + a[0] : 0; }
int variable(int n) { volatile int a[n]; a[0] = n; return a[n - 1]; }
unsigned long long divided(unsigned long long a, unsigned long long b) { return a / b; }
void copied(struct large *one) { struct large other = *one; use(&other); }
"""


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="no GCC for Arm on this machine")
def test_what_gcc_writes_is_understood(stack: ModuleType, tmp_path: Path) -> None:
    """Calls that stand nowhere in the source, too."""
    (tmp_path / "a.c").write_text(SOURCE)
    flags = ["-mcpu=cortex-m3", "-mthumb", "-O2", "-fno-inline", "-fcallgraph-info=su", "-c", "a.c"]
    subprocess.run(["arm-none-eabi-gcc", *flags], cwd=tmp_path, check=True)
    graph = stack.read_graph([tmp_path / "a.ci"])
    bound = stack.deepest(graph, ["plain"])
    assert isinstance(bound, stack.Bound)
    assert bound.chain == ("plain", "twice")
    assert bound.bytes == graph["plain"].frame + graph["a.c:twice"].frame > 32
    assert graph["plain"].file == "a.c"
    for name, reason in {
        "through_pointer": "through_pointer calls a function through a pointer",
        "recursive": "recursion: recursive calls recursive",
        "variable": "variable has a frame of variable size",
        "divided": "divided calls __aeabi_uldivmod, of which nothing is known",
        "copied": "copied calls memcpy, of which nothing is known",
    }.items():
        assert stack.deepest(graph, [name]) == stack.Unbounded(reason)
