"""The plan: programs for all steps, the tensors that learn, and where everything lies in the arena."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from pmeta.codegen.adaptation import LearnedWeight, Model
from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Graph, Shape
from pmeta.codegen.plan.learning import Learning, learning_in_step
from pmeta.codegen.plan.names import Names
from pmeta.codegen.plan.placement import Block, Interval, Placement, lower_bound, place
from pmeta.codegen.plan.program import Buffer, Program, Role, Stage
from pmeta.codegen.plan.segments import relu_after_pool
from pmeta.codegen.plan.strategy import STRATEGIES, Strategy
from pmeta.codegen.plan.walk import lower_adapt, lower_predict
from pmeta.codegen.progress import OnProgress, nobody_watches

ARENA_ALIGNMENT = 8
STATE_BYTES = 16  # static state of lib/pmeta_model beside the arena: step, samples, two checksums


@dataclass(frozen=True)
class PlannedWeight(LearnedWeight):
    """A weight that adaptation changes, and where it lies.

    Until its first update it is read from flash. In that first step its accumulator lies where the updated weight will,
    which is written over it; only weights updated again need an accumulator of their own.
    """

    weight: Buffer
    gradient: Buffer | None  # None where it is updated only once


@dataclass(frozen=True)
class Plan:
    """Everything the generated C needs beside the weights."""

    model: Model
    graph: Graph  # as lowered: with Relu after MaxPool
    names: Names
    adapt: tuple[Program, ...]  # one per set of weights that learn; several steps may share one
    program_of_step: tuple[int, ...]  # index into `adapt`, for k = 1..K
    predict: Program
    learned: tuple[PlannedWeight, ...]
    batch: tuple[Buffer, ...]  # samples and targets of a micro-batch, where some step waits for one
    blocks: tuple[Block, ...]
    placement: Placement

    def offset(self, program: str, buffer: str) -> int:
        """Byte offset of a buffer in the arena."""
        return self.placement.offsets[program, buffer]

    @property
    def arena_bytes(self) -> int:
        return _aligned(self.placement.size)

    @property
    def arena_parts(self) -> tuple[int, ...]:
        """Bytes of the arrays that the arena consists of, one after the other: one, or one per region of RAM."""
        ends = (*self.placement.boundaries, self.arena_bytes)
        return tuple(end - start for start, end in pairwise((0, *ends)))

    def program(self, step: int) -> Program:
        """The program of step k = 1..K."""
        return self.adapt[self.program_of_step[step - 1]]

    def steps_of(self, program: Program) -> tuple[int, ...]:
        """The steps that run a program; empty for prediction."""
        return tuple(k for k, index in enumerate(self.program_of_step, start=1) if self.adapt[index] is program)


@dataclass(frozen=True)
class Timeline:
    """Moments of a whole adaptation: per step its sample program and a prediction, and predictions after the last.

    Predictions are possible in every step, so their buffers share no bytes with weights or accumulators.
    """

    adapt_start: tuple[int, ...]  # first moment of step k's sample program, k = 1..K
    predict_start: tuple[int, ...]  # first moment of the prediction in phase k, k = 1..K+1
    end: int  # after the last moment

    @classmethod
    def of(cls, adapt_lengths: tuple[int, ...], predict_length: int) -> Timeline:
        adapt_start, predict_start, moment = [], [], 0
        for length in adapt_lengths:
            adapt_start.append(moment)
            predict_start.append(moment + length)
            moment += length + predict_length
        predict_start.append(moment)
        return cls(tuple(adapt_start), tuple(predict_start), moment + predict_length)

    def step(self, k: int) -> Interval:
        """All moments of step k."""
        return self.adapt_start[k - 1], self.predict_start[k] - 1 if k == len(self.adapt_start) else self.adapt_start[
            k
        ] - 1


def make_plan(
    model: Model, strategies: Sequence[Strategy] = STRATEGIES, on_progress: OnProgress = nobody_watches
) -> Plan:
    """The plan of the smallest arena for the adaptation of `model`; raises ModelError or UnsupportedError."""
    _check_supported(model)
    graph = relu_after_pool(model.graph)
    names = Names(graph)
    learned = _learned(model, names)
    drafts: list[_Draft] = []
    for strategy in strategies:
        on_progress("planning", len(drafts), len(strategies) + 1)  # the last part is placing
        drafts.append(_draft(model, graph, names, strategy, learned))
    on_progress("planning", len(drafts), len(strategies) + 1)
    draft, placement = _smallest(drafts)
    on_progress("planning", len(drafts) + 1, len(strategies) + 1)
    return Plan(
        *(model, graph, names, draft.adapt, draft.program_of_step, draft.predict, learned),
        *(draft.batch, draft.blocks, placement),
    )


def prediction_arena_bytes(model: Model, strategies: Sequence[Strategy] = STRATEGIES) -> int:
    """The smallest arena for predictions alone: what `model` needs before anything learns."""
    graph = relu_after_pool(model.graph)
    names = Names(graph)
    drafts = []
    for strategy in strategies:
        predict = lower_predict(model, graph, strategy, names)
        blocks = _blocks((), (), predict, (), Timeline.of((), len(predict.calls)))
        drafts.append(_Draft((), (), predict, (), blocks))
    return _aligned(_smallest(drafts)[1].size)


def _aligned(size: int) -> int:
    return -(-size // ARENA_ALIGNMENT) * ARENA_ALIGNMENT


@dataclass(frozen=True)
class _Draft:
    """A plan without offsets."""

    adapt: tuple[Program, ...]
    program_of_step: tuple[int, ...]
    predict: Program
    batch: tuple[Buffer, ...]
    blocks: tuple[Block, ...]


def _draft(model: Model, graph: Graph, names: Names, strategy: Strategy, learned: tuple[PlannedWeight, ...]) -> _Draft:
    adapt, program_of_step = _adapt_programs(model, graph, strategy, names)
    predict = lower_predict(model, graph, strategy, names)
    timeline = Timeline.of(tuple(len(adapt[index].calls) for index in program_of_step), len(predict.calls))
    batch = _batch_buffers(model) if any(Stage.GRADIENT in program.stages for program in adapt) else ()
    blocks = _blocks(adapt, program_of_step, predict, learned, timeline)
    lasting = _batch_blocks(batch, [adapt[index] for index in program_of_step], timeline)
    return _Draft(adapt, program_of_step, predict, batch, (*blocks, *lasting))


def _smallest(drafts: Sequence[_Draft]) -> tuple[_Draft, Placement]:
    """The draft that fits the fewest bytes, the first of equals; one whose bound is no smaller is not even placed."""
    bounds = [lower_bound(draft.blocks) for draft in drafts]
    found: tuple[_Draft, Placement] | None = None
    for bound, draft in sorted(zip(bounds, drafts, strict=True), key=lambda pair: pair[0]):
        if found is not None and bound >= found[1].size:
            break
        placement = place(draft.blocks)
        if found is None or placement.size < found[1].size:
            found = draft, placement
    if found is None:
        raise AssertionError("no strategy to plan with")
    return found


def _check_supported(model: Model) -> None:
    where = f"model '{model.graph.name}'"
    if not model.learned_weights:
        raise ModelError("all step sizes are zero, so nothing would learn", where, "train with a smaller lasso weight")


def _adapt_programs(
    model: Model, graph: Graph, strategy: Strategy, names: Names
) -> tuple[tuple[Program, ...], tuple[int, ...]]:
    """One program per set of weights that learn, and which of them each step runs."""
    index_of: dict[Learning, int] = {}
    programs: list[Program] = []
    order: list[int] = []
    for step in range(1, model.adaptation.steps + 1):
        learning = learning_in_step(model, step)
        if learning not in index_of:
            index_of[learning] = len(programs)
            name = f"adapt_{len(programs) + 1}"
            programs.append(lower_adapt(model, graph, strategy, names, step, name))
        order.append(index_of[learning])
    return tuple(programs), tuple(order)


def _learned(model: Model, names: Names) -> tuple[PlannedWeight, ...]:
    return tuple(_planned(weight, model.graph.weights[weight.name].shape, names) for weight in model.learned_weights)


def _planned(learned: LearnedWeight, shape: Shape, names: Names) -> PlannedWeight:
    identifier = names[learned.name]
    weight = Buffer(identifier, "float", shape, Role.WEIGHT)
    again = Buffer(f"{identifier}_grad", "float", shape, Role.ACCUMULATOR) if len(learned.steps) > 1 else None
    return PlannedWeight(learned.name, learned.layer, learned.part, learned.step_sizes, weight, again)


def _blocks(
    adapt: tuple[Program, ...],
    program_of_step: tuple[int, ...],
    predict: Program,
    learned: tuple[PlannedWeight, ...],
    timeline: Timeline,
) -> tuple[Block, ...]:
    starts: Mapping[str, list[int]] = {program.name: [] for program in (*adapt, predict)}
    for start, index in zip(timeline.adapt_start, program_of_step, strict=True):
        starts[adapt[index].name].append(start)
    starts[predict.name].extend(timeline.predict_start)
    blocks = []
    for program in (*adapt, predict):
        for buffer in program.buffers:
            first, last = program.lifetimes[buffer]
            intervals = tuple((start + first, start + last) for start in starts[program.name])
            blocks.append(Block((program.name, buffer.name), buffer.bytes, intervals))
    for weight in learned:
        first_moment = timeline.step(weight.steps[0])[0]
        blocks.append(Block(("", weight.weight.name), weight.weight.bytes, ((first_moment, timeline.end - 1),)))
        if weight.gradient is not None:
            intervals = tuple(timeline.step(k) for k in weight.steps[1:])
            blocks.append(Block(("", weight.gradient.name), weight.gradient.bytes, intervals))
    return tuple(blocks)


def _batch_buffers(model: Model) -> tuple[Buffer, ...]:
    """Samples and targets of a micro-batch, which waits until it is complete."""
    adaptation, shape = model.adaptation, model.graph.input_shape
    count, size = adaptation.sample_batch, prod(shape) * adaptation.encoding.bytes_per_element
    samples = Buffer("batch_samples", "uint8_t", (count, size), Role.BATCH)
    if adaptation.regression:
        return samples, Buffer("batch_targets", "float", (count, adaptation.ways), Role.BATCH)
    return samples, Buffer("batch_targets", "uint32_t", (count,), Role.BATCH)


def _batch_blocks(batch: Sequence[Buffer], programs: Sequence[Program], timeline: Timeline) -> Iterator[Block]:
    """What outlives a sample in the steps that wait for micro-batches. `programs`: of all steps."""
    steps_of: dict[Buffer, list[int]] = {}
    for step, program in enumerate(programs, start=1):
        sums = [buffer for buffer in program.external if buffer.role is Role.BATCH]
        for buffer in (*batch, *sums) if Stage.GRADIENT in program.stages else ():
            steps_of.setdefault(buffer, []).append(step)
    for buffer, steps in steps_of.items():
        yield Block(("", buffer.name), buffer.bytes, tuple(timeline.step(step) for step in steps))
