"""What the command line says about RAM: types of stored numbers, samples that wait, a limit, what may be given up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.storage import MapType, Storage, StoredType

Loss = Literal["store", "rho", "layers"]  # in the order of what they cost
LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True)
class MemoryOptions:
    """What the command line says about RAM."""

    store: StoredType | None = None  # None: as the model's record says
    maps: MapType | None = None
    batch: int | None = None  # samples per micro-batch
    ram: int | None = None  # bytes; None: what the boards have
    allow: frozenset[Loss] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.ram is not None and self.ram < 1:
            raise ConfigError(f"{self.ram} bytes", "--ram", "pass a size such as 65536, 64K or 1M")
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"micro-batches of {self.batch} samples", "--batch", "pass 1 or more")
        _check("--store", (self.store,), (*get_args(StoredType), None))
        _check("--maps", (self.maps,), (*get_args(MapType), None))
        _check("--allow", self.allow, LOSSES)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options that give this, sorted, for the canonical command."""
        allowed = ",".join(loss for loss in LOSSES if loss in self.allow)
        numbers = (("--batch", self.batch), ("--maps", self.maps), ("--ram", self.ram), ("--store", self.store))
        return tuple(f"{option} {value}" for option, value in (("--allow", allowed), *numbers) if value)

    def applied_to(self, model: Model) -> Model:
        """The model with the storage types and micro-batches that were asked for."""
        before = model.adaptation
        storage = Storage(self.store or before.storage.kept, self.maps or before.storage.maps)
        batch = self.batch or before.sample_batch
        unchanged = (storage, batch) == (before.storage, before.sample_batch)
        return model if unchanged else with_changes(model, storage=storage, sample_batch=batch)


def size_in_bytes(text: str) -> int:
    """Of "65536", "64K" or "1M"; raises ConfigError."""
    units = {"": 1, "K": 1 << 10, "M": 1 << 20}
    digits = text.upper().removesuffix("IB").removesuffix("B")
    unit = digits[-1:] if digits[-1:] in ("K", "M") else ""
    number = digits.removesuffix(unit)
    if not (number.isascii() and number.isdecimal() and len(number) < 12):
        raise ConfigError(f"{text!r} is no size", "--ram", "pass one such as 65536, 64K or 1M")
    return int(number) * units[unit]


def with_changes(model: Model, **changes: Any) -> Model:
    """The model with other fields in its adaptation record."""
    return Model(model.graph, replace(model.adaptation, **changes))


def _check(option: str, given: Iterable[str | None], known: Iterable[str | None]) -> None:
    for value in given:
        if value not in known:
            names = ", ".join(name for name in known if name)
            raise ConfigError(f"there is no {value!r}", option, f"choose from: {names}")
