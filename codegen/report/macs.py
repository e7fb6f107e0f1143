"""Multiply-accumulates of a program: the calls that the plan emits, counted one by one.

Counted are nominal ones (taps in the padding too), like `Node.forward_macs`; for GroupNormalization, activations that
multiply and averages, one per element and pass. Where attention chooses channels at run time, the most that
it can keep are counted, so the sum is an upper bound. ReLU, Clip, max-pool and the loss count nothing, copies neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from pmeta.codegen.appendix_a import critical_channels
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.operators import Conv
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.plan.program import Call, Program


@dataclass(frozen=True)
class _Layer:
    """The node a call belongs to, with what the counts depend on."""

    node: Node
    shape_in: Shape
    shape_out: Shape
    kept_in: int  # rows of the input that are stored
    kept_out: int  # channels whose gradient attention can keep
    backward: bool

    @property
    def dense(self) -> int:
        return self.node.forward_macs(self.shape_in)

    @property
    def sparse(self) -> int:
        """`dense` for the kept input and output channels only: for the most pairs of them that a weight can join."""
        channels_in, channels_out = self.node.attention_channels(self.shape_in)
        groups = self.node.groups if isinstance(self.node, Conv) else 1
        of_a_filter, of_a_channel = channels_in // groups, channels_out // groups
        pairs = min(self.kept_in * self.kept_out, self.kept_in * of_a_channel, self.kept_out * of_a_filter)
        return -(-self.dense * pairs // (channels_out * of_a_filter))

    @property
    def attended(self) -> int:
        """C·H·W, for the average (Appendix A.1.2)."""
        return prod(self._attended)

    @property
    def attention(self) -> int:
        """2C², for two fully connected layers (Appendix A.1.2)."""
        return 2 * self._attended[0] ** 2

    @property
    def _attended(self) -> Shape:
        return self.shape_out if self.backward else self.shape_in


def _nothing(_: _Layer) -> int:
    return 0


# By kernel. A kernel without an entry is an error: a count that silently misses some would be worse.
_MACS: dict[str, Callable[[_Layer], int]] = {
    "memcpy": _nothing,
    "pmeta_add": lambda layer: prod(layer.shape_in),
    "pmeta_concat_forward": _nothing,
    "pmeta_concat_input_gradient": _nothing,
    "pmeta_decode_uint8": lambda layer: prod(layer.shape_in),
    "pmeta_conv_forward": lambda layer: layer.dense,
    "pmeta_conv_forward_float16": lambda layer: layer.dense,
    "pmeta_conv_forward_uint8": lambda layer: layer.dense,
    "pmeta_conv_weight_gradient": lambda layer: layer.sparse,
    "pmeta_conv_input_gradient": lambda layer: layer.dense,
    "pmeta_gemm_forward": lambda layer: layer.dense,
    "pmeta_gemm_weight_gradient": lambda layer: layer.sparse,
    "pmeta_gemm_input_gradient": lambda layer: layer.dense,
    # Mean, variance (two), normalization; then scale and shift: five per element together.
    "pmeta_group_norm_normalize": lambda layer: 4 * prod(layer.shape_in),
    "pmeta_group_norm_affine": lambda layer: prod(layer.shape_in),
    "pmeta_group_norm_scale_gradient": lambda layer: min(layer.kept_in, layer.kept_out) * prod(layer.shape_in[1:]),
    # g·scale, its mean, its mean with x̂, x̂ times that, times rstd.
    "pmeta_group_norm_input_gradient": lambda layer: 5 * prod(layer.shape_in),
    "pmeta_bias_gradient": lambda layer: layer.kept_out * prod(layer.shape_out[1:]),
    "pmeta_channel_means": lambda layer: layer.attended,
    "pmeta_attention_output": lambda layer: layer.attention,
    "pmeta_attention_scores": _nothing,
    "pmeta_kept_channels": _nothing,
    "pmeta_keep_elements": lambda layer: layer.kept_in,
    "pmeta_keep_rows": lambda layer: layer.kept_in * prod(layer.shape_in[1:]),
    "pmeta_convert_rows": _nothing,
    "pmeta_decode_rows": _nothing,
    "pmeta_round_rows": _nothing,
    "pmeta_relu_forward": _nothing,
    "pmeta_relu_input_gradient": _nothing,
    "pmeta_hard_swish_forward": lambda layer: layer.dense,
    "pmeta_hard_swish_input_gradient": lambda layer: layer.dense,
    "pmeta_leaky_relu_forward": lambda layer: layer.dense,
    "pmeta_leaky_relu_input_gradient": lambda layer: layer.dense,
    "pmeta_sigmoid_forward": lambda layer: layer.dense,
    "pmeta_sigmoid_input_gradient": lambda layer: layer.dense,
    "pmeta_tanh_forward": lambda layer: layer.dense,
    "pmeta_tanh_input_gradient": lambda layer: layer.dense,
    "pmeta_average_pool_forward": lambda layer: layer.dense,
    "pmeta_average_pool_input_gradient": lambda layer: layer.dense,
    "pmeta_global_average_pool_forward": lambda layer: layer.dense,
    "pmeta_global_average_pool_input_gradient": lambda layer: layer.dense,
    "pmeta_clip_forward": _nothing,
    "pmeta_clip_input_gradient": _nothing,
    "pmeta_max_pool_forward": _nothing,
    "pmeta_max_pool_input_gradient": _nothing,
    "pmeta_softmax_cross_entropy": _nothing,
    "pmeta_mean_squared_error": _nothing,
}

_ATTENTION = {
    "pmeta_channel_means",
    "pmeta_attention_output",
    "pmeta_attention_scores",
    "pmeta_kept_channels",
    "pmeta_keep_rows",
    "pmeta_keep_elements",
}


@dataclass(frozen=True)
class MacsByPass:
    """MACs for one sample: the three terms of Eq. 18, and meta attention, which it neglects."""

    forward: int  # also of what the backward pass computes again
    weight_gradients: int
    input_gradients: int
    attention: int

    @property
    def total(self) -> int:
        return self.forward + self.weight_gradients + self.input_gradients + self.attention


def program_macs(plan: Plan, program: Program) -> int:
    """Most multiply-accumulates that a program executes for one sample."""
    return macs_by_pass(plan, program).total


def macs_by_pass(plan: Plan, program: Program) -> MacsByPass:
    """Most multiply-accumulates that a program executes for one sample, by what they are for."""
    nodes = {node.name: node for node in plan.graph.nodes}
    macs = {"forward": 0, "weight_gradients": 0, "input_gradients": 0, "attention": 0}
    for call in program.calls:
        macs[_pass(call)] += _call_macs(plan, nodes[call.layer], call)
    return MacsByPass(**macs)


def _pass(call: Call) -> str:
    """The field of MacsByPass that a call belongs to."""
    if call.function in _ATTENTION:
        return "attention"
    if call.function.endswith("_input_gradient") or (call.phase == "backward" and call.function == "pmeta_add"):
        return "input_gradients"
    return "weight_gradients" if call.function.endswith("_gradient") else "forward"


def _call_macs(plan: Plan, node: Node, call: Call) -> int:
    count = _MACS.get(call.function.rsplit(" ", 1)[-1])
    if count is None:
        raise AssertionError(f"no count for {call.function}: add one to {__name__}")
    shapes = plan.graph.shapes
    kept = critical_channels(plan.model, node) if node.is_layer else (0, 0)
    return count(_Layer(node, shapes[node.input], shapes[node.output], *kept, call.phase == "backward"))
