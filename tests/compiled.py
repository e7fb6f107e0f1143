"""The generated library, compiled for this computer and called from Python: the C side of differential tests.

The arena's free bytes can be filled with 0xAA, so that what the plan forgot to write shows as a wrong bit, and it lies
between two fences, so that what is written outside shows, too.
"""

from __future__ import annotations

import atexit
import copy
import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import native_flags
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.plan.program import Stage
from pmeta.codegen.plan.strategy import STRATEGIES, Strategy
from pmeta.codegen.project.c_source import Title, library_sources, sample_bytes, state_bytes
from pmeta.codegen.project.templates import files_in
from pmeta.codegen.support import STREAMED, Support
from pmeta.codegen.targets import Target

# The others are the kernels'.
MODEL_SOURCES = (
    *("pmeta_model.c", "pmeta_plan.c", "pmeta_layers.c", "pmeta_weights.c", "pmeta_weights.S"),
    *("pmeta_support.c", "pmeta_support_ram.c", "pmeta_support_flash.c"),
)
ARENA_SOURCE = "pmeta_plan.c"
FENCE_BYTES = 64
TITLE = Title(title="test", command="pmeta-gen --board native", model_sha256="0" * 64, firmware_id="5a" * 16)


def compiler() -> str:
    """The host's C compiler."""
    found = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    assert found is not None, "no C compiler on this machine"
    return found


def write_library(plan: Plan, folder: Path, support: Support = STREAMED) -> list[Path]:
    """Write lib/pmeta_model/src into `folder`; returns the files to compile."""
    sources = library_sources(plan, TITLE, support)
    for name, content in sources.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return sorted(folder / name for name in sources if name.endswith((".c", ".S")))


