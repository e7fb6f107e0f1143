"""Networks without a record of pmeta-train: pmeta-gen's options make them adapt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from pmeta.codegen.bring_your_own import OwnAdaptation, own_model
from pmeta.codegen.cli import app
from pmeta.codegen.errors import ConfigError, ModelError, UnsupportedError
from pmeta.codegen.modelfile import load_model, load_network, save_model
from pmeta.codegen.project.generate import generate
from pmeta.host.simulator.simulator import Simulator
from tests.compiled import CompiledModel
from tests.models import random_4conv, random_samples

pytestmark = pytest.mark.unit

LAYERS = ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "conv4", "norm4", "fc1")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A 4Conv as another tool would export it."""
    save_model(random_4conv(1, width=4, attention=False), tmp_path / "whole.onnx")
    proto = onnx.load(str(tmp_path / "whole.onnx"))
    del proto.metadata_props[:]
    kept = [tensor for tensor in proto.graph.initializer if not tensor.name.startswith("pmeta.")]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    onnx.save(proto, str(tmp_path / "network.onnx"))
    return tmp_path / "network.onnx"


@pytest.mark.parametrize(
    ("update", "learning"),
    [
        ("last", {"fc1.weight", "fc1.bias"}),
        ("conv4, fc1", {"conv4.weight", "fc1.weight", "fc1.bias"}),
        ("bias", {"norm1.bias", "norm2.bias", "norm3.bias", "norm4.bias", "fc1.bias"}),
    ],
)
def test_what_learns(network: Path, update: str, learning: set[str]) -> None:
    project = generate(network, ["native"], OwnAdaptation(update, alpha=0.25, steps=2))
    assert {weight.name for weight in project.plan.learned} == learning
    assert {weight.step_sizes for weight in project.plan.learned} == {(0.25, 0.25)}
    assert project.manifest.command.endswith(f"--update {update} --alpha 0.25 --steps 2")


def test_everything_learns(network: Path) -> None:
    model = own_model(load_network(network), OwnAdaptation("all"))
    assert model.adaptation.alpha.shape == (len(LAYERS), 5)
    assert (model.adaptation.alpha == np.float32(0.01)).all()


def test_a_new_head_starts_empty_and_learns_its_classes(network: Path, tmp_path: Path) -> None:
    """Every class is as likely before; then the loss falls, on both sides alike."""
    options = OwnAdaptation("last", alpha=0.5, steps=8, new_head_ways=3, uint8_scale=0.015625, uint8_offset=-2.0)
    project = generate(network, ["native"], options)
    (tmp_path / "with_record.onnx").write_bytes(project.files["model.onnx"])  # type: ignore[arg-type]
    model = load_model(tmp_path / "with_record.onnx")
    support, labels = random_samples(model, 1, 12)
    compiled, simulator = CompiledModel(model, tmp_path), Simulator(model)
    compiled.reset()
    assert not simulator.predict(support[0]).any()
    losses = []
    for _ in range(8):
        for sample, label in zip(support, labels, strict=True):
            compiled.adapt_sample(sample, int(label))
            losses.append(simulator.adapt_sample(sample, int(label)).loss)
        compiled.end_step(12)
        simulator.end_step(12)
    assert compiled.tensor_bytes("fc1.weight") == simulator.tensor_bytes("fc1.weight")
    assert np.allclose(losses[:12], np.log(3))
    assert np.mean(losses[-12:]) < np.log(3)


