"""Lowering: how operators emit the calls of one program.

Each operator says what it calls for the node at hand; what may be overwritten, what must survive until the backward
pass, and which part of a buffer belongs to the current slice of a loop is decided here. The order in which nodes are
lowered is `pmeta.codegen.plan.walk`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, TypeVar

from pmeta.codegen.adaptation import PARTS, AttentionModule, Model, UpdatedPart
from pmeta.codegen.graph import Graph, Node, Shape, Slicing
from pmeta.codegen.operators.window import Window
from pmeta.codegen.plan.learning import Learning, gradient_needed
from pmeta.codegen.plan.names import Names
from pmeta.codegen.plan.program import Argument, Buffer, Call, Constant, Loop, Part, Role, Stage, whole
from pmeta.codegen.storage import Storage

NULL = "NULL"
SLICE = "slice"  # the loop variable in the generated C
T = TypeVar("T")


class Lowering:
    """Builds one program."""

    def __init__(
        self, model: Model, graph: Graph, names: Names, learning: Learning, stage: Stage = Stage.SAMPLE
    ) -> None:
        self.model = model
        self.graph = graph
        self.names = names
        self.learning = learning
        self.stage = stage
        self.live: Mapping[str, Buffer] = {}  # activations, or gradients, that later nodes still read
        self._calls: list[Call] = []
        self._external: dict[Buffer, None] = {}
        self.gradient_needed = gradient_needed(graph, self._read_gradients())
        self.sample: Buffer | None = None  # decoded, as long as nobody has changed it
        self.encoded_sample: Buffer | None = None  # stands for the sample as it travels, where nobody needs it decoded
        # Decoded for the backward pass.
        self.sample_again = Buffer(self.staged("x0_again"), "float", graph.input_shape, Role.MAP)
        self.output_is_rounded = False  # whether the current node's output is, before anything else keeps it
        self.recomputed = False  # whether the backward pass will compute this segment's maps again
        self._node: Node = graph.nodes[0]
        self._phase = "forward"
        self._loop: Loop | None = None
        self._deferred: list[tuple[Node, str, Callable[[], None]]] = []
        self._again = ""  # part of the names of what is computed a second time
        self._notes: dict[tuple[str, str], Any] = {}
        self._held: set[Buffer] = set()
        self._of_one_slice: set[Buffer] = set()  # of the current loop: filled anew for every slice
        self._learned = frozenset(weight.name for weight in model.learned_weights)

    # --- what operators ask ---------------------------------------------------------------------------------

    def learns(self, part: UpdatedPart) -> bool:
        """Whether this stage computes the gradient of this part of the current node."""
        return self.stage in (Stage.SAMPLE, Stage.GRADIENT) and (self._node.name, part) in self.learning

    @property
    def node_learns(self) -> bool:
        """Whether this stage computes a gradient of the current node's weights."""
        return self.learns("weight") or self.learns("bias")

    @property
    def needs_input_gradient(self) -> bool:
        """Whether something below the current node learns; always so in the backward pass of a node without weights."""
        return any(name in self.gradient_needed for name in self._node.inputs)

    @property
    def slices(self) -> int:
        """Of the current loop; 1 outside."""
        return 1 if self._loop is None else self._loop.slices

    @property
    def in_loop(self) -> bool:
        """Whether the calls run slice by slice."""
        return self._loop is not None

    @property
    def storage(self) -> Storage:
        """The types of stored numbers."""
        return self.model.adaptation.storage

    def is_sample(self, x: Buffer) -> bool:
        """Whether `x` is the sample, decoded or as it travels."""
        return x in (self.sample, self.encoded_sample)

    @property
    def is_first_slice(self) -> str:
        """A C expression."""
        return "1" if self._loop is None else f"{SLICE} == 0"

    @property
    def input_shape(self) -> Shape:
        """Per-sample shape the current node reads; a buffer may carry the same elements under another shape."""
        return self.shape_of(self._node.input)

    def shape_of(self, activation: str) -> Shape:
        """Per-sample shape of an input of the current node; in a loop, of what it reads for a slice."""
        shape = self.graph.shapes[activation]
        return shape if self._node.slicing is Slicing.HEAD else self._sliced(shape)

    @property
    def output_shape(self) -> Shape:
        """Per-sample shape the current node writes."""
        return self._sliced(self.graph.shapes[self._node.output])

    def attention(self, direction: str) -> AttentionModule | None:
        """The current layer's attention module, "fw" or "bw"."""
        attention = self.model.adaptation.attention.get(self._node.name)
        module: AttentionModule | None = getattr(attention, direction, None)
        return module

    def attends(self, direction: str) -> bool:
        """Whether this stage does no more for the current node than to evaluate its attention."""
        own = Stage.FORWARD if direction == "fw" else Stage.BACKWARD
        parts = PARTS[:1] if direction == "fw" else PARTS
        learns = any((self._node.name, part) in self.learning for part in parts)
        return self.stage is own and learns and self.attention(direction) is not None

    def rho(self, direction: str) -> int:
        """Clip ratio in thousandths."""
        return self.model.adaptation.rho_fw if direction == "fw" else self.model.adaptation.rho_bw

    def may_overwrite(self, buffer: Buffer) -> bool:
        """Whether nobody needs what `buffer` holds after the current node has read it."""
        return whole(buffer) not in self._held and not any(
            whole(other) == whole(buffer) for other in self.live.values()
        )

    # --- what operators emit --------------------------------------------------------------------------------

    def buffer(self, suffix: str, shape: Shape, role: Role, ctype: str = "float") -> Buffer:
        """A new buffer, named after the current node; in a loop what is kept is the slice's part of it."""
        buffer = Buffer(self._name(suffix), ctype, shape, role)
        if role in (Role.STORE, Role.MASK) and not self._again:
            return self.part_of_slices(buffer)
        self._of_one_slice.add(buffer)
        return buffer

    def whole_buffer(self, suffix: str, shape: Shape, role: Role) -> Buffer:
        """A new float buffer that all slices of a loop share."""
        return Buffer(self._name(suffix), "float", shape, role)

    def batch_buffer(self, suffix: str, shape: Shape, external: bool) -> Buffer:
        """A float buffer that the stages share under one name; external: it outlives a sample."""
        buffer = Buffer(f"{self.names[self._node.name]}_{suffix}", "float", shape, Role.BATCH)
        if external:
            self._external[buffer] = None
        return buffer

    def after_loop(self, emit: Callable[[], None]) -> None:
        """Emit something once the current loop has ended; outside a loop at once."""
        if self._loop is None:
            emit()
        else:
            self._deferred.append((self._node, self._phase, emit))

    def staged(self, name: str) -> str:
        """A buffer's name, unique among the stages of a program."""
        return f"{name}_{self.stage.value}" if self.stage.value else name

    def _name(self, suffix: str) -> str:
        return self.staged(f"{self.names[self._node.name]}{self._again}_{suffix}")

    def pooled(self, x: Buffer, window: Window) -> Buffer:
        """Where a pooling writes its output: over `x`, if that is rounded into another buffer anyway.

        No output lies behind a tap that a later output reads, if no window begins in the padding.
        """
        if self.output_is_rounded and x in self._of_one_slice and self.may_overwrite(x) and window.pad_before == (0, 0):
            return x
        return self.buffer("y", self.output_shape, Role.MAP)

    def packed(self, suffix: str, elements: int, bits: int = 1) -> Buffer | None:
        """Room for `bits` of every element, as many elements to a 32-bit word as fit, noted for the backward pass.

        None where no input gradient is needed.
        """
        if not self.needs_input_gradient:
            return None
        words = self.buffer(suffix, (-(-elements // (32 // bits)),), Role.MASK, "uint32_t")
        self.note(suffix, words)
        return words

    def own(self, x: Buffer) -> Buffer:
        """`x`, or a copy of it where somebody else still needs it: what an operator may change in place."""
        if self.may_overwrite(x):
            if whole(x) == self.sample:
                self.sample = None
            return x
        copy = self.buffer("copy", x.shape, Role.MAP if self._phase == "forward" else Role.GRADIENT)
        self.call("memcpy", copy, x, f"{x.bytes}u", writes=[copy])
        return copy

    def hold(self, x: Buffer) -> Buffer:
        """Keep `x` for the backward pass; in a loop, the parts of all slices. Returns `x` as it is called from now on.

        The sample is not kept: the backward pass decodes it again.
        """
        if self.is_sample(x):
            return self.sample_again
        held = self._promoted(x)
        self._held.add(whole(held))
        return held

    def release(self, x: Buffer) -> None:
        """What was held for the current node is not needed any more."""
        self._held.discard(whole(x))

    def part(self, buffer: Buffer) -> Buffer:
        """The current slice's part of a buffer; outside a loop the whole."""
        if self._loop is None:
            return whole(buffer)
        if isinstance(buffer, Part) or buffer in self._of_one_slice:
            return buffer
        return Part(buffer.name, buffer.ctype, self._sliced(buffer.shape), buffer.role, buffer)

    def part_of_slices(self, part: Buffer) -> Buffer:
        """`part` as the current slice's of a buffer that has room for all of them; outside a loop `part` itself."""
        if self._loop is None:
            return part
        shape = (self.slices * part.shape[0], *part.shape[1:])
        return Part(part.name, part.ctype, part.shape, part.role, replace(part, shape=shape))

    def call(self, function: str, *arguments: Argument | int | None, writes: Sequence[Buffer | None]) -> None:
        """Emit one kernel call; None is NULL. Buffers among the arguments that are not written count as read."""
        passed = tuple(NULL if a is None else str(a) if isinstance(a, int) else a for a in arguments)
        written = tuple(buffer for buffer in writes if buffer is not None)
        self._calls.append(Call(function, passed, written, self._node.name, self._phase, self._loop, self.stage))

    def shape_constant(self) -> Constant:
        """The current node's shape struct; in a loop that of one slice."""
        node, suffix = (self._node.sliced(self.slices), "slice_shape") if self._loop else (self._node, "shape")
        constants = node.shape_constants(self.input_shape)
        if constants is None:
            raise AssertionError(f"{type(node).__name__} has no shape struct")
        return Constant(f"{self.names[node.name]}_{suffix}", constants)

    def attention_constant(self, direction: str) -> str:
        """C name of an attention module of the current node."""
        return f"&{self.names[self._node.name]}_attention_{direction}"

    def weight(self, name: str) -> str:
        """C expression for the current value of a weight: in flash until it is first updated."""
        identifier = self.names[name]
        expression = f"pmeta_weight(tensor_{identifier})" if name in self._learned else f"pmeta_const_{identifier}"
        if self._loop is None:
            return expression
        return f"{expression} + {SLICE} * {prod(self.graph.weights[name].shape) // self.slices}"

    def accumulator(self, name: str) -> Buffer:
        """The gradient accumulator of a weight of the current node."""
        buffer = Buffer(f"{self.names[name]}_grad", "float", self.graph.weights[name].shape, Role.ACCUMULATOR)
        self._external[buffer] = None
        return self.part(buffer)

    def note(self, key: str, value: Any) -> None:
        """Remember something of the current node from the forward for the backward pass."""
        self._notes[self._node.name, key] = value

    def noted(self, key: str) -> Any:
        return self._notes[self._node.name, key]

    # --- what the walk does ---------------------------------------------------------------------------------

    def enter(self, node: Node, phase: str) -> None:
        """From now on, calls belong to this node."""
        self._node, self._phase = node, phase

    def begin_loop(self, name: str, slices: int) -> None:
        self._loop = Loop(self.staged(name), slices)
        self._of_one_slice.clear()

    def end_loop(self) -> None:
        """Leave the loop, if in one."""
        self._loop = None
        here = self._node, self._phase
        deferred, self._deferred = self._deferred, []
        for node, phase, emit in deferred:
            self.enter(node, phase)
            emit()
        self.enter(*here)

    def end_loop_with(self, result: Buffer) -> Buffer:
        """Leave the loop, if in one; returns `result` whole."""
        return self.end_loop_with_all((result,))[0]

    def end_loop_with_all(self, results: Sequence[Buffer]) -> tuple[Buffer, ...]:
        """Leave the loop, if in one; returns each of `results` whole."""
        promoted = [whole(self._promoted(result)) for result in results]
        self.end_loop()
        return tuple(promoted)

    def compute_again(self, again: bool) -> None:
        """While set, buffers are other ones than those of the forward pass."""
        self._again = "_again" if again else ""

    @property
    def calls(self) -> tuple[Call, ...]:
        """What was emitted so far."""
        return tuple(self._calls)

    @property
    def external(self) -> tuple[Buffer, ...]:
        """What the calls use that outlives a sample."""
        return tuple(self._external)

    def _read_gradients(self) -> Learning:
        """The learning layers of whose output this stage needs the gradient."""
        if self.stage is Stage.FORWARD:
            return frozenset()
        if self.stage is not Stage.BACKWARD:
            return self.learning
        attention = self.model.adaptation.attention
        return frozenset((layer, part) for layer, part in self.learning if layer in attention and attention[layer].bw)

    # --- slices ---------------------------------------------------------------------------------------------

    def _sliced(self, shape: Shape) -> Shape:
        return (shape[0] // self.slices, *shape[1:])

    def _promoted(self, x: Buffer) -> Buffer:
        """`x`, if only the current slice's was held so far, as a part of a whole: in all that was emitted."""
        if self._loop is None or x not in self._of_one_slice:
            return x
        part = self.part_of_slices(x)
        self._calls = [self._with_part(call, x, part) if call.loop == self._loop else call for call in self._calls]
        self._notes = {key: part if value == x else value for key, value in self._notes.items()}
        return part

    def _with_part(self, call: Call, old: Buffer, new: Buffer) -> Call:
        arguments = tuple(new if argument == old else argument for argument in call.arguments)
        return replace(call, arguments=arguments, written=tuple(new if b == old else b for b in call.written))
