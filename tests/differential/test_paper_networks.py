"""The paper's networks at their full size: simulator ≡ generated C, by bytes, and ResNet12 as a whole project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plan import adapting
from pmeta.codegen.adaptation import InputEncoding, Model
from pmeta.codegen.graph import Graph
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.networks import four_conv, mlp, resnet12
from pmeta.codegen.project.generate import generate, write_project
from tests.differential.test_simulator_c import assert_same_adaptation
from tests.models import regression, with_encoding

pytestmark = pytest.mark.differential

RESNET12_WORDS = 7_999_365
IMAGE_NETWORKS = {"4Conv-32": lambda rng: four_conv(rng=rng), "4Conv-64": lambda rng: four_conv(width=64, rng=rng)}
POLICIES = {
    "HalfCheetah": lambda rng: mlp(20, (100, 100), 6, rng),
    "navigation": lambda rng: mlp(2, (100, 100), 2, rng),
}


def everything(network: Callable[[np.random.Generator], Graph]) -> Model:
    """The network with drawn weights, all of whose layers learn in two steps."""
    return adapting(network(np.random.default_rng(12)), None, steps=2)


@pytest.mark.parametrize("learns_numbers", [False, True])
@pytest.mark.parametrize("name", POLICIES)
def test_policies(name: str, learns_numbers: bool, tmp_path: Path) -> None:
    model = with_encoding(everything(POLICIES[name]), InputEncoding("float32"))
    assert_same_adaptation(regression(model) if learns_numbers else model, tmp_path, samples=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_4conv(name: str, tmp_path: Path) -> None:
    assert_same_adaptation(everything(IMAGE_NETWORKS[name]), tmp_path, samples=2, queries=1)


@pytest.mark.slow
def test_resnet12(tmp_path: Path) -> None:
    """Everything learns. 41 GMAC in the simulator and as many in C: two to three minutes, and half a gigabyte."""
    model = everything(lambda rng: resnet12(rng=rng))
    assert sum(array.size for array in model.graph.weights.values()) == RESNET12_WORDS
    assert_same_adaptation(model, tmp_path, samples=2, queries=1)


@pytest.mark.slow
def test_resnet12_as_a_project(platformio, tmp_path: Path) -> None:
    """Its weights are no text; PlatformIO builds it, and its golden vector, the prediction of a query, passes."""
    save_model(everything(lambda rng: resnet12(rng=rng)), tmp_path / "model.onnx")
    project = generate(tmp_path / "model.onnx", ["native"])
    write_project(project, tmp_path / "project")
    weights = tmp_path / "project" / "lib" / "pmeta_model" / "src" / "pmeta_weights.bin"
    assert weights.stat().st_size == 4 * RESNET12_WORDS
    built = platformio(tmp_path / "project", "run", "-e", "native")
    ram = project.manifest.ram("model")
    assert f"RAM: predicted {ram} B, linked {ram} B: equal" in built.stdout, built.stdout
    tested = platformio(tmp_path / "project", "test", "-e", "native")
    assert tested.returncode == 0, tested.stdout
    assert "query\t[PASSED]" in tested.stdout
