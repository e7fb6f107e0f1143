"""Lowering: one program per set of weights that learn in a step, and one for prediction.

Walks the graph forward and backward and asks each operator for its calls. Nothing is lowered that the step does not
need: no store for a layer that does not learn, no gradient below the lowest layer that does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from pmeta.codegen.adaptation import AttentionModule, Model, UpdatedPart
from pmeta.codegen.graph import Graph, Node, Shape
from pmeta.codegen.operators.max_pool import MaxPool
from pmeta.codegen.operators.relu import Relu
from pmeta.codegen.plan.program import Buffer, Call, Program, Role

NULL = "NULL"


def identifier(name: str) -> str:
    """`name` as (part of) a C identifier; different names may collide, see `Names`."""
    return re.sub(r"[^0-9A-Za-z_]", "_", name)


class Names:
    """C identifiers for the graph's names: readable, unique, harmless whatever the model file says."""

    def __init__(self, graph: Graph) -> None:
        self._by_name: dict[str, str] = {}
        taken: set[str] = set()
        for name in [node.name for node in graph.nodes] + sorted(graph.weights):
            base = identifier(name)[:40]
            if not base or not base[0].isalpha():
                base = "n_" + base
            unique, number = base, 2
            while unique in taken:
                unique, number = f"{base}_{number}", number + 1
            taken.add(unique)
            self._by_name[name] = unique

    def __getitem__(self, name: str) -> str:
        return self._by_name[name]


def relu_after_pool(graph: Graph) -> Graph:
    """Swap every Relu -> MaxPool pair: the same bits (docs/numerics.md), and Relu touches fewer elements."""
    nodes = list(graph.nodes)
    for index in range(len(nodes) - 1):
        relu, pool = nodes[index], nodes[index + 1]
        if isinstance(relu, Relu) and isinstance(pool, MaxPool):
            nodes[index] = replace(pool, input=relu.input, output=relu.output)
            nodes[index + 1] = replace(relu, input=relu.output, output=pool.output)
    return Graph(graph.name, graph.input, graph.input_shape, tuple(nodes), graph.weights)


