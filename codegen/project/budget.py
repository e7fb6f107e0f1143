"""A RAM budget: of all plans within it, the one that gives up least.

What changes no bit the planner has tried by itself (`pmeta.codegen.plan.strategy`). What is left costs something:
numbers stored in fewer bits, channels that forward attention drops, layers that no longer learn.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import Board
from pmeta.codegen.errors import FitError
from pmeta.codegen.graph import frozen_float32
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.plan.strategy import SLOWER_STRATEGIES, STRATEGIES
from pmeta.codegen.progress import OnProgress, nobody_watches
from pmeta.codegen.project.c_source import ram_model
from pmeta.codegen.project.fit import firmware_ram
from pmeta.codegen.project.memory_options import LOSSES, Loss, with_changes
from pmeta.codegen.storage import MapType, Storage, StoredType
from pmeta.codegen.support import STREAMED, Support

# From the least rounding to the most; int8 of what is kept goes with float16 of what is handed on.
STORAGES = (
    Storage("float32", "float32"),
    Storage("float16", "float32"),
    Storage("float32", "float16"),
    Storage("float16", "float16"),
    Storage("int8", "float16"),
)
_KEPT_BITS: dict[StoredType, int] = {"float32": 32, "float16": 16, "int8": 8}
_MAP_BITS: dict[MapType, int] = {"float32": 32, "float16": 16}
_RHO_STEP, _RHO_MOST = 100, 900  # thousandths


@dataclass(frozen=True)
class Limit:
    """So much RAM is there."""

    bytes: int
    where: str  # for messages
    count: Callable[[Plan, Support], int]  # bytes of a plan and a support set
    support: Support = STREAMED

    def need(self, plan: Plan) -> int:
        """Bytes of a plan that count."""
        return self.count(plan, self.support)

    @classmethod
    def of(cls, boards: Sequence[Board], ram: int | None, support: Support = STREAMED) -> Limit | None:
        """The smallest of all, None where there is none. On boards all of the firmware counts, else the library."""
        bare_metal = [board for board in boards if board.kind == "bare-metal"]
        limits = [(board.all_ram_bytes, f"board '{board.name}'") for board in bare_metal]
        if ram is not None:
            limits.append((ram, "--ram"))
        return cls(*min(limits), firmware_ram if bare_metal else ram_model, support) if limits else None


@dataclass(frozen=True)
class Fitted:
    """A plan within the limit, and what was given up for it."""

    plan: Plan
    given_up: tuple[str, ...] = ()  # sentences; empty where nothing was
    saved: int = 0  # bytes
    slower: int | None = None  # bytes that a plan with the same bits would need, in more time; None: no less


def fitted(plan: Plan, limit: Limit | None, allow: frozenset[Loss], on_progress: OnProgress = nobody_watches) -> Fitted:
    """`plan`, or that of what is left of its model where only that fits; raises FitError."""
    if limit is None:
        return Fitted(plan)
    need = limit.need(plan)
    slower = _tightest(plan.model) if _attends(plan.model) else plan
    if need <= limit.bytes:
        return Fitted(plan, slower=limit.need(slower) if limit.need(slower) < need else None)
    if limit.need(slower) <= limit.bytes:
        return Fitted(slower, tuple(_time(slower)), need - limit.need(slower))
    search = _Search(plan.model, limit, on_progress)
    found = search.cheapest(allow)
    if found is not None:
        smaller = _tightest(search.model_of(found))
        return Fitted(smaller, (*_time(smaller), *search.sentences(found)), need - limit.need(smaller))
    least = min(need, limit.need(slower))
    what = f"needs {least:,} bytes of RAM, {least - limit.bytes:,} more than the {limit.bytes:,} there are"
    if allow:
        what += f", whatever --allow {','.join(loss for loss in LOSSES if loss in allow)} permits"
    streamed = limit.count(slower, STREAMED)
    if streamed <= limit.bytes:
        raise FitError(what, limit.where, f"--support stream needs {streamed:,} bytes; or keep fewer samples")
    raise FitError(what, limit.where, search.advice())


def _tightest(model: Model) -> Plan:
    """The plan with the same bits that takes least RAM, whatever its work."""
    return make_plan(model, (*STRATEGIES, *(SLOWER_STRATEGIES if _attends(model) else ())))


def _attends(model: Model) -> bool:
    return any(weight.layer in model.adaptation.attention for weight in model.learned_weights)


def _time(plan: Plan) -> Iterator[str]:
    """What a plan costs beside RAM."""
    if plan.model.adaptation.sample_batch == 1 and plan.batch:
        yield "time, but no bit: samples pass through the network once for each direction of attention, and once again"


@dataclass(frozen=True)
class _Variant:
    """How far to go in each respect: indices into what `_Search` lists; all 0 is the model as it is."""

    storage: int = 0
    rho: int = 0
    frozen: int = 0  # so many layers from the input upward


@dataclass(frozen=True)
class _Search:
    """Looks for the least loss that fits; every plan is made once."""

    model: Model
    limit: Limit
    on_progress: OnProgress
    _needs: dict[_Variant, int] = field(default_factory=dict)

    @cached_property
    def storages(self) -> tuple[Storage, ...]:
        """The model's own, then those that round more."""
        own = self.model.adaptation.storage
        coarser = [
            storage
            for storage in STORAGES
            if storage != own
            and _KEPT_BITS[storage.kept] <= _KEPT_BITS[own.kept]
            and _MAP_BITS[storage.maps] <= _MAP_BITS[own.maps]
        ]
        return (own, *coarser)

    @cached_property
    def rhos(self) -> tuple[int, ...]:
        """The model's own clip ratio of forward attention in thousandths, then greater ones, where there is any."""
        adaptation = self.model.adaptation
        learning = {weight.layer for weight in self.model.learned_weights}
        attended = any(attention.fw for layer, attention in adaptation.attention.items() if layer in learning)
        start = adaptation.rho_fw - adaptation.rho_fw % _RHO_STEP + _RHO_STEP
        return (adaptation.rho_fw, *(range(start, _RHO_MOST + 1, _RHO_STEP) if attended else ()))

    @cached_property
    def most_frozen(self) -> int:
        """Layers from the input upward, above which something still learns."""
        alpha = self.model.adaptation.alpha
        return max(count for count in range(len(alpha)) if alpha[count:].any())

    def cheapest(self, allow: frozenset[Loss]) -> _Variant | None:
        """Rounding first, then fewer channels, then both, and the fewest frozen layers last."""
        orders: tuple[tuple[Loss, ...], ...] = (("store",), ("rho",), ("store", "rho"), LOSSES)
        for losses in orders:
            allowed = allow.intersection(losses)
            found = self._least(allowed) if allowed else None
            if found is not None:
                return found
        return None

    def _least(self, allow: frozenset[Loss]) -> _Variant | None:
        storages = range(len(self.storages) if "store" in allow else 1)
        rhos = range(len(self.rhos) if "rho" in allow else 1)
        counts = range(self.most_frozen + 1 if "layers" in allow else 1)

        def some_fits(frozen: int) -> bool:
            return any(self._fits(_Variant(storage, rhos[-1], frozen)) for storage in reversed(storages))

        # The more layers are frozen, the less RAM is needed.
        frozen = bisect_left(counts, True, key=some_fits)
        if frozen == len(counts):
            return None
        variants = (_Variant(storage, rho, frozen) for rho, storage in itertools.product(rhos, storages))
        return next(variant for variant in variants if self._fits(variant))

    def _fits(self, variant: _Variant) -> bool:
        if variant not in self._needs:
            most = len(self.storages) * len(self.rhos) + self.most_frozen.bit_length() * len(self.storages)
            self.on_progress("what would fit", min(len(self._needs), most), most)
            self._needs[variant] = self.limit.need(_tightest(self.model_of(variant)))
        return self._needs[variant] <= self.limit.bytes

    def model_of(self, variant: _Variant) -> Model:
        alpha = self.model.adaptation.alpha.copy()
        alpha[: variant.frozen] = 0
        return with_changes(
            self.model,
            storage=self.storages[variant.storage],
            rho_fw=self.rhos[variant.rho],
            alpha=frozen_float32(alpha),
        )

    def sentences(self, variant: _Variant) -> Iterator[str]:
        """What a variant gives up."""
        storage, own = self.storages[variant.storage], self.model.adaptation.storage
        if storage.kept != own.kept:
            yield f"what the backward pass reads is kept as {storage.kept} (--store {storage.kept})"
        if storage.maps != own.maps:
            yield f"maps between layers are {storage.maps} (--maps {storage.maps})"
        if variant.rho:
            ratio, before = self.rhos[variant.rho] / 1000, self.rhos[0] / 1000
            yield f"the clip ratio of forward attention is {ratio:g}, not {before:g}"
        layers = [layer.name for layer in self.model.graph.layers[: variant.frozen]]
        learned = {weight.layer for weight in self.model.learned_weights}
        if frozen := [name for name in layers if name in learned]:
            yield f"{', '.join(frozen)} no longer learn{'s' if len(frozen) == 1 else ''}"

    def advice(self) -> str:
        """The cheapest change that would fit."""
        found = self.cheapest(frozenset(LOSSES))
        if found is None:
            return (
                "use a network with fewer channels or a smaller input: even with the last layer alone it is too large"
            )
        used = [loss for loss, index in zip(LOSSES, (found.storage, found.rho, found.frozen), strict=True) if index]
        return (
            f"with --allow {','.join(used)} {self._needs[found]:,} bytes would do: {'; '.join(self.sentences(found))}"
        )
