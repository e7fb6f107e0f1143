"""A program: the calls that process one sample, and the buffers they use. What the generated C executes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod

ALIGNMENT = 4  # bytes; every buffer holds 16- or 32-bit elements


class Role(Enum):
    """What a buffer is for; reports group by it."""

    MAP = "map"  # an activation between two layers
    STORE = "store"  # kept from the forward for the backward pass
    MASK = "mask"  # ReLU bits, winning pool taps
    GRADIENT = "gradient"  # of an activation
    ACCUMULATOR = "accumulator"  # of a weight's gradient, over the samples of one step
    WEIGHT = "weight"  # an updated weight
    SCRATCH = "scratch"


ELEMENT_BYTES = {"float": 4, "uint32_t": 4, "uint16_t": 2}


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
class ShapeConstants:
    """The constant struct that tells a kernel an operator's shape."""

    struct: str  # C type
    fields: Mapping[str, int | float]  # in the order of the struct; floats are float32 values


@dataclass(frozen=True)
class StoredInput:
    """What the weight gradient of a layer reads: `x`, and how it was thinned out by forward attention."""

    x: Buffer  # rows of the kept channels, or of all
    kept: Buffer | None  # number and indices of the kept channels; None: all
    gamma: Buffer | None  # γ^fw (C,), where the backward pass needs it


@dataclass(frozen=True)
class Call:
    """One kernel call. `arguments` are C expressions; buffers appear by name."""

    function: str
    arguments: tuple[str, ...]
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]  # includes what is changed in place
    layer: str  # the node it belongs to, for reports and comments
    phase: str  # "forward", "loss", "backward"


@dataclass(frozen=True)
class Program:
    """The calls for one sample, in order.

    Invariants, checked at construction: buffer names are unique, and nothing is read before it was written (what
    outlives a sample, `external`, is written before the program starts).
    """

    name: str
    calls: tuple[Call, ...]
    external: tuple[Buffer, ...] = ()  # accumulators: live as long as the whole step

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

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The buffers of one sample, in order of first use; without the external ones."""
        seen: dict[Buffer, None] = {}
        for call in self.calls:
            seen.update(dict.fromkeys((*call.writes, *call.reads)))
        return tuple(buffer for buffer in seen if buffer not in self.external)

    def lifetime(self, buffer: Buffer) -> tuple[int, int]:
        """(first, last) index of the calls that touch the buffer."""
        touched = [n for n, call in enumerate(self.calls) if buffer in call.reads or buffer in call.writes]
        return touched[0], touched[-1]