class Lowering:
    """Builds one program. `learning` lists the (layer name, part) pairs that change at the end of the step."""

    def __init__(self, model: Model, graph: Graph, names: Names, learning: frozenset[tuple[str, UpdatedPart]]) -> None:
        self.model = model
        self.graph = graph
        self.names = names
        self.learning = learning
        self._calls: list[Call] = []
        self._external: list[Buffer] = []
        self._node: Node = graph.nodes[0]
        self._phase = "forward"
        self._notes: dict[tuple[str, str], Any] = {}
        self._learned = frozenset(learned_weights(model))
        positions = [n for n, node in enumerate(graph.nodes) if any(layer == node.name for layer, _ in learning)]
        self._lowest = positions[0] if positions else len(graph.nodes)

    # --- what operators ask ---------------------------------------------------------------------------------

    def learns(self, part: UpdatedPart) -> bool:
        """Whether this part of the current node changes at the end of the step."""
        return (self._node.name, part) in self.learning

    @property
    def needs_input_gradient(self) -> bool:
        """Whether something below the current node learns; always so in the backward pass of a node without weights."""
        return self.graph.nodes.index(self._node) > self._lowest

    @property
    def input_shape(self) -> Shape:
        """Per-sample shape the current node reads; a buffer may carry the same elements under another shape."""
        return self.graph.shapes[self._node.input]

    @property
    def output_shape(self) -> Shape:
        """Per-sample shape the current node writes."""
        return self.graph.shapes[self._node.output]

    def attention(self, direction: str) -> AttentionModule | None:
        """The current layer's attention module, "fw" or "bw"."""
        attention = self.model.adaptation.attention.get(self._node.name)
        module: AttentionModule | None = getattr(attention, direction, None)
        return module

    def rho(self, direction: str) -> int:
        """Clip ratio in thousandths."""
        return self.model.adaptation.rho_fw if direction == "fw" else self.model.adaptation.rho_bw

    # --- what operators emit --------------------------------------------------------------------------------

    def buffer(self, suffix: str, shape: Shape, role: Role, ctype: str = "float") -> Buffer:
        """A new buffer, named after the current node."""
        return Buffer(f"{self.names[self._node.name]}_{suffix}", ctype, shape, role)

    def packed(self, suffix: str, elements: int, bits: int = 1) -> Buffer | None:
        """Room for `bits` of every element, as many elements to a 32-bit word as fit, noted for the backward pass.

        None where no input gradient is needed.
        """
        if not self.needs_input_gradient:
            return None
        words = self.buffer(suffix, (-(-elements // (32 // bits)),), Role.MASK, "uint32_t")
        self.note(suffix, words)
        return words

    def call(
        self,
        function: str,
        *arguments: Buffer | str | int | None,
        writes: Sequence[Buffer | None],
    ) -> None:
        """Emit one kernel call; None is NULL. Buffers among the arguments that are not written count as read."""
        text = tuple(NULL if a is None else a.name if isinstance(a, Buffer) else str(a) for a in arguments)
        written = tuple(buffer for buffer in writes if buffer is not None)
        reads = tuple(a for a in arguments if isinstance(a, Buffer) and a not in written)
        self._calls.append(Call(function, text, reads, written, self._node.name, self._phase))

    def shape_constant(self) -> str:
        """C name of the current node's shape struct."""
        return f"&{self.names[self._node.name]}_shape"

    def attention_constant(self, direction: str) -> str:
        """C name of an attention module of the current node."""
        return f"&{self.names[self._node.name]}_attention_{direction}"

    def weight(self, name: str) -> str:
        """C expression for the current value of a weight: in flash until it is first updated."""
        identifier = self.names[name]
        return f"pmeta_weight(tensor_{identifier})" if name in self._learned else f"pmeta_{identifier}"

    def accumulator(self, name: str) -> Buffer:
        """The gradient accumulator of a weight of the current node."""
        buffer = Buffer(f"{self.names[name]}_grad", "float", self.graph.weights[name].shape, Role.ACCUMULATOR)
        if buffer not in self._external:
            self._external.append(buffer)
        return buffer

    def note(self, key: str, value: Any) -> None:
        """Remember something of the current node from the forward for the backward pass."""
        self._notes[self._node.name, key] = value

    def noted(self, key: str) -> Any:
        return self._notes[self._node.name, key]

    # --- the walk -------------------------------------------------------------------------------------------

    def forward(self, x: Buffer) -> Buffer:
        """Lower all nodes; returns the buffer with the logits."""
        for node in self.graph.nodes:
            self._node = node
            x = node.lower_forward(self, x)
        return x

    def backward(self, gradient: Buffer) -> None:
        """Lower the backward pass from the gradient of the logits down to the lowest layer that learns."""
        self._phase = "backward"
        for node in reversed(self.graph.nodes[self._lowest :]):
            self._node = node
            lower = node.lower_backward(self, gradient)
            if lower is None:
                break
            gradient = lower

    def decode_input(self) -> Buffer:
        """The sample as the first map."""
        shape = self.graph.input_shape
        x = Buffer("x0", "float", shape, Role.MAP)
        self._phase = "forward"
        if self.model.adaptation.encoding.kind == "uint8":
            channels, size = shape[0], prod(shape[1:])
            self.call("pmeta_decode_uint8", channels, size, "sample", "input_scale", "input_offset", x, writes=[x])
        else:
            self.call("memcpy", x, "sample", f"{4 * prod(shape)}u", writes=[x])
        return x

    def loss(self, logits: Buffer) -> Buffer:
        """The loss head: returns the gradient of the logits."""
        self._phase = "loss"
        g = Buffer("logits_g", "float", logits.shape, Role.GRADIENT)
        ways = self.model.adaptation.ways
        self.call("*loss = pmeta_softmax_cross_entropy", ways, logits, "(int32_t)label", g, writes=[g])
        return g

    def copy_logits(self, logits: Buffer) -> None:
        self.call("memcpy", "logits", logits, f"{4 * self.model.adaptation.ways}u", writes=[])

    def program(self, name: str) -> Program:
        return Program(name, tuple(self._calls), tuple(self._external))


def learned_weights(model: Model) -> dict[str, tuple[str, UpdatedPart, tuple[int, ...]]]:
    """Weights that change in some step, in layer order: name -> (layer, part, steps at whose end it changes)."""
    found: dict[str, tuple[str, UpdatedPart, tuple[int, ...]]] = {}
    parts: tuple[UpdatedPart, ...] = ("weight", "bias")
    for index, layer in enumerate(model.graph.layers):
        for name, part in zip(layer.weight_names, parts, strict=False):
            steps = tuple(k for k in range(1, model.adaptation.steps + 1) if model.learns(index, part, k))
            if steps:
                found[name] = (layer.name, part, steps)
    return found


def learning_in_step(model: Model, step: int) -> frozenset[tuple[str, UpdatedPart]]:
    """(layer, part) pairs that change at the end of a step."""
    return frozenset((layer, part) for layer, part, steps in learned_weights(model).values() if step in steps)


def lower_adapt(model: Model, graph: Graph, names: Names, step: int, name: str) -> Program:
    """The program for one support sample of a step."""
    learning = learning_in_step(model, step)
    lowering = Lowering(model, graph, names, learning)
    logits = lowering.forward(lowering.decode_input())
    lowering.copy_logits(logits)
    gradient = lowering.loss(logits)
    lowering.backward(gradient)
    return lowering.program(name)


def lower_predict(model: Model, graph: Graph, names: Names) -> Program:
    """The program for one query sample."""
    lowering = Lowering(model, graph, names, frozenset())
    lowering.copy_logits(lowering.forward(lowering.decode_input()))
    return lowering.program("predict")