@functools.cache
def kernel_objects(options: tuple[str, ...] = ("-fPIC",), flags: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The kernels, which are the same for every model, as object files: compiled once; `flags` for native_flags()."""
    folder = Path(tempfile.mkdtemp(prefix="pmeta-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sources = files_in("kernels", (".c", ".h"))
    for name, text in sources.items():
        (folder / name).write_text(text, encoding="utf-8")
    files = [name for name in sources if name.endswith(".c")]
    subprocess.run([compiler(), *(flags or native_flags()), *options, "-c", *files], check=True, cwd=folder)
    return tuple(str((folder / name).with_suffix(".o")) for name in files)


@functools.cache
def fences() -> tuple[str, str]:
    """Object files of two arrays: linked before and behind the one that holds the arena, they lie around it."""
    folder = Path(tempfile.mkdtemp(prefix="pmeta-fences-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, alignment in (("before", FENCE_BYTES), ("behind", 1)):
        text = f"unsigned char fence_{name}[{FENCE_BYTES}] __attribute__((aligned({alignment})));\n"
        (folder / f"{name}.c").write_text(text, encoding="utf-8")
        subprocess.run([compiler(), *native_flags(), "-fPIC", "-c", f"{name}.c"], check=True, cwd=folder)
    return str(folder / "before.o"), str(folder / "behind.o")


def bytes_in_use(plan: Plan, step: int) -> npt.NDArray[np.bool_]:
    """Which bytes of the arena a weight or an accumulator occupies between two samples of a step."""
    used = np.zeros(plan.arena_bytes, bool)
    for weight in plan.learned:
        if step >= weight.steps[0]:
            offset = plan.offset("", weight.weight.name)
            used[offset : offset + weight.weight.bytes] = True
        if weight.gradient is not None and step in weight.steps[1:]:
            offset = plan.offset("", weight.gradient.name)
            used[offset : offset + weight.gradient.bytes] = True
    of_weights = {buffer.name for weight in plan.learned for buffer in (weight.weight, weight.gradient) if buffer}
    waits = Stage.GRADIENT in plan.program(step).stages
    for block in plan.blocks if waits else ():
        if not block.key[0] and block.key[1] not in of_weights:  # a micro-batch, or what attention sums over it
            offset = plan.offset(*block.key)
            used[offset : offset + block.bytes] = True
    return used


class CompiledModel:
    """The library of one model as a shared object."""

    def __init__(
        self,
        model: Model,
        folder: Path,
        edit_plan: Callable[[str], str] | None = None,
        strategies: Sequence[Strategy] = STRATEGIES,
        support: Support = STREAMED,
    ) -> None:
        """`edit_plan` changes the text of pmeta_plan.c before it is compiled: to break it on purpose."""
        self.model = model
        self.plan = make_plan(model, strategies)
        own = [str(path) for path in write_library(self.plan, folder, support) if path.name in MODEL_SOURCES]
        others = [path for path in own if not path.endswith(ARENA_SOURCE)]
        if edit_plan is not None:
            source = folder / "pmeta_plan.c"
            source.write_text(edit_plan(source.read_text(encoding="utf-8")), encoding="utf-8")
        library = folder / "libpmeta_model.so"
        before, behind = fences()
        inputs = [before, str(folder / ARENA_SOURCE), behind, *others, *kernel_objects()]
        flags = [*native_flags(), f"-I{folder}", "-fPIC", "-shared"]
        subprocess.run([compiler(), *flags, "-o", str(library), *inputs], check=True)
        self._load(library)

    def _load(self, library: Path) -> None:
        self._path, self._library = library, ctypes.CDLL(str(library))
        self._arena = (ctypes.c_uint8 * self.plan.arena_bytes).in_dll(self._library, "pmeta_arena")
        self._fences = self._fence("before"), self._fence("behind")
        start = ctypes.addressof(self._arena)
        around = [ctypes.addressof(fence) for fence in self._fences]
        assert around == [start - FENCE_BYTES, start + self.plan.arena_bytes], "the fences are not beside the arena"
        self._tensors = {weight.name: number for number, weight in enumerate(self.plan.learned)}

    def _fence(self, name: str) -> ctypes.Array[ctypes.c_uint8]:
        fence = (ctypes.c_uint8 * FENCE_BYTES).in_dll(self._library, f"fence_{name}")
        ctypes.memset(fence, 0xAA, FENCE_BYTES)
        return fence

    def assert_fenced(self) -> None:
        """AssertionError if anything was written right before or behind the arena."""
        intact = [bytes(fence) == b"\xaa" * FENCE_BYTES for fence in self._fences]
        assert all(intact), f"bytes {'behind' if intact[0] else 'before'} the arena were written"

    def restarted(self, folder: Path) -> CompiledModel:
        """The same library with its static memory as at the start of a program: a copy of the file, loaded anew."""
        other = copy.copy(self)
        other._load(Path(shutil.copy(self._path, folder / "restarted.so")))
        return other

    def poison(self) -> None:
        """Fill the whole arena with 0xAA; only meaningful where no weight or accumulator is live: after reset."""
        ctypes.memset(self._arena, 0xAA, self.plan.arena_bytes)

    def poison_free_bytes(self, step: int) -> None:
        """Fill with 0xAA what no weight or accumulator occupies between two samples of a step."""
        np.frombuffer(self._arena, np.uint8)[~bytes_in_use(self.plan, step)] = 0xAA

    def reset(self) -> None:
        self._library.pmeta_reset()

    def support_add(self, sample: npt.NDArray[np.generic], target: Target) -> int:
        """The status."""
        raw = np.ascontiguousarray(sample).tobytes()
        return int(self._library.pmeta_support_add(raw, _passed(target)))

    def support_clear(self) -> None:
        self._library.pmeta_support_clear()

    def support_count(self) -> int:
        return int(self._library.pmeta_support_count())

    def support_adapt_sample(self, index: int) -> int:
        """The status."""
        outputs, loss = np.empty(self.model.adaptation.ways, np.float32), ctypes.c_float()
        return int(self._library.pmeta_support_adapt_sample(index, _pointer(outputs), ctypes.byref(loss)))

    def adapt(self) -> int:
        """The status."""
        return int(self._library.pmeta_adapt(_pointer(np.empty(self.model.adaptation.ways, np.float32))))

    def restart_step(self) -> None:
        self._library.pmeta_restart_step()

    @property
    def step(self) -> int:
        return int(self._library.pmeta_step())

    @property
    def samples(self) -> int:
        return int(self._library.pmeta_samples())

    def adapt_sample(
        self, sample: npt.NDArray[np.generic], target: Target
    ) -> tuple[npt.NDArray[np.float32], np.float32]:
        """(logits, loss) with the weights before the step."""
        logits, loss = np.empty(self.model.adaptation.ways, np.float32), ctypes.c_float()
        status = self._adapt(sample, target, logits, loss)
        assert status == 0, f"pmeta_adapt_sample: status {status}"
        return logits, np.float32(loss.value)

    def try_adapt_sample(self, sample: npt.NDArray[np.generic], target: Target) -> int:
        """The status."""
        return self._adapt(sample, target, np.empty(self.model.adaptation.ways, np.float32), ctypes.c_float())

    def _adapt(
        self, sample: npt.NDArray[np.generic], target: Target, logits: npt.NDArray[np.float32], loss: ctypes.c_float
    ) -> int:
        raw = np.ascontiguousarray(sample).tobytes()
        assert len(raw) == sample_bytes(self.plan)
        status = int(self._library.pmeta_adapt_sample(raw, _passed(target), _pointer(logits), ctypes.byref(loss)))
        self.assert_fenced()
        return status

    def end_step(self, samples: int) -> None:
        status = self.try_end_step(samples)
        assert status == 0, f"pmeta_end_step: status {status}"

    def try_end_step(self, samples: int) -> int:
        """The status."""
        status = int(self._library.pmeta_end_step(ctypes.c_uint32(samples)))
        self.assert_fenced()
        return status

    def predict(self, sample: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        logits = np.empty(self.model.adaptation.ways, np.float32)
        self._library.pmeta_predict(np.ascontiguousarray(sample).tobytes(), _pointer(logits))
        self.assert_fenced()
        return logits

    def number(self, name: str) -> int:
        """A learned weight's number."""
        return self._tensors[name]

    def tensor_bytes(self, name: str) -> bytes:
        """Canonical bytes of a weight that learns."""
        return self.read(self.number(name), 0, self._library.pmeta_tensor_bytes(self.number(name)))

    def read(self, tensor: int, offset: int, count: int) -> bytes:
        out = ctypes.create_string_buffer(count)
        assert self._library.pmeta_tensor_read(tensor, offset, out, count) == 0
        return out.raw

    def try_read(self, tensor: int, offset: int, count: int) -> int:
        """The status of a read that must be refused; there is no room for what it would give."""
        u32 = ctypes.c_uint32
        return int(self._library.pmeta_tensor_read(u32(tensor), u32(offset), ctypes.c_char_p(), u32(count)))

    def tensor_crc32(self, name: str) -> int:
        crc = ctypes.c_uint32()
        assert self._library.pmeta_tensor_crc32(self.number(name), ctypes.byref(crc)) == 0
        return crc.value

    @property
    def state_bytes(self) -> int:
        return state_bytes(self.plan)

    def save(self) -> bytes:
        out = ctypes.create_string_buffer(self.state_bytes)
        assert self._library.pmeta_save(out, self.state_bytes) == 0
        return out.raw

    def try_save(self, capacity: int) -> int:
        """The status."""
        return int(self._library.pmeta_save(ctypes.create_string_buffer(capacity), capacity))

    def load(self, state: bytes) -> int:
        """The status."""
        return int(self._library.pmeta_load(state, len(state)))


def _passed(target: Target) -> ctypes.c_uint32 | ctypes.c_void_p:
    return ctypes.c_uint32(target) if isinstance(target, int) else _pointer(target)


def _pointer(array: npt.NDArray[np.float32]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)
