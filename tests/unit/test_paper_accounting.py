"""The paper's accounting against its printed figures, and against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.bring_your_own import OwnAdaptation, own_model
from pmeta.codegen.graph import Graph, frozen_float32
from pmeta.codegen.networks import four_conv, mlp, resnet12
from pmeta.codegen.operators import Concat, Gemm
from pmeta.codegen.paper_accounting import PaperAccount, paper_accounting
from tests.models import random_4conv
from tests.unit.test_appendix_a import tiny_model

pytestmark = pytest.mark.unit

MEGA, GIGA = 10**6, 10**9
OBSERVATIONS = 200  # of an episode, which counts as one sample


def learning(graph: Graph, update: str) -> Model:
    return own_model(graph, OwnAdaptation(update, steps=1))


def body(graph: Graph) -> str:
    """BOIL: everything but the last layer."""
    return ",".join(layer.name for layer in graph.layers[:-1])


def account(build: Callable[[], Graph], method: str, batch: int = 1, accumulate: bool = True) -> PaperAccount:
    graph = build()
    update = {"maml": "all", "anil": "last", "boil": body(graph), "inference": "all"}[method]
    return paper_accounting(learning(graph, update), None if method == "inference" else 1, batch, accumulate)


def navigation() -> Graph:
    return mlp(2, outputs=2)


@pytest.mark.parametrize(
    ("build", "samples", "method", "megabytes", "gmacs"),
    [
        (four_conv, 25, "inference", "0.90", "0.72"),
        (four_conv, 25, "maml", "48.33", "1.96"),
        (resnet12, 25, "inference", "3.61", "62.08"),
        (resnet12, 25, "maml", "567.29", "185.42"),  # printed: 370.44, see below
        (mlp, 20 * OBSERVATIONS, "maml", "3.72", "0.15"),
    ],
)
def test_table_1(build: Callable[[], Graph], samples: int, method: str, megabytes: str, gmacs: str) -> None:
    """Adaptation without gradient accumulation on the whole support set; inference one sample at a time."""
    found = account(build, method, 1 if method == "inference" else samples, accumulate=False)
    assert f"{found.memory_bytes / MEGA:.2f}" == megabytes
    assert f"{samples * found.macs / GIGA:.2f}" == gmacs


def test_table_1_inference_of_the_mlp() -> None:
    """0.08 MB for an episode, 0.0004 for an observation."""
    assert account(mlp, "inference", OBSERVATIONS).memory_bytes == 80_000
    assert account(mlp, "inference").memory_bytes == 400
    assert f"{20 * OBSERVATIONS * account(mlp, 'inference').macs / GIGA:.2f}" == "0.05"


def test_the_printed_memory_of_resnet12_is_its_first_block_alone() -> None:
    """370.44 MB: 25 times block 1 with everything in it; the peak comes three blocks later."""
    maps, pooled = 64 * 84 * 84, 64 * 42 * 42
    inputs = 2 * 3 * 84 * 84 + 2 * maps  # of conv1 and the shortcut, of conv2 and conv3
    block = inputs + 4 * maps + 3 * maps / 32 + pooled / 16 + 2 * maps
    assert f"{25 * 4 * block / MEGA:.2f}" == "370.44"
    assert account(resnet12, "maml").peak_node == "block4.shortcut_norm"


@pytest.mark.parametrize(
    ("build", "method", "megabytes", "one_shot", "five_shot"),
    [
        (four_conv, "maml", "2.06", "0.39", "1.96"),
        (four_conv, "anil", "0.92", "0.14", "0.72"),
        (four_conv, "boil", "2.05", "0.39", "1.96"),
        (resnet12, "maml", "54.69", "37.08", "185.42"),
        (resnet12, "anil", "3.62", "12.42", "62.08"),
        (resnet12, "boil", "54.68", "37.08", "185.42"),  # printed: 54.69
    ],
)
def test_table_2(build: Callable[[], Graph], method: str, megabytes: str, one_shot: str, five_shot: str) -> None:
    """Micro-batches of one sample with gradient accumulation, 5 and 25 samples."""
    found = account(build, method)
    assert f"{found.memory_bytes / MEGA:.2f}" == megabytes
    assert [f"{samples * found.macs / GIGA:.2f}" for samples in (5, 25)] == [one_shot, five_shot]


@pytest.mark.parametrize(
    ("build", "method", "megabytes", "gmacs"),
    [
        (mlp, "maml", "0.24", "0.15"),
        (mlp, "anil", "0.09", "0.06"),
        (mlp, "boil", "0.23", "0.15"),
        (navigation, "maml", "0.21", "0.12"),
        (navigation, "anil", "0.08", "0.04"),
        (navigation, "boil", "0.21", "0.12"),
    ],
)
def test_table_3(build: Callable[[], Graph], method: str, megabytes: str, gmacs: str) -> None:
    """Micro-batches of one episode; 20 of them."""
    found = account(build, method, OBSERVATIONS)
    assert f"{found.memory_bytes / MEGA:.2f}" == megabytes
    assert f"{20 * OBSERVATIONS * found.macs / GIGA:.2f}" == gmacs


def test_words_per_sample() -> None:
    assert account(four_conv, "maml").sample_words == 483_336
    assert account(resnet12, "maml").sample_words == 5_672_928
    assert account(mlp, "maml").sample_words == 232.25


def test_terms_of_4conv() -> None:
    """The peak is at the first pooling: the sample, x̂ of norm1, both kinds of bits, and the map before pooling."""
    found = account(four_conv, "maml")
    assert (found.peak_node, found.stored_input_words, found.normalized_words) == ("pool1", 3 * 84 * 84, 32 * 84 * 84)
    assert (found.live_words, found.derivative_bits) == (32 * 84 * 84, 32 * 84 * 84 + 2 * 32 * 42 * 42)
    assert found.accumulator_words == 32_773 and found.attention_words == 0
    assert found.forward_macs == 27_343_264 + 5 * 299_552
    assert found.weight_gradient_macs == 27_343_264 + 3 * 299_552
    assert found.input_gradient_macs == 27_343_264 - 6_096_384 + 2 * (299_552 - 225_792)
    assert found.memory_bytes == 4 * (483_336 + 32_773)


def test_terms_of_a_tiny_network() -> None:
    """(2, 4, 4) → conv → (3, 2, 2) → ReLU → pool → (3, 1, 1) → fc → (2,); the classifier alone learns."""
    found = paper_accounting(tiny_model([[0.0], [0.1]]), 1)
    assert (found.peak_node, found.live_words, found.stored_input_words) == ("conv", 32, 0)
    assert (found.derivative_bits, found.accumulator_words) == (0, 2 * 3 + 2)
    assert (found.weight_gradient_macs, found.input_gradient_macs) == (6, 6)
    assert found.memory_bytes == 4 * (32 + found.accumulator_words)


def test_a_step_that_learns_nothing_is_inference() -> None:
    model = tiny_model([[0.1, 0.0], [0.1, 0.0]])
    assert paper_accounting(model, 2) == paper_accounting(model, None)


def test_a_batch_multiplies_samples_but_not_accumulators() -> None:
    model = learning(four_conv(), "all")
    one, five = paper_accounting(model, 1), paper_accounting(model, 1, sample_batch=5)
    assert five.memory_bytes - one.memory_bytes == 4 * 4 * 483_336
    whole = paper_accounting(model, 1, sample_batch=5, accumulate=False)
    assert five.memory_bytes - whole.memory_bytes == 4 * 32_773


def test_attention_keeps_fewer_channels_and_costs_a_little() -> None:
    """ρ = 0.3: at most 22 of 32 channels; conv3 alone learns."""
    alpha = np.zeros((9, 1))
    alpha[4] = 0.1
    model = random_4conv(0, width=32, size=(3, 84, 84), groups=8, steps=1, alpha=alpha)
    sparse, dense = paper_accounting(model, 1), paper_accounting(model, 1, critical="all")
    assert sparse.weight_gradient_macs == 21 * 21 * 22 * 22 * 9
    assert dense.weight_gradient_macs == 21 * 21 * 32 * 32 * 9
    assert sparse.attention_macs == 2 * (32 * 21 * 21 + 2 * 32 * 32)
    assert (sparse.peak_node, sparse.stored_input_words) == ("conv1", 0)  # nothing is stored that far down


def test_only_what_lies_above_the_lowest_learning_layer_is_stored() -> None:
    """fc2 and fc3 learn: their inputs, the bits of the ReLU between them, and fc3's output; nothing of fc1."""
    found = paper_accounting(learning(mlp(), "fc2,fc3"), 1)
    assert found.sample_words == 100 + 100 + 100 / 32 + 6
    assert found.accumulator_words == 100 * 100 + 100 + 100 * 6 + 6
    assert found.input_gradient_macs == 100 * 100 + 100 * 6  # from l_min inclusive


def test_a_group_norm_that_only_passes_the_gradient_is_forgotten() -> None:
    """conv1 learns: the gradient needs every x̂ above, of which the paper's figures count none."""
    found = paper_accounting(learning(four_conv(), "conv1"), 1)
    assert found.normalized_words == 0 and found.stored_input_words == 3 * 84 * 84


def test_branches_live_side_by_side() -> None:
    """(4,) → (3,) and (5,) → joined (8,) → (2,): while they are joined, the output takes the larger one's place."""
    nodes = (
        Gemm("left", "x", "a", "left.weight", None, 3),
        Gemm("right", "x", "b", "right.weight", None, 5),
        Concat("join", "a", "c", ("b",)),
        Gemm("fc", "c", "logits", "fc.weight", None, 2),
    )
    shapes = {"left.weight": (3, 4), "right.weight": (5, 4), "fc.weight": (2, 8)}
    graph = Graph(
        "branches", "x", (4,), nodes, {name: frozen_float32(np.zeros(shape)) for name, shape in shapes.items()}
    )
    found = paper_accounting(learning(graph, "last"), None)
    assert (found.peak_node, found.live_words) == ("join", 3 + 8)
