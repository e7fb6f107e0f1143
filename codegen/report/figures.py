"""The numbers of the report, per step, per layer, for the flash and per board; nothing about how they look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from pmeta.codegen.appendix_a import critical_channels
from pmeta.codegen.boards import Board
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.plan.program import Buffer, Call, Program, Role, whole
from pmeta.codegen.project.c_source import sample_bytes
from pmeta.codegen.project.constants import attention_modules
from pmeta.codegen.report.macs import program_macs
from pmeta.codegen.report.occupancy import Scene, scene_of_step, scenes

FLOAT_BYTES = 4
ARENA = "pmeta_arena"


@dataclass(frozen=True)
class StepFigures:
    """One adaptation step, per sample."""

    step: int
    learning: tuple[tuple[str, float], ...]  # layers that learn, with α
    peak_bytes: int  # most bytes of the arena that hold data at once
    macs: int  # most that the calls execute


@dataclass(frozen=True)
class StoredInput:
    """What a layer stores between the forward and the backward pass of a step."""

    rows: int
    channels: int
    bytes: int
    for_input_gradient: bool  # whole because the gradient passes through this GroupNormalization

    @property
    def dense(self) -> bool:
        return self.rows == self.channels


@dataclass(frozen=True)
class LayerStep:
    """One layer in one step."""

    alpha: float  # 0 where it does not learn
    stored: StoredInput | None


@dataclass(frozen=True)
class LayerFigures:
    """One layer: its size, and what it does in every step."""

    name: str
    operator: str
    shape_in: Shape
    shape_out: Shape
    weight_bytes: int
    input_bytes: int  # of its input as float32, m(x_{l-1}) of the appendix
    output_bytes: int
    forward_macs: int
    kept_in: tuple[int, int] | None  # (most channels kept, of so many); None without forward attention
    kept_out: tuple[int, int] | None
    steps: tuple[LayerStep, ...]


@dataclass(frozen=True)
class FlashFigures:
    """Bytes of constants in flash; the code is known only after linking."""

    weights: int
    attention: int  # of the modules that some step uses
    encoding: int
    support: int = 0  # the support set, where it lies in flash

    @property
    def total(self) -> int:
        return self.weights + self.attention + self.encoding + self.support


@dataclass(frozen=True)
class BoardFigures:
    """Predicted RAM of one board; on a bare-metal board of the whole firmware."""

    board: Board
    parts: tuple[tuple[str, int], ...]  # (what, bytes)

    @property
    def total(self) -> int:
        return sum(size for _, size in self.parts)

    @property
    def limit(self) -> int | None:
        """RAM of the board; None where the host's memory is the only limit."""
        return self.board.all_ram_bytes or None


def board_figures(manifest: Manifest, board: Board) -> BoardFigures:
    """The statics that count on this board, as the manifest predicts them."""
    parts = ("model",) if board.kind == "native" else ("model", "link", "stack")
    sizes: dict[str, int] = {}
    for static in manifest.statics:
        if static.part in parts:
            name = ARENA if static.name.startswith(ARENA) else static.name  # in however many regions it lies
            sizes[name] = sizes.get(name, 0) + static.bytes
    return BoardFigures(board, tuple(sizes.items()))


def flash_figures(plan: Plan, manifest: Manifest | None = None) -> FlashFigures:
    """What the generated C contains but code; a support set in flash is known to the manifest alone."""
    modules = [module for _, _, _, module in attention_modules(plan)]
    attention = sum(array.nbytes for m in modules for array in (m.w1, m.b1, m.w2, m.b2))
    encoding = plan.model.adaptation.encoding
    weights = sum(array.nbytes for array in plan.graph.weights.values())
    scales = FLOAT_BYTES * (len(encoding.scale) + len(encoding.offset))
    return FlashFigures(weights, attention, scales, manifest.support_flash_bytes if manifest else 0)


def step_figures(plan: Plan, all_scenes: tuple[Scene, ...], step: int) -> StepFigures:
    """Step k = 1..K."""
    learning = {weight.layer: weight.step_sizes[step - 1] for weight in plan.learned if step in weight.steps}
    return StepFigures(
        step=step,
        learning=tuple(learning.items()),
        peak_bytes=scene_of_step(all_scenes, step).peak_bytes,
        macs=program_macs(plan, plan.program(step)),
    )


def dynamic_bytes(plan: Plan) -> int:
    """What the paper counts as dynamic memory: the most bytes of any moment of an adaptation step, for one sample.

    Contains the sample as it waits, maps, stores, masks, gradients and accumulators; not the updated weights, which to
    the paper are the model's.
    """
    most = 0
    for scene in scenes(plan):
        counted = [occupant for occupant in scene.occupants if occupant.role is not Role.WEIGHT]
        if scene.steps:
            moments = range(len(scene.calls))
            most = max(most, *(sum(o.bytes for o in counted if o.first <= n <= o.last) for n in moments))
    return sample_bytes(plan) + most


def layer_figures(plan: Plan) -> Iterator[LayerFigures]:
    """All layers in topological order."""
    graph, attention = plan.graph, plan.model.adaptation.attention
    for layer in graph.layers:
        shape_in, shape_out = graph.shapes[layer.input], graph.shapes[layer.output]
        channels, kept = layer.attention_channels(shape_in), critical_channels(plan.model, layer)
        modules = attention.get(layer.name)
        yield LayerFigures(
            name=layer.name,
            operator=type(layer).__name__,
            shape_in=shape_in,
            shape_out=shape_out,
            weight_bytes=sum(graph.weights[name].nbytes for name in layer.weight_names),
            input_bytes=FLOAT_BYTES * prod(shape_in),
            output_bytes=FLOAT_BYTES * prod(shape_out),
            forward_macs=layer.forward_macs(shape_in),
            kept_in=(kept[0], channels[0]) if modules and modules.fw else None,
            kept_out=(kept[1], channels[1]) if modules and modules.bw else None,
            steps=tuple(_layer_step(plan, layer, k) for k in range(1, len(plan.program_of_step) + 1)),
        )


def _layer_step(plan: Plan, layer: Node, step: int) -> LayerStep:
    sizes = [w.step_sizes[step - 1] for w in plan.learned if w.layer == layer.name and step in w.steps]
    return LayerStep(sizes[0] if sizes else 0.0, _stored(plan, layer, plan.program(step)))


def _stored(plan: Plan, layer: Node, program: Program) -> StoredInput | None:
    """What the gradient kernels of a layer read from the forward pass, from the calls themselves."""
    channels = layer.attention_channels(plan.graph.shapes[layer.input])[0]
    for call in program.calls:
        if call.layer == layer.name and call.function == "pmeta_group_norm_input_gradient":
            return StoredInput(channels, channels, _kept(program, call, 1).bytes, True)  # (shape, x̂, ...)
    for call in program.calls:
        if call.layer == layer.name and call.function.endswith(("weight_gradient", "scale_gradient")):
            kept, stored = call.arguments[1], _kept(program, call, 2)  # (shape, kept, x, ...) or (..., type, x, ...)
            rows = whole(kept).shape[0] - 1 if isinstance(kept, Buffer) else channels
            return StoredInput(rows, channels, stored.bytes, False)
    return None


def _kept(program: Program, call: Call, position: int) -> Buffer:
    """What was kept for the first buffer among the arguments from `position` on: decoded before the call, or itself."""
    read = whole(next(argument for argument in call.arguments[position:] if isinstance(argument, Buffer)))
    for other in program.calls:
        if other.function == "pmeta_decode_rows" and whole(other.written[0]) == read:
            return whole(next(argument for argument in other.arguments if isinstance(argument, Buffer)))
    return read