def test_a_network_that_learns_numbers(network: Path, tmp_path: Path) -> None:
    """An empty head for two numbers: the loss is that of zero, then it falls, on both sides alike."""
    options = OwnAdaptation("last", alpha=0.1, steps=6, loss="mean_squared_error", new_head_ways=2)
    project = generate(network, ["native"], options)
    assert project.manifest.command.endswith("--loss mean_squared_error --head new --outputs 2")
    assert (project.manifest.loss, project.manifest.ways) == ("mean_squared_error", 2)
    (tmp_path / "with_record.onnx").write_bytes(project.files["model.onnx"])  # type: ignore[arg-type]
    model = load_model(tmp_path / "with_record.onnx")
    support, targets = random_samples(model, 1, 8)
    compiled, simulator = CompiledModel(model, tmp_path), Simulator(model)
    compiled.reset()
    losses = []
    for _ in range(6):
        for sample, target in zip(support, targets, strict=True):
            compiled.adapt_sample(sample, target)
            losses.append(simulator.adapt_sample(sample, target).loss)
        compiled.end_step(8)
        simulator.end_step(8)
    assert compiled.tensor_bytes("fc1.weight") == simulator.tensor_bytes("fc1.weight")
    assert np.allclose(losses[:8], (targets**2).mean(axis=1))
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:8])


def test_one_class_is_refused_and_one_number_is_not(network: Path) -> None:
    graph = load_network(network)
    head = dataclasses.replace(graph.nodes[-1], features=1)
    weights = {
        **graph.weights,
        "fc1.weight": graph.weights["fc1.weight"][:1],
        "fc1.bias": graph.weights["fc1.bias"][:1],
    }
    single = dataclasses.replace(graph, nodes=(*graph.nodes[:-1], head), weights=weights)
    with pytest.raises(
        UnsupportedError, match="with one class there is nothing to learn; pass --loss mean_squared_error"
    ):
        own_model(single, OwnAdaptation("last"))
    assert own_model(single, OwnAdaptation("last", loss="mean_squared_error")).adaptation.ways == 1


def test_a_model_with_a_record_says_itself_how_it_adapts(tmp_path: Path, network: Path) -> None:
    with pytest.raises(ModelError, match="has an adaptation record, which says how it adapts"):
        generate(tmp_path / "whole.onnx", ["native"], OwnAdaptation("last"))
    with pytest.raises(ModelError, match=r"has no adaptation record; .* give pmeta-gen --update"):
        generate(network, ["native"])


def test_no_head_to_replace(network: Path) -> None:
    graph = load_network(network)
    headless = type(graph)("g", graph.input, graph.input_shape, graph.nodes[:4], graph.weights)
    with pytest.raises(UnsupportedError, match="does not end with a fully connected layer"):
        own_model(headless, OwnAdaptation("last", new_head_ways=3))
    with pytest.raises(UnsupportedError, match=r"the output has shape \(4, 14, 14\)"):
        own_model(headless, OwnAdaptation("last"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--update", "conv9"], "--update: no layer is called 'conv9'; last, all, bias, or some of: conv1, norm1"),
        (["--update", "last", "--alpha", "-1"], "--alpha: a step size of -1.0"),
        (["--update", "last", "--alpha", "nan"], "--alpha: a step size of nan"),
        (["--update", "last", "--steps", "0"], "--steps: 0 steps"),
        (["--update", "last", "--head", "new"], "--head: a new head needs --ways"),
        (["--update", "last", "--ways", "3"], "--head: a new head needs --ways"),
        (["--update", "last", "--head", "newer"], "--head: no kind of head is called 'newer'"),
        (["--update", "last", "--head", "new", "--ways", "1"], "--ways: 1 classes"),
        (["--update", "last", "--loss", "hinge"], "--loss: no loss is called 'hinge'"),
        (["--update", "last", "--head", "new", "--outputs", "2"], "--outputs: does not go with --loss softmax_cross"),
        (
            ["--update", "last", "--loss", "mean_squared_error", "--head", "new", "--ways", "2"],
            "--ways: does not go with --loss mean_squared_error; pass --outputs N",
        ),
        (["--update", "last", "--loss", "mean_squared_error", "--head", "new"], "--head: a new head needs --outputs"),
        (["--loss", "mean_squared_error"], "--update: what learns is not said"),
        (["--update", "last", "--uint8-offset", "1"], "--uint8-offset: there is no --uint8-scale"),
        (["--steps", "3"], "--update: what learns is not said"),
    ],
)
def test_options_that_do_not_fit(network: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [str(network), "--board", "native", "--out", str(tmp_path / "out"), *arguments]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
