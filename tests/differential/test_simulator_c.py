"""Simulator ≡ generated C, by bytes: logits and loss of every sample, learned tensors after every step, queries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.adaptation import Adaptation, InputEncoding, Model
from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Graph, frozen_float32
from pmeta.codegen.operators import Conv, Flatten, Gemm, GroupNorm, Relu, Window
from pmeta.codegen.plan.strategy import SLOWER_STRATEGIES, STRATEGIES, Strategy
from pmeta.codegen.storage import Storage
from pmeta.codegen.targets import targets_of
from pmeta.host.simulator.arithmetic import canonical_bytes
from pmeta.host.simulator.simulator import Simulator
from tests.compiled import CompiledModel
from tests.models import random_4conv, random_samples, with_batch
from tests.networks import random_network

pytestmark = pytest.mark.differential


def assert_same_adaptation(
    model: Model, folder: Path, samples: int = 4, queries: int = 2, strategies: Sequence[Strategy] = STRATEGIES
) -> None:
    """Adapt both; every number must have the same bits."""
    compiled, simulator = CompiledModel(model, folder, strategies=strategies), Simulator(model)
    support, targets = random_samples(model, 1, samples)
    query, _ = random_samples(model, 2, queries)
    compiled.reset()
    compiled.poison()
    assert_same_predictions(compiled, simulator, query)
    for step in range(1, model.adaptation.steps + 1):
        for index, (sample, target) in enumerate(zip(support, targets_of(targets), strict=True)):
            where = f"step {step}, sample {index}"
            compiled.poison_free_bytes(step)
            logits, loss = compiled.adapt_sample(sample, target)
            expected = simulator.adapt_sample(sample, target)
            assert canonical_bytes(logits) == canonical_bytes(expected.logits), f"{where}: logits"
            assert canonical_bytes(loss) == canonical_bytes(expected.loss), f"{where}: loss"
            if index == 1:  # prediction is allowed within a step, and leaves the sums of gradients alone
                assert_same_predictions(compiled, simulator, query[:1])
        compiled.end_step(samples)
        simulator.end_step(samples)
        for name in learned_names(model):
            assert compiled.tensor_bytes(name) == simulator.tensor_bytes(name), f"step {step}: {name}"
            assert compiled.tensor_crc32(name) == simulator.tensor_crc32(name), f"step {step}: CRC of {name}"
        assert_same_predictions(compiled, simulator, query)


def learned_names(model: Model) -> list[str]:
    return [weight.name for weight in model.learned_weights]


def assert_same_predictions(compiled: CompiledModel, simulator: Simulator, query: np.ndarray) -> None:
    for index, sample in enumerate(query):
        same = canonical_bytes(compiled.predict(sample)) == canonical_bytes(simulator.predict(sample))
        assert same, f"query {index}"


@pytest.mark.parametrize("seed", range(26))  # hundreds, but with less optimization: test_random_networks.py
def test_random_networks(seed: int, tmp_path: Path) -> None:
    """Any operators, windows, step sizes, attention and strategies of the plan, compiled as for a board."""
    assert_same_adaptation(random_network(seed), tmp_path, strategies=[STRATEGIES[seed % len(STRATEGIES)]])


def test_a_model_in_which_nothing_learns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing would learn"):
        CompiledModel(random_4conv(0, width=4, alpha=0.0), tmp_path)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize(
    ("attention", "rho"), [(False, (0, 0)), (True, (300, 0)), (True, (500, 300)), (True, (999, 999))]
)
def test_4conv(attention: bool, rho: tuple[int, int], strategy: Strategy, tmp_path: Path) -> None:
    """The shipped network's shape, everything learning in the first step, less and less afterwards."""
    alpha = np.full((9, 3), 0.05, np.float32)
    alpha[:4, 1:] = 0
    alpha[:6, 2] = 0
    model = random_4conv(3, width=8, steps=3, attention=attention, alpha=alpha, rho=rho)
    assert_same_adaptation(model, tmp_path, samples=3, strategies=[strategy])


@pytest.mark.parametrize(("place", "message"), [("behind", "behind the arena"), ("before", "before the arena")])
def test_a_write_outside_the_arena_is_noticed(place: str, message: str, tmp_path: Path) -> None:
    """The fences themselves."""
    model = random_4conv(5, width=4, steps=1, attention=False)

    def write(text: str) -> str:
        outside = "PMETA_ARENA_BYTES" if place == "behind" else "-1"
        statement = f"volatile int32_t index = {outside};\n    pmeta_arena.bytes[index] = 0;"
        return text.replace("    predict(sample, logits);", f"    predict(sample, logits);\n    {statement}")

    broken = CompiledModel(model, tmp_path, edit_plan=write)
    with pytest.raises(AssertionError, match=message):
        broken.predict(random_samples(model, 1, 1)[0][0])


