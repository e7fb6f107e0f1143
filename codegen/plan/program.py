"""A program: the calls that process one sample, and the buffers they use. What the generated C executes, as data.

Some calls run in a loop over slices of the channels: a group of a GroupNormalization needs only its own channels, so a
convolution, its normalization, activation and pooling can go through one small buffer, slice by slice. In such a loop a
`Part` is what belongs to the current slice of a buffer; other buffers of the loop are filled anew for every slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import groupby
from math import prod

ALIGNMENT = 4  # bytes


class Role(Enum):
    """What a buffer is for; reports group by it."""

    MAP = "map"  # an activation between two layers
    STORE = "store"  # kept from the forward for the backward pass
    MASK = "mask"  # ReLU bits, winning pool taps
    GRADIENT = "gradient"  # of an activation
    ACCUMULATOR = "accumulator"  # of a weight's gradient, over the samples of one step
    WEIGHT = "weight"  # an updated weight
    BATCH = "micro-batch"  # its samples and targets, and what attention sums over it
    SCRATCH = "scratch"


class Stage(Enum):
    """Which part of the work on a micro-batch a call belongs to; its value is part of names in C.

    One sample at a time needs no stages. With more, meta attention averages over all of them before any weight gradient
    is computed: so each sample passes through the network once for every direction of attention, and once again.
    """

    SAMPLE = ""  # all of one sample
    FORWARD = "fw"  # of each sample: logits, loss, and what forward attention sees
    FORWARD_SCORES = "fw_scores"  # once: γ^fw
    BACKWARD = "bw"  # of each sample: what backward attention sees
    BACKWARD_SCORES = "bw_scores"  # once: γ^bw
    GRADIENT = "dw"  # of each sample: weight gradients


ELEMENT_BYTES = {"uint8_t": 1, "float": 4, "uint32_t": 4, "uint16_t": 2, "pmeta_float16": 2, "pmeta_int8": 1}


@dataclass(frozen=True)
class Buffer:
    """A typed piece of the arena."""

    name: str  # a C identifier, unique in its program
    ctype: str  # key of ELEMENT_BYTES
    shape: tuple[int, ...]  # of elements
    role: Role

    @property
    def bytes(self) -> int:
        """Size, rounded up to ALIGNMENT."""
        size = prod(self.shape) * ELEMENT_BYTES[self.ctype]
        return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Part(Buffer):
    """The part of a buffer that belongs to the current slice of a loop; `shape` is the part's."""

    whole: Buffer

    def __post_init__(self) -> None:
        if isinstance(self.whole, Part):
            raise AssertionError(f"impossible part {self}")

    @property
    def stride(self) -> int:
        """Elements from one slice's part to the next."""
        return prod(self.shape)


@dataclass(frozen=True)
class ShapeConstants:
    """The constant struct that tells a kernel an operator's shape."""

    struct: str  # C type
    fields: Mapping[str, int | float]  # in the order of the struct; floats are float32 values


@dataclass(frozen=True)
class Constant:
    """A shape struct by its C name; calls pass its address."""

    name: str
    value: ShapeConstants = field(compare=False)  # follows from the name


@dataclass(frozen=True)
class StoredInput:
    """What the weight gradient of a layer reads: `x`, and how it was thinned out by forward attention."""

    x: Buffer  # rows of the kept channels, or of all
    shape: tuple[int, ...]  # of what it holds, as float32
    kept: Buffer | None  # number and indices of the kept channels; None: all
    gamma: Buffer | None  # γ^fw (C,), where the backward pass needs it


@dataclass(frozen=True)
class Loop:
    """Calls that run once for every slice of the channels, one slice after the other."""

    name: str  # unique in its program
    slices: int


Argument = Buffer | Constant | str  # a string is a C expression


