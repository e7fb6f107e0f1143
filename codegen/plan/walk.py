"""The walk over the graph: one program per set of weights that learn in a step, and one for prediction.

Forward through the segments and back, asking each operator for its calls. Nothing is lowered that the step does not
need: no store for a layer that does not learn, no gradient below the lowest layer that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from pmeta.codegen.adaptation import PARTS, Model
from pmeta.codegen.graph import Graph, Node
from pmeta.codegen.operators.conv import Conv
from pmeta.codegen.operators.group_norm import GroupNorm
from pmeta.codegen.operators.weight_gradient import attend, attention_scores, lower_scores
from pmeta.codegen.plan.learning import Learning, learning_in_step
from pmeta.codegen.plan.lowering import Lowering
from pmeta.codegen.plan.names import Names
from pmeta.codegen.plan.program import Buffer, Program, Role, Stage
from pmeta.codegen.plan.segments import Segment, segments
from pmeta.codegen.plan.stored import dense, finished
from pmeta.codegen.plan.strategy import Strategy
from pmeta.codegen.storage import finished_maps


@dataclass
class Walk:
    """Lowers one program."""

    low: Lowering
    strategy: Strategy
    _values: dict[str, Buffer] = field(default_factory=dict)  # activations, then gradients, still to be read

    def __post_init__(self) -> None:
        self.low.live = self._values
        self.segments = segments(self.low.graph, self.strategy.slice_channels, self.low.storage.maps != "float32")
        self._finished = finished_maps(self.low.graph)

    # --- forward --------------------------------------------------------------------------------------------

    def forward(self) -> Buffer:
        """All nodes; returns the buffer with the logits."""
        graph = self.low.graph
        self._values[graph.input] = x = Buffer(self.low.staged("x0"), "float", graph.input_shape, Role.MAP)
        self.low.enter(graph.nodes[0], "forward")
        if self.strategy.encoded and all(self._can_read_encoded(node) for node in graph.readers(graph.input)):
            self.low.encoded_sample = x
        else:
            self.low.sample = x
            self._decode_sample(x)
        for index, segment in enumerate(self.segments):
            later = {name for other in self.segments[index + 1 :] for name in other.head.inputs}
            self._values[segment.output] = self._forward_segment(segment, later)
        return self._values.pop(graph.output)

    def _forward_segment(self, segment: Segment, read_later: set[str]) -> Buffer:
        low, head = self.low, segment.head
        low.enter(head, "forward")
        inputs = [self._values[name] for name in head.inputs]
        for name in head.inputs:
            if name not in read_later:
                self._values.pop(name, None)
        head.lower_prologue(low, inputs[0])
        low.recomputed = self._is_recomputed(segment)
        if segment.slices > 1:
            low.begin_loop(f"{head.name}, forward", segment.slices)
        if segment.in_parts:
            inputs = [low.part(x) for x in inputs]
        if not head.reads_float16:
            shapes = [low.shape_of(name) for name in head.inputs]
            inputs = [dense(low, n, x, shape) for n, (x, shape) in enumerate(zip(inputs, shapes, strict=True))]
        x = head.lower_joined_forward(low, inputs)
        for n, node in enumerate(segment.nodes[1:], start=2):
            low.enter(node, "forward")
            low.output_is_rounded = self._is_rounded(segment, segment.nodes[n:])
            x = node.lower_forward(low, x)
        low.output_is_rounded = False
        low.recomputed = False
        if segment.output in self._finished:
            x = finished(low, x)
        if segment.slices > 1:
            x = low.end_loop_with(x)
            for node in segment.nodes if not self._is_recomputed(segment) else ():
                low.enter(node, "forward")
                node.lower_epilogue(low)
        return x

    def _is_rounded(self, segment: Segment, behind: Sequence[Node]) -> bool:
        """Whether the output of the node in front of `behind` goes slice by slice into a map of fewer bits."""
        rounded = segment.slices > 1 and segment.output in self._finished and self.low.storage.maps != "float32"
        return rounded and not any(node.keeps_map for node in behind)

    def _is_recomputed(self, segment: Segment) -> bool:
        """Whether x̂ of the segment is computed again in the backward pass: from the sample, slice by slice.

        Not where attention must see all slices of x̂ or of a gradient first, or where nothing is kept anyway.
        """
        low, nodes = self.low, segment.nodes
        learning = [node.name for node in nodes if any((node.name, part) in low.learning for part in PARTS)]
        attended = [name for name in learning if name in low.model.adaptation.attention]
        norms = [node for node in nodes if isinstance(node, GroupNorm)]
        reads_sample = isinstance(segment.head, Conv) and segment.head.input == low.graph.input
        return (
            self.strategy.recompute
            and segment.slices > 1
            and bool(learning)
            and not (attended and low.stage is Stage.SAMPLE)
            and low.stage is not Stage.FORWARD
            and reads_sample
            and norms == [nodes[1]]
        )

    def _can_read_encoded(self, node: Node) -> bool:
        """Not where forward attention looks at the sample."""
        low = self.low
        attention = low.model.adaptation.attention.get(node.name)
        attended = (node.name, "weight") in low.learning and attention is not None and attention.fw is not None
        return node.reads_uint8 and low.model.adaptation.encoding.kind == "uint8" and not attended

    def _decode_sample(self, x: Buffer) -> None:
        """The sample as the first map."""
        low = self.low
        shape = low.graph.input_shape
        if low.model.adaptation.encoding.kind == "uint8":
            channels, size = shape[0], prod(shape[1:])
            low.call("pmeta_decode_uint8", channels, size, "sample", "input_scale", "input_offset", x, writes=[x])
        else:
            low.call("memcpy", x, "sample", f"{4 * prod(shape)}u", writes=[x])

    # --- loss -----------------------------------------------------------------------------------------------

    def copy_logits(self, logits: Buffer) -> None:
        self.low.call("memcpy", "logits", logits, f"{4 * self.low.model.adaptation.ways}u", writes=[])

    def loss(self, logits: Buffer) -> Buffer:
        """The loss head: returns the gradient of the logits (of the outputs, with mean squared error)."""
        low = self.low
        low.enter(low.graph.nodes[-1], "loss")
        g = Buffer(low.staged("logits_g"), "float", logits.shape, Role.GRADIENT)
        loss, ways = low.model.adaptation.loss, low.model.adaptation.ways
        target = "(int32_t)target" if loss == "softmax_cross_entropy" else "target"
        result = "*loss =" if low.stage in (Stage.SAMPLE, Stage.FORWARD) else "(void)"
        low.call(f"{result} pmeta_{loss}", ways, logits, target, g, writes=[g])
        return g

    # --- backward -------------------------------------------------------------------------------------------

    def backward(self, gradient: Buffer) -> None:
        """From the gradient of the logits down to the lowest layers that learn."""
        self._values.clear()
        self._values[self.low.graph.output] = gradient
        for segment in reversed(self.segments):
            if segment.output in self._values:
                self._backward_segment(segment, self._values.pop(segment.output))

    def _backward_segment(self, segment: Segment, g: Buffer) -> None:
        """`g` is the gradient of the segment's output."""
        self._compute_again(segment)
        for node in reversed(segment.nodes[1:]):
            g = self._begin_node(segment, node, g)
            if self.low.node_learns or self.low.attends("bw"):
                g = self._begin_node(segment, node, self._weight_gradient(node, g))
            if not self.low.needs_input_gradient:
                self.low.end_loop()
                return
            g = node.lower_input_gradient(self.low, g)
        self._backward_head(segment, g)

    def _compute_again(self, segment: Segment) -> None:
        """Emit what the forward pass did not keep: the sample, and x̂ where that is computed again."""
        low, head = self.low, segment.head
        low.enter(head, "backward")
        recomputed = self._is_recomputed(segment)
        stored = low.noted("stored") if head.is_layer and low.learns("weight") else None
        needs_decoded = recomputed and low.encoded_sample is None
        if needs_decoded or (stored is not None and stored.x == low.sample_again):
            self._decode_sample(low.sample_again)
        if recomputed:
            low.begin_loop(f"{head.name}, backward", segment.slices)
            low.compute_again(True)
            x = low.encoded_sample or low.sample_again
            for node in segment.nodes[:2]:
                low.enter(node, "backward")
                x = node.lower_again(low, x)
            low.compute_again(False)

    def _backward_head(self, segment: Segment, g: Buffer) -> None:
        """Slice by slice only where the gradient goes no further, or slices of it can be summed or stand alone."""
        low, head = self.low, segment.head
        g = self._begin_node(segment, head, g)
        if low.needs_input_gradient and not (segment.in_parts or self.strategy.sums_slices):
            g = low.end_loop_with(g)
        if low.node_learns or low.attends("bw"):
            g = self._weight_gradient(head, g)
        if low.needs_input_gradient:
            if segment.in_parts:
                g = self._begin_node(segment, head, g)
            gradients = low.end_loop_with_all(head.lower_input_gradients(low, g))
            for name, gx in zip(head.inputs, gradients, strict=True):
                self._add_gradient(name, gx)
        low.end_loop()

    def _begin_node(self, segment: Segment, node: Node, g: Buffer) -> Buffer:
        """Enter the node, in the loop; returns the current slice's part of `g`."""
        self.low.enter(node, "backward")
        if segment.slices > 1 and not self.low.in_loop:
            self.low.begin_loop(f"{node.name}, backward", segment.slices)
        return self.low.part(g)

    def _weight_gradient(self, node: Node, g: Buffer) -> Buffer:
        """Returns `g` as it is called from now on: where attention looks at all of it, the loop ends."""
        low = self.low
        if low.attends("bw"):
            attend(low, "bw", g)
            return g
        looks_at_all = low.attention("bw") is not None and low.stage is Stage.SAMPLE
        if looks_at_all or node.weight_gradient_needs_whole(low):
            g = low.end_loop_with(g)
        low.note("gamma_bw", attention_scores(low, "bw", g))
        node.lower_weight_gradient(low, g)
        return g

    def _add_gradient(self, name: str, gx: Buffer) -> None:
        """Where an activation has several readers, their gradients are added, from the last reader on."""
        low = self.low
        if name not in low.gradient_needed:
            return
        if name in self._values:
            total = self._values.pop(name)
            total = low.own(total)
            low.call("pmeta_add", prod(gx.shape), total, gx, total, writes=[total])
            gx = total
        self._values[name] = gx