@pytest.mark.parametrize("strategy", SLOWER_STRATEGIES[::3], ids=str)
def test_attention_first(strategy: Strategy, tmp_path: Path) -> None:
    """The same bits, whether attention of a single sample is evaluated on the way or before."""
    alpha = np.full((9, 2), 0.05, np.float32)
    alpha[:6, 1] = 0
    model = random_4conv(6, width=8, steps=2, alpha=alpha, rho=(300, 500))
    assert_same_adaptation(model, tmp_path, samples=3, strategies=[strategy])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_normalization_of_the_sample(strategy: Strategy, tmp_path: Path) -> None:
    """No convolution computes its x̂, so that it cannot be computed again as one does."""
    rng = np.random.default_rng(0)
    nodes = (
        Relu("relu", "x", "relu.y"),
        GroupNorm("norm", "relu.y", "norm.y", "norm.scale", "norm.shift", 2, float(np.float32(1e-5))),
        Conv("conv", "norm.y", "conv.y", "conv.weight", None, 2, Window((3, 3))),
        Flatten("flatten", "conv.y", "flatten.y"),
        Gemm("fc", "flatten.y", "logits", "fc.weight", None, 2),
    )
    shapes = {"norm.scale": (4,), "norm.shift": (4,), "conv.weight": (2, 4, 3, 3), "fc.weight": (2, 18)}
    weights = {name: frozen_float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    adaptation = Adaptation(
        method="test",
        ways=2,
        shots=1,
        alpha=frozen_float32(np.full((3, 1), 0.1)),
        updates=(("weight", "bias"),) * 3,
        rho_fw=0,
        rho_bw=0,
        encoding=InputEncoding("float32"),
        storage=Storage("float32", "float16"),
    )
    model = Model(Graph("norm-first", "x", (4, 5, 5), nodes, weights), adaptation)
    assert_same_adaptation(model, tmp_path, samples=2, strategies=[strategy])


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("rho", [(300, 300), (500, 0)])
def test_micro_batches(count: int, rho: tuple[int, int], tmp_path: Path) -> None:
    """Complete ones, incomplete ones, and one that all samples do not fill."""
    alpha = np.full((9, 3), 0.05, np.float32)
    alpha[:8, 1] = 0  # the last layer has no attention: no sample waits
    alpha[:4, 2] = 0
    model = with_batch(random_4conv(4, width=8, steps=3, alpha=alpha, rho=rho), count)
    assert_same_adaptation(model, tmp_path, samples=5)


def test_a_step_that_is_restarted_forgets_the_samples_that_wait(tmp_path: Path) -> None:
    model = with_batch(random_4conv(4, width=4, steps=1), 3)
    device, simulator = CompiledModel(model, tmp_path), Simulator(model)
    (first, *others), labels = random_samples(model, 1, 5)
    device.reset()
    device.adapt_sample(first, int(labels[0]))
    device.restart_step()
    for sample, label in zip(others, labels[1:], strict=True):
        device.adapt_sample(sample, int(label))
        simulator.adapt_sample(sample, int(label))
    for side in (device, simulator):
        side.end_step(4)
    assert all(device.tensor_bytes(name) == simulator.tensor_bytes(name) for name in learned_names(model))


def test_micro_batches_change_what_is_learned_only_through_attention() -> None:
    for attention in (False, True):
        model = random_4conv(4, width=8, steps=1, attention=attention)
        samples, labels = random_samples(model, 1, 4)
        one, four = Simulator(model), Simulator(with_batch(model, 4))
        for simulator in (one, four):
            for sample, label in zip(samples, labels, strict=True):
                simulator.adapt_sample(sample, int(label))
            simulator.end_step(4)
        same = [one.tensor_bytes(name) == four.tensor_bytes(name) for name in learned_names(model)]
        assert all(same) == (not attention)


def test_an_overlap_in_the_plan_is_noticed(tmp_path: Path) -> None:
    """The comparison itself: a plan that lets two live buffers overlap must fail it."""
    model = random_4conv(5, width=4, steps=1, attention=False)

    def overlap(text: str) -> str:
        victim = re.search(r"norm2_z = at\((\d+)u\)", text)
        assert victim is not None
        return re.sub(r"conv2_y = at\(\d+u\)", f"conv2_y = at({victim[1]}u)", text)

    broken, simulator = CompiledModel(model, tmp_path, edit_plan=overlap), Simulator(model)
    samples, labels = random_samples(model, 1, 1)
    for device in (broken, simulator):
        device.reset()
        device.adapt_sample(samples[0], int(labels[0]))
        device.end_step(1)
    assert any(broken.tensor_bytes(name) != simulator.tensor_bytes(name) for name in learned_names(model))
