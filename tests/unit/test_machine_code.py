"""Stack figures of the compiler's own library, read from its machine code: never less than what the code takes."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from pmeta.codegen.boards import HIFIVE1_REVB, MPS2_AN385, Board
from pmeta.codegen.project import platformio

pytestmark = pytest.mark.unit

BUILDER = Path(platformio.__file__).parent / "platform" / "builder"

ARM = """
SYMBOL TABLE:
00000100 g     F .text\t00000008 main
00000110 g     F .text\t0000000c .hidden __aeabi_first
00000110 g     F .text\t0000000c .hidden __first
00000120 g     F .text\t0000000c .hidden __second
00000130 g     F .text\t0000000c .hidden __third

00000110 <__first>:
     110:\tpush\t{r4, r5-r7, lr}
     112:\tsub.w\tsp, sp, #24
     116:\tbeq.n\t112 <__first+0x2>
     118:\tbl\t124 <__second+0x4>
     11c:\tadd\tsp, #24
     11e:\tnop
00000120 <__second>:
     120:\tvpush\t{d8-d9}
     122:\tstr.w\tlr, [sp, #-8]!
     124:\tldr.w\tpc, [sp], #8
     128:\t.word\t0x00000130
00000130 <__third>:
     130:\tLAST
"""
# As objdump writes eight digits: nothing before them. What lies behind a function's code are constants.
RISCV = """
SYMBOL TABLE:
20010110 g     F .text\t0000000c .hidden __mulsf3
20010120 g     F .text\t00000002 .hidden __clzsi2

20010110 <__mulsf3>:
20010110:\tadd\tsp,sp,-32
20010112:\tsw\tra,28(sp)
20010114:\tjal\t20010120 <__clzsi2>
20010118:\tadd\tsp,sp,32
2001011a:\tret
20010120 <__clzsi2>:
20010120:\tLAST
20010122:\tjal\t20010110 <__mulsf3>
"""


@pytest.fixture(scope="module")
def machine_code() -> ModuleType:
    """The build script's module, which finds its neighbour beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BUILDER))
        return importlib.import_module("machine_code")


def test_all_that_moves_the_pointer_down_counts(machine_code: ModuleType) -> None:
    """By any name of a function; a branch inside it is no call, running into the next one is."""
    code = machine_code.Code(ARM.splitlines())
    first, second = code.function("__aeabi_first"), code.function("__second")
    assert (first.frame, list(first.calls)) == (5 * 4 + 24, ["__second"])
    assert (second.frame, list(second.calls)) == (2 * 8 + 8, [])
    assert code.function("nonesuch") is None


def test_riscv(machine_code: ModuleType) -> None:
    code = machine_code.Code(RISCV.replace("LAST", "ret").splitlines())
    assert (code.function("__mulsf3").frame, list(code.function("__mulsf3").calls)) == (32, ["__clzsi2"])
    assert (code.function("__clzsi2").frame, list(code.function("__clzsi2").calls)) == (0, [])


@pytest.mark.parametrize(
    "instruction",
    ["mov\tsp, r7", "sub.w\tsp, sp, r3", "ldmdb\tsp!, {r0}", "str.w\tr0, [sp, -r2]!", "ldr\tr0, [sp], #-4"],
)
def test_what_is_not_known_has_no_figure(machine_code: ModuleType, instruction: str) -> None:
    assert machine_code.Code(ARM.replace("LAST", instruction).splitlines()).function("__third") is None


@pytest.mark.parametrize("instruction", ["mv\tsp,s0", "sub\tsp,sp,a0"])
def test_what_is_not_known_on_riscv_has_no_figure(machine_code: ModuleType, instruction: str) -> None:
    assert machine_code.Code(RISCV.replace("LAST", instruction).splitlines()).function("__clzsi2") is None


@pytest.mark.parametrize("text", [ARM.replace("LAST", "blx\tr3"), ARM.replace("LAST", "blx\tr3\n     132:\tbx\tlr")])
def test_a_call_through_a_pointer_is_one(machine_code: ModuleType, text: str) -> None:
    assert machine_code.INDIRECT in machine_code.Code(text.splitlines()).function("__third").calls


SOURCE = """
float product(float a, float b) { return a * b; }
unsigned long long divided(unsigned long long a, unsigned long long b) { return a / b; }
void _start(void) { volatile float x = product(2.0f, 3.0f); volatile unsigned long long y = divided(9u, 2u); }
"""


@pytest.mark.parametrize("board", [MPS2_AN385, HIFIVE1_REVB], ids=lambda board: board.core)
def test_a_compiler_s_library(machine_code: ModuleType, board: Board, tmp_path: Path) -> None:
    """The call graph alone knows nothing of it; with the machine code there is a bound."""
    prefix = board.gnu_tools[0]
    if shutil.which(f"{prefix}-gcc") is None:
        pytest.skip(f"no {prefix}-gcc on this machine")
    (tmp_path / "a.c").write_text(SOURCE)
    compile_ = [f"{prefix}-gcc", *board.gcc_flags, "-O2", "-fno-inline", "-fcallgraph-info=su", "-ffreestanding"]
    subprocess.run([*compile_, "-c", "a.c"], cwd=tmp_path, check=True)
    subprocess.run([*compile_, "-nostdlib", "a.o", "-lgcc", "-o", "a.elf"], cwd=tmp_path, check=True)
    stack = importlib.import_module("stack")
    graph = stack.read_graph([tmp_path / "a.ci"])
    assert isinstance(stack.deepest(graph, ["_start"]), stack.Unbounded)
    machine_code.complete(graph, str(tmp_path / "a.elf"), f"{prefix}-objdump")
    bound = stack.deepest(graph, ["divided"])
    assert isinstance(stack.deepest(graph, ["product"]), stack.Bound)
    assert isinstance(bound, stack.Bound)
    assert graph["divided"].frame <= bound.bytes < 200
