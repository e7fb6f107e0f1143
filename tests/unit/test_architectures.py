"""The networks of a configuration: each trains, each mistake is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmeta.codegen.errors import ConfigError, PmetaError
from pmeta.codegen.graph import Shape
from pmeta.codegen.modelfile import load_graph, load_model, save_model
from pmeta.codegen.networks import conv1d, four_conv, mlp, resnet12
from pmeta.trainer.architectures import ARCHITECTURES, architecture, options_of
from pmeta.trainer.config import config_from_dict
from tests.models import random_4conv

pytestmark = pytest.mark.unit

WAYS = 3
MODULE = """
from torch import nn

def build(input_shape, ways):
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(height * width, ways),
    )

def pretrained(input_shape, ways):
    return build(input_shape, 40)

def normalized(input_shape, ways):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, ways))

def raises(input_shape, ways):
    return {}["x"]

def without_parameters():
    return nn.Flatten()
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_network.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize(
    ("options", "shape", "expected"),
    [
        ({}, (1, 28, 28), lambda: four_conv((1, 28, 28), WAYS, 16, 4, rng())),
        ({"name": "4conv", "width": 8, "blocks": 2}, (3, 9, 8), lambda: four_conv((3, 9, 8), WAYS, 8, 4, rng(), 2)),
        (
            {"name": "resnet12", "channels": [4, 8], "groups": 2},
            (1, 8, 8),
            lambda: resnet12((1, 8, 8), WAYS, (4, 8), 2, rng()),
        ),
        ({"name": "mlp", "hidden": [7]}, (5,), lambda: mlp(5, (7,), WAYS, rng())),
        ({"name": "mlp", "hidden": [7]}, (2, 6), lambda: mlp((2, 1, 6), (7,), WAYS, rng())),
        (
            {"name": "conv1d", "width": 6, "groups": 3, "blocks": 2, "kernel": 3},
            (2, 20),
            lambda: conv1d((2, 1, 20), WAYS, 6, 3, rng(), 2, 3),
        ),
    ],
)
def test_networks_by_name(options: dict[str, Any], shape: Shape, expected: Any) -> None:
    network = architecture(options, "test")
    assert network.graph(shape, WAYS, rng()).same_as(expected())
    assert architecture(options_of(network), "again") == network


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "5conv"}, "unknown network.name '5conv'; did you mean '4conv'?"),
        ({"width": 0}, "network.width is 0, but must be 1 to 4,096"),
        ({"groups": 5}, "network.groups is 5, but must be a divisor of width = 16"),
        ({"blocks": 17}, "network.blocks is 17, but must be 1 to 16"),
        ({"hidden": [3]}, "unknown key 'network.hidden'; use one of normalization, pooling, width"),
        ({"name": "mlp", "hidden": [0]}, "network.hidden is 0"),
        ({"name": "mlp", "hidden": [1.5]}, r"'network.hidden\[0\]' is 1.5, expected an int"),
        ({"name": "resnet12", "channels": [12]}, "network.groups is 8, but must be a divisor of channels = 12"),
        ({"name": "resnet12", "channels": []}, "network.channels has 0 numbers, but must have 1 to 16"),
        ({"name": "conv1d", "kernel": 0}, "network.kernel is 0"),
        ({"name": "onnx"}, "network.path is missing"),
        ({"name": "onnx", "path": "x", "head": "old"}, "'network.head' is 'old'; use one of keep, new"),
        ({"name": "module", "module": "os.system"}, 'must be written as "package.module:function"'),
        ({"name": "module", "module": "a b:c"}, 'must be written as "package.module:function"'),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        architecture(options, "test")


def test_a_network_for_sensors_refuses_pictures() -> None:
    with pytest.raises(ConfigError, match="name is 'conv1d', but the samples have the shape"):
        architecture({"name": "conv1d"}, "test").graph((1, 28, 28), WAYS, rng())


# --- networks of the user's own ------------------------------------------------------------------------------


def test_an_onnx_file_gives_its_weights(tmp_path: Path) -> None:
    model = random_4conv(1, ways=WAYS, width=4, size=(1, 16, 16))
    save_model(model, tmp_path / "net.onnx")
    network = architecture({"name": "onnx", "path": str(tmp_path / "net.onnx")}, "test")
    assert network.graph((1, 16, 16), WAYS, rng()).same_as(load_graph(tmp_path / "net.onnx"))
    assert architecture(options_of(network), "again") == network