def lower_adapt(model: Model, graph: Graph, strategy: Strategy, names: Names, step: int, name: str) -> Program:
    """The program for one support sample of a step, or for a micro-batch where attention averages over one."""
    learning = learning_in_step(model, step)
    stages = stages_of(model, learning, strategy)
    lowered = [_lower_stage(Lowering(model, graph, names, learning, stage), strategy) for stage in stages]
    calls = [call for low in lowered for call in low.calls]
    external = dict.fromkeys(buffer for low in lowered for buffer in low.external)
    return Program(name, tuple(calls), tuple(external))


def stages_of(model: Model, learning: Learning, strategy: Strategy) -> tuple[Stage, ...]:
    """The stages that a step with these learning weights needs."""
    attention = model.adaptation.attention
    forward = any(part == "weight" and layer in attention and attention[layer].fw for layer, part in learning)
    backward = any(layer in attention and attention[layer].bw for layer, _ in learning)
    if not (model.adaptation.sample_batch > 1 or strategy.attends_first) or not (forward or backward):
        return (Stage.SAMPLE,)
    of_forward = (Stage.FORWARD, Stage.FORWARD_SCORES) if forward else (Stage.FORWARD,)
    of_backward = (Stage.BACKWARD, Stage.BACKWARD_SCORES) if backward else ()
    return (*of_forward, *of_backward, Stage.GRADIENT)


