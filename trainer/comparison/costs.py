"""Memory and computation of an adaptation: in the paper's accounting, and as the planner needs it.

The paper reports GMACs and peak memory "per task". A step's GMACs are those of the whole support set; they and the peak
are what its Table 2 has for methods whose steps are all equal. Where steps differ, GMACs are the mean over the K steps
and the peak is that of the highest step. Where attention chooses channels, the peak of a task is the highest of all its
steps and samples with the channels that were really kept, and figures are means over tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.adaptation import PARTS, Model
from pmeta.codegen.appendix_a import BYTES_PER_WORD
from pmeta.codegen.graph import frozen_float32
from pmeta.codegen.paper_accounting import paper_accounting, paper_moments
from pmeta.codegen.plan.plan import make_plan

# By layer with attention: (tasks, K, samples, 2), input and output channels that a sample's gradient keeps.
KeptChannels = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class PaperCosts:
    """One adaptation in the paper's accounting."""

    memory_bytes: float  # peak
    macs: float  # of one step, for all samples of the support set


@dataclass(frozen=True)
class Costs:
    """What a model costs, beside what its network costs where all layers learn and where the last one does."""

    paper: PaperCosts  # with the channels that attention kept, mean over tasks
    paper_bound: PaperCosts  # with the most that it can keep
    paper_all: PaperCosts  # all layers learn in every step, as in MAML++
    paper_last: PaperCosts  # the last layer learns, as in ANIL: less is not possible
    arena_bytes: int  # real memory: what the planner reserves, for attention the most that can be kept
    arena_all_bytes: int
    arena_last_bytes: int

    def __post_init__(self) -> None:
        if min(self.paper.memory_bytes, self.arena_bytes) <= 0:
            raise ValueError("an adaptation needs memory")

    @property
    def paper_ratio(self) -> float:
        """How many times less memory than MAML++."""
        return self.paper_all.memory_bytes / self.paper.memory_bytes

    @property
    def best_paper_ratio(self) -> float:
        """The same if the last layer alone learns."""
        return self.paper_all.memory_bytes / self.paper_last.memory_bytes

    @property
    def arena_ratio(self) -> float:
        """How many times less real memory than MAML++."""
        return self.arena_all_bytes / self.arena_bytes

    @property
    def best_arena_ratio(self) -> float:
        """The same if the last layer alone learns."""
        return self.arena_all_bytes / self.arena_last_bytes


def costs_of(model: Model, samples: int, kept: KeptChannels | None = None) -> Costs:
    """Costs with a support set of `samples`; `kept` is needed for models with attention, others have none."""
    layers = len(model.graph.layers)
    everything, last = updating(model, slice(0, layers)), updating(model, slice(layers - 1, layers))
    bound = paper_costs(model, samples)
    return Costs(
        paper=measured_costs(model, kept) if kept else bound,
        paper_bound=bound,
        paper_all=paper_costs(everything, samples),
        paper_last=paper_costs(last, samples),
        arena_bytes=make_plan(model).arena_bytes,
        arena_all_bytes=make_plan(everything).arena_bytes,
        arena_last_bytes=make_plan(last).arena_bytes,
    )


def updating(model: Model, layers: slice) -> Model:
    """`model` as if these layers, whole and without attention, learned in every step."""
    alpha = np.zeros_like(model.adaptation.alpha)
    alpha[layers] = 1.0
    updates = tuple(PARTS[: len(layer.weight_names)] for layer in model.graph.layers)
    adaptation = replace(
        model.adaptation, alpha=frozen_float32(alpha), alpha_in={}, alpha_out={}, updates=updates, attention={}
    )
    return Model(model.graph, adaptation)


def paper_costs(model: Model, samples: int) -> PaperCosts:
    """With the most channels that attention can keep."""
    steps = [
        paper_accounting(model, step, model.adaptation.sample_batch) for step in range(1, model.adaptation.steps + 1)
    ]
    return PaperCosts(max(step.memory_bytes for step in steps), samples * float(np.mean([step.macs for step in steps])))


def measured_costs(model: Model, kept: KeptChannels) -> PaperCosts:
    """With the channels that attention kept, mean over tasks."""
    by_step = [
        _step_costs(model, step, {layer: channels[:, step - 1] for layer, channels in kept.items()})
        for step in range(1, model.adaptation.steps + 1)
    ]
    memory = np.max([memory for memory, _ in by_step], axis=0)  # (tasks,)
    return PaperCosts(float(memory.mean()), float(np.mean([macs for _, macs in by_step])))


def _step_costs(model: Model, step: int, kept: KeptChannels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(peak bytes, MACs of the support set) of every task, (tasks,) each; kept: (tasks, samples, 2).

    Bits at a moment and MACs are linear in a layer's kept channels (the MACs: in the product of input and output
    channels). So the accounting itself, asked for no channels and for all of one layer, gives their coefficients.
    """
    channels = {
        layer.name: layer.attention_channels(model.graph.shapes[layer.input])
        for layer in model.graph.layers
        if layer.name in kept
    }
    nothing = dict.fromkeys(channels, (0, 0))
    batch = model.adaptation.sample_batch
    least = paper_accounting(model, step, batch, critical=nothing)
    least_bits = _bits(model, step, nothing)
    some = next(iter(kept.values()))
    bits = np.broadcast_to(least_bits, (*some.shape[:2], len(least_bits)))  # (tasks, samples, moments)
    macs = np.full(some.shape[:2], float(least.macs))
    for name, (inputs, outputs) in channels.items():
        whole = nothing | {name: (inputs, outputs)}
        share_in, share_out = kept[name][..., 0] / inputs, kept[name][..., 1] / outputs
        bits = bits + share_in[..., None] * (_bits(model, step, whole) - least_bits)
        macs = macs + share_in * share_out * (paper_accounting(model, step, batch, critical=whole).macs - least.macs)
    memory = np.ceil(batch * bits.max((1, 2)) / 8) + BYTES_PER_WORD * least.accumulator_words
    return memory, macs.sum(1)


def _bits(model: Model, step: int, critical: Mapping[str, tuple[int, int]]) -> NDArray[np.float64]:
    """(moments,): bits of one sample."""
    return np.array([moment.bits for moment in paper_moments(model, step, critical)], np.float64)