def test_a_new_head_for_other_classes(tmp_path: Path) -> None:
    save_model(random_4conv(1, ways=7, width=4, size=(1, 16, 16)), tmp_path / "net.onnx")
    options = {"name": "onnx", "path": str(tmp_path / "net.onnx"), "head": "new"}
    graph = architecture(options, "test").graph((1, 16, 16), WAYS, rng())
    before = load_graph(tmp_path / "net.onnx")
    head, *_ = graph.layers[-1].weight_names
    assert graph.output_shape == (WAYS,) and not graph.weights[head].any()
    assert all(graph.weights[name].tobytes() == before.weights[name].tobytes() for name in ("conv1.weight",))


def test_a_file_that_does_not_fit_the_data(tmp_path: Path) -> None:
    save_model(random_4conv(1, ways=7, width=4, size=(1, 16, 16)), tmp_path / "net.onnx")
    network = architecture({"name": "onnx", "path": str(tmp_path / "net.onnx")}, "test")
    with pytest.raises(PmetaError, match=r"outputs of shape \(7,\), a task has 3 classes; .* head = \"new\""):
        network.graph((1, 16, 16), WAYS, rng())
    with pytest.raises(PmetaError, match=r"takes samples of shape \(1, 16, 16\), the data have \(3, 16, 16\)"):
        network.graph((3, 16, 16), 7, rng())


@pytest.mark.usefixtures("own_module")
def test_a_module_of_the_user() -> None:
    pytest.importorskip("torch")
    network = architecture({"name": "module", "module": "own_network:build"}, "test")
    graph, again = network.graph((1, 8, 8), WAYS, rng()), network.graph((1, 8, 8), WAYS, rng())
    assert graph.same_as(again), "the seed draws its weights"
    assert [layer.name for layer in graph.layers] == ["0", "1", "5"]
    assert any(weight.any() for weight in graph.weights.values())


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("own_network:pretrained", r"gives outputs of shape \(40,\), a task has 3 classes"),
        ("own_network:normalized", "module '1': batch_norm is not supported; use GroupNorm"),
        ("own_network:nothing", "'network.module' cannot be imported"),
        ("own_network:raises", r"own_network:raises: raises KeyError: 'x' \(own_network\.py, line \d+\); correct it"),
        ("own_network:without_parameters", r"raises TypeError: .*takes 0 positional arguments but 2 were given"),
        ("no_network_of_mine:build", "'network.module' cannot be imported .*; put no_network_of_mine.py on"),
    ],
)
def test_a_module_that_does_not_fit(module: str, message: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(PmetaError, match=message):
        architecture({"name": "module", "module": module}, "test").graph((1, 8, 8), WAYS, rng())


@pytest.mark.usefixtures("own_module")
def test_training_a_module_of_the_user(tmp_path: Path) -> None:
    """The model file has its network: whoever evaluates it does not need the module."""
    torch = pytest.importorskip("torch")
    from pmeta.trainer.export import from_model
    from pmeta.trainer.training import Training
    from tests.unit.test_trainer_training import images

    config = config_from_dict(
        {
            "task": {"ways": WAYS, "shots": 2, "queries": 2},
            "network": {"name": "module", "module": "own_network:pretrained", "head": "new"},
            "method": {"steps": 2},
            "training": {"iterations": 2, "validation_tasks": 2},
        },
        "test",
    )
    training = Training(config, images(0), images(1), tmp_path, torch.device("cpu"))
    save_model(training.run(), tmp_path / "model.onnx")
    loaded = load_model(tmp_path / "model.onnx")
    inner, _ = from_model(loaded, torch.device("cpu"))
    assert inner.graph.output_shape == (WAYS,)
    assert loaded.adaptation.training["config"]["network"]["module"] == "own_network:pretrained"


def test_every_network_has_a_name() -> None:
    assert sorted(ARCHITECTURES) == ["4conv", "conv1d", "mlp", "module", "onnx", "resnet12"]
    assert replace(architecture({}, "test"), width=32).width == 32