def _lower_stage(low: Lowering, strategy: Strategy) -> Lowering:
    if low.stage in (Stage.FORWARD_SCORES, Stage.BACKWARD_SCORES):
        _lower_scores(low, "fw" if low.stage is Stage.FORWARD_SCORES else "bw")
        return low
    walk = Walk(low, strategy)
    logits = walk.forward()
    if low.stage in (Stage.SAMPLE, Stage.FORWARD):
        walk.copy_logits(logits)
    gradient = walk.loss(logits)
    if low.stage is not Stage.FORWARD:
        walk.backward(gradient)
    return low


def _lower_scores(low: Lowering, direction: str) -> None:
    """γ of all learning layers from the sums over the micro-batch."""
    for node in low.graph.layers:
        low.enter(node, "forward" if direction == "fw" else "backward")
        parts = PARTS[:1] if direction == "fw" else PARTS
        module = low.attention(direction)
        if module is not None and any((node.name, part) in low.learning for part in parts):
            total = low.batch_buffer(f"attention_{direction}_sum", (module.channels,), external=True)
            gamma = low.batch_buffer(f"gamma_{direction}", (module.channels,), external=False)
            lower_scores(low, direction, "count", total, gamma)


def lower_predict(model: Model, graph: Graph, strategy: Strategy, names: Names) -> Program:
    """The program for one query sample."""
    nothing: Learning = frozenset()
    walk = Walk(Lowering(model, graph, names, nothing), strategy)
    walk.copy_logits(walk.forward())
    return Program("predict", walk.low.calls)
