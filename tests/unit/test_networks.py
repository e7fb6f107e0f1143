"""The paper's networks: their sizes, their layers, their first weights."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Graph
from pmeta.codegen.networks import conv1d, four_conv, mlp, resnet12, three_conv
from pmeta.codegen.operators import GroupNorm
from tests.models import random_4conv

pytestmark = pytest.mark.unit


def words(graph: Graph) -> int:
    return sum(weight.size for weight in graph.weights.values())


def test_sizes_as_in_the_paper() -> None:
    """Table 1, Model: 0.13, 32.0 and 0.05 MB."""
    assert words(four_conv()) == 864 + 3 * 9216 + 4 * 64 + 4005 == 32_773
    assert words(resnet12()) == 7_999_365
    assert words(mlp()) == 20 * 100 + 100 * 100 + 100 * 6 + 206 == 12_806


def test_layers_are_the_rows_of_alpha() -> None:
    assert [layer.name for layer in four_conv().layers][-3:] == ["conv4", "norm4", "fc"]
    block = ["conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "shortcut", "shortcut_norm"]
    assert [layer.name for layer in resnet12().layers[:8]] == [f"block1.{name}" for name in block]
    assert len(resnet12().layers) == 33
    assert [layer.name for layer in mlp().layers] == ["fc1", "fc2", "fc3"]


def test_maps_as_in_the_paper() -> None:
    maps = four_conv().shapes
    assert [maps[f"pool{n}.out"] for n in range(1, 5)] == [(32, side, side) for side in (42, 21, 10, 5)]
    maps = resnet12().shapes
    sizes = zip((64, 128, 256, 512), (42, 21, 10, 5), strict=True)
    assert [maps[f"block{n}.pool.out"] for n in range(1, 5)] == [(width, side, side) for width, side in sizes]
    assert resnet12().shapes["average.out"] == (512, 1, 1)


def test_a_block_joins_its_branch_and_its_shortcut() -> None:
    graph = resnet12((3, 16, 16), channels=(8, 8))
    assert [node.name for node in graph.readers("block1.pool.out")] == ["block2.conv1", "block2.shortcut"]
    join = next(node for node in graph.nodes if node.name == "block2.add")
    assert join.inputs == ("block2.norm3.out", "block2.shortcut_norm.out")
    assert [node.name for node in graph.readers("block2.add.out")] == ["block2.relu3"]


def test_an_mlp_flattens_maps() -> None:
    graph = mlp((3, 4, 5), (8,), 2)
    assert graph.shapes["flatten.out"] == (60,) and graph.output_shape == (2,)


@pytest.mark.parametrize("kernel", [1, 4, 5])
def test_a_network_for_sensors_halves_time(kernel: int) -> None:
    graph = conv1d((6, 1, 97), 7, width=8, groups=2, blocks=3, kernel=kernel)
    assert [graph.shapes[f"pool{n}.out"] for n in (1, 2, 3)] == [(8, 1, moments) for moments in (48, 24, 12)]
    assert graph.shapes["conv1.out"] == (8, 1, 97) and graph.output_shape == (7,)
    assert graph.weights["conv1.weight"].shape == (8, 6, 1, kernel)


@pytest.mark.parametrize("build", [four_conv, resnet12, mlp, three_conv, conv1d])
def test_weights_are_zero_without_a_generator_and_drawn_with_one(build: object) -> None:
    assert callable(build)
    empty, drawn, again = build(), build(rng=np.random.default_rng(3)), build(rng=np.random.default_rng(3))
    assert not any(weight.any() for weight in empty.weights.values())
    assert drawn.same_as(again)
    for layer in drawn.layers:
        weight = drawn.weights[layer.weight_names[0]]
        if isinstance(layer, GroupNorm):
            assert np.all(weight == 1)
            continue
        fan_in = weight[0].size
        bound = fan_in**-0.5 if layer is drawn.layers[-1] else (6 / fan_in) ** 0.5
        assert np.abs(weight).max() == pytest.approx(bound, rel=0.1) and abs(weight.mean()) < 0.1 * bound


def test_a_seed_draws_the_same_weights_for_ever() -> None:
    """Published configurations of the trainer name a seed."""
    graph = four_conv((1, 28, 28), 5, 16, 4, np.random.default_rng(0))
    drawn = b"".join(graph.weights[f"{layer.name}.weight"].tobytes() for layer in graph.layers)
    assert zlib.crc32(drawn) == 0x29BE02C5


def test_other_tests_use_the_same_4conv() -> None:
    shapes = random_4conv(0, width=16, groups=4).graph.shapes.values()
    assert list(shapes) == list(four_conv((1, 28, 28), width=16, groups=4).shapes.values())


def test_an_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(ModelError):
        resnet12((3, 8, 8))