@dataclass(frozen=True)
class Call:
    """One kernel call. Buffers that it writes are named apart; it reads the other ones among its arguments."""

    function: str
    arguments: tuple[Argument, ...]
    written: tuple[Buffer, ...]  # among the arguments; includes what is changed in place
    layer: str  # the node it belongs to, for reports and comments
    phase: str  # "forward", "loss", "backward"
    loop: Loop | None = None
    stage: Stage = Stage.SAMPLE

    def __post_init__(self) -> None:
        if self.loop is None and self.advancing:
            raise AssertionError(f"{self.function} sees a part of a buffer outside a loop")

    @property
    def writes(self) -> tuple[Buffer, ...]:
        """Whole buffers."""
        return tuple(dict.fromkeys(whole(buffer) for buffer in self.written))

    @property
    def reads(self) -> tuple[Buffer, ...]:
        """Whole buffers."""
        buffers = (a for a in self.arguments if isinstance(a, Buffer) and a not in self.written)
        return tuple(dict.fromkeys(whole(buffer) for buffer in buffers))

    @property
    def advancing(self) -> frozenset[Buffer]:
        """The whole buffers of which it sees another part in every slice."""
        return frozenset(a.whole for a in self.arguments if isinstance(a, Part))


def whole(buffer: Buffer) -> Buffer:
    """The buffer itself, or what it is a part of."""
    return buffer.whole if isinstance(buffer, Part) else buffer


@dataclass(frozen=True)
class Program:
    """The calls for one sample, in order; for one of a micro-batch, stage by stage.

    Invariants, checked at construction: buffer names are unique, the calls of a loop are neighbours, and nothing is
    read before it was written (what outlives a sample, `external`, is written before the program starts).
    """

    name: str
    calls: tuple[Call, ...]
    external: tuple[Buffer, ...] = ()  # accumulators, sums of attention: live as long as the whole step

    def __post_init__(self) -> None:
        written = set(self.external)
        for call in self.calls:
            for buffer in call.reads:
                if buffer not in written:
                    raise AssertionError(f"{self.name}: {call.function} reads {buffer.name} before it is written")
            written.update(call.writes)
        names = [buffer.name for buffer in written]
        if len(names) != len(set(names)):
            raise AssertionError(f"{self.name}: two buffers share a name")
        loops = [loop for loop, _ in groupby(call.loop for call in self.calls) if loop is not None]
        if len(loops) != len(set(loops)):
            raise AssertionError(f"{self.name}: a loop is torn apart")

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The buffers of one sample, in order of first use; without the external ones."""
        seen: dict[Buffer, None] = {}
        for call in self.calls:
            seen.update(dict.fromkeys((*call.writes, *call.reads)))
        return tuple(buffer for buffer in seen if buffer not in self.external)

    @cached_property
    def lifetimes(self) -> Mapping[Buffer, tuple[int, int]]:
        """(first, last) index of the calls during which each buffer holds data."""
        touched: dict[Buffer, list[int]] = {}
        for index, call in enumerate(self.calls):
            for buffer in (*call.reads, *call.writes):
                touched.setdefault(buffer, []).append(index)
        return {buffer: self._lifetime(buffer, indices) for buffer, indices in touched.items()}

    def _lifetime(self, buffer: Buffer, touched: list[int]) -> tuple[int, int]:
        """What a loop reads or writes from outside, or slice by slice, lives during all of it; so does what several
        stages share, as each runs once for every sample."""
        first, last = touched[0], touched[-1]
        if self.calls[first].stage is not self.calls[last].stage:
            first, last = self.stages[self.calls[first].stage].start, self.stages[self.calls[last].stage].stop - 1
        for start, end in self._loops:
            inside = [index for index in touched if start <= index <= end]
            only_inside = len(inside) == len(touched)
            if inside and not (only_inside and all(buffer not in self.calls[n].advancing for n in inside)):
                first, last = min(first, start), max(last, end)
        return first, last

    @cached_property
    def stages(self) -> Mapping[Stage, range]:
        """The calls of each stage, in order."""
        found, start = {}, 0
        for stage, calls in groupby(call.stage for call in self.calls):
            end = start + len(list(calls))
            found[stage] = range(start, end)
            start = end
        return found

    @cached_property
    def _loops(self) -> tuple[tuple[int, int], ...]:
        """(first, last) call of every loop."""
        found, start = [], 0
        for loop, calls in groupby(call.loop for call in self.calls):
            end = start + len(list(calls))
            if loop is not None:
                found.append((start, end - 1))
            start = end
        return tuple(found)
