"""Appendix A against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pmeta.codegen.adaptation import Adaptation, InputEncoding, Model
from pmeta.codegen.appendix_a import appendix_a, critical_channels
from pmeta.codegen.graph import Graph, frozen_float32
from pmeta.codegen.operators import Conv, Flatten, Gemm, LeakyRelu, MaxPool, Relu, Window
from tests.models import random_4conv

pytestmark = pytest.mark.unit


def tiny_model(alpha: list[list[float]], updates: tuple[tuple[str, ...], ...] = (("weight", "bias"),) * 2) -> Model:
    """(2, 4, 4) → conv 3×3 without padding → (3, 2, 2) → ReLU → max-pool 2×2 → (3, 1, 1) → fc → (2,)."""
    nodes = (
        Conv("conv", "x", "y", "conv.weight", None, 3, Window((3, 3))),
        Relu("relu", "y", "z"),
        MaxPool("pool", "z", "p", Window((2, 2), stride=(2, 2))),
        Flatten("flatten", "p", "v"),
        Gemm("fc", "v", "logits", "fc.weight", "fc.bias", 2),
    )
    shapes = {"conv.weight": (3, 2, 3, 3), "fc.weight": (2, 3), "fc.bias": (2,)}
    weights = {name: frozen_float32(np.zeros(shape)) for name, shape in shapes.items()}
    adaptation = Adaptation("maml", 2, 1, frozen_float32(alpha), updates, 0, 0, InputEncoding("float32"))  # type: ignore[arg-type]
    return Model(Graph("tiny", "x", (2, 4, 4), nodes, weights), adaptation)


def test_tiny_network_with_all_layers_learning() -> None:
    terms = appendix_a(tiny_model([[0.1], [0.1]]), 1)
    assert terms.lowest_layer == "conv"
    assert terms.largest_map_words == 2 * 4 * 4  # the sample is larger than every map
    assert terms.accumulator_words == 3 * 2 * 9 + 2 * 3
    assert terms.stored_input_words == 32 + 3
    assert terms.derivative_bits == 12 * 1 + 3 * 2  # ReLU: 12 elements, T = 32; max-pool: 3 elements, T = 16
    assert terms.memory_words == 32 + 60 + 35 + 18 / 32
    assert terms.memory_bytes == 4 * 127 + 3
    assert terms.forward_macs == 4 * 54 + 6
    assert terms.weight_gradient_macs == 4 * 54 + 6
    assert terms.input_gradient_macs == 16 * 54 + 6  # from l_min inclusive, over input pixels, as printed
    assert terms.macs == 222 + 222 + 870


def test_a_leaky_relu_needs_as_many_bits_as_a_relu() -> None:
    model = tiny_model([[0.1], [0.1]])
    leaky = tuple(LeakyRelu(n.name, n.input, n.output) if isinstance(n, Relu) else n for n in model.graph.nodes)
    assert appendix_a(replace(model, graph=replace(model.graph, nodes=leaky)), 1) == appendix_a(model, 1)


def test_frozen_layers_store_nothing_and_stop_the_backward_pass() -> None:
    terms = appendix_a(tiny_model([[0.0], [0.1]]), 1)
    assert terms.lowest_layer == "fc"
    assert (terms.accumulator_words, terms.stored_input_words, terms.derivative_bits) == (6, 3, 0)
    assert (terms.forward_macs, terms.weight_gradient_macs, terms.input_gradient_macs) == (222, 6, 6)


def test_a_step_that_learns_nothing_is_a_forward_pass() -> None:
    terms = appendix_a(tiny_model([[0.1, 0.0], [0.1, 0.0]]), 2)
    assert terms.lowest_layer is None
    assert terms.memory_words == 32 and terms.macs == 222


def test_only_a_bias_learns() -> None:
    """The backward pass reaches the layer, but its weight is neither stored for nor accumulated."""
    terms = appendix_a(tiny_model([[0.0], [0.1]], updates=((), ("bias",))), 1)
    assert terms.lowest_layer == "fc"
    assert (terms.accumulator_words, terms.stored_input_words, terms.weight_gradient_macs) == (0, 0, 0)
    assert terms.input_gradient_macs == 6


def test_missing_bias_does_not_learn() -> None:
    terms = appendix_a(tiny_model([[0.1], [0.1]], updates=(("bias",), ("weight",))), 1)
    assert terms.lowest_layer == "fc"  # the convolution has no bias


# The paper's 4Conv on miniImageNet: 84, 42, 21, 10, 5 pixels a side, 32 channels, fc 800 → 5.
MAPS = [32 * side * side for side in (84, 42, 21, 10)]  # outputs of the convolutions
POOLED = [32 * side * side for side in (42, 21, 10, 5)]
CONV_WORDS = [32 * 3 * 9] + [32 * 32 * 9] * 3


def test_4conv_as_in_the_paper_all_layers() -> None:
    model = random_4conv(0, width=32, size=(3, 84, 84), groups=8)
    terms = appendix_a(model, 1, critical="all")
    assert terms.largest_map_words == 225_792  # 903,168 bytes: the 0.90 MB of inference in Table 1
    assert terms.accumulator_words == 864 + 3 * 9216 + 4 * 32 + 4000 == 32_640
    inputs = [3 * 84 * 84, *POOLED[:3]]
    assert terms.stored_input_words == sum(inputs) + sum(MAPS) + 800 == 395_280
    assert terms.derivative_bits == sum(MAPS) + 2 * sum(POOLED)
    assert terms.memory_words == 225_792 + 32_640 + 395_280 + 299_552 / 32 + 74_560 / 16
    pixels = [84 * 84, 42 * 42, 21 * 21, 10 * 10]
    forward = sum(p * w for p, w in zip(pixels, CONV_WORDS, strict=True)) + sum(MAPS) + 4000
    assert terms.forward_macs == terms.weight_gradient_macs == forward == 27_642_816
    assert terms.input_gradient_macs == 84 * 84 * 864 + (42 * 42 + 21 * 21 + 10 * 10) * 9216 + sum(MAPS) + 4000


def test_4conv_with_attention_and_frozen_layers() -> None:
    """ρ = 0.3: at most 32 − ⌈9.6⌉ = 22 of 32 channels are kept; conv3 and norm4 learn, nothing else."""
    alpha = np.zeros((9, 1))
    alpha[[4, 7]] = 0.1
    model = random_4conv(0, width=32, size=(3, 84, 84), groups=8, steps=1, alpha=alpha)
    terms = appendix_a(model, 1)
    assert terms.lowest_layer == "conv3"
    assert terms.accumulator_words == 9216 + 32
    assert terms.stored_input_words == 22 * 21 * 21 + 22 * 10 * 10
    assert terms.derivative_bits == MAPS[2] + 2 * POOLED[2] + MAPS[3] + 2 * POOLED[3]
    norm = -(-3200 * 22 * 22 // (32 * 32))
    assert terms.weight_gradient_macs == 21 * 21 * 22 * 22 * 9 + norm
    assert terms.input_gradient_macs == 21 * 21 * 9216 + MAPS[2] + 10 * 10 * 9216 + MAPS[3] + 4000


def test_critical_channels_follow_the_attention_there_is() -> None:
    model = random_4conv(0, width=8, size=(1, 28, 28))
    conv2, last = model.graph.layers[2], model.graph.layers[-1]
    assert critical_channels(model, conv2) == (5, 5)
    assert critical_channels(model, conv2, "all") == (8, 8)
    assert critical_channels(model, last) == (8, 5)
    forward_only = replace(model.adaptation.attention["conv2"], bw=None)
    attention = {**model.adaptation.attention, "conv2": forward_only}
    changed = Model(model.graph, replace(model.adaptation, attention=attention))
    assert critical_channels(changed, conv2) == (5, 8)
