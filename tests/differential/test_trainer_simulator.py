"""Trainer ≈ simulator: what `pmeta-train evaluate` measures is what the device computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pmeta.codegen.adaptation import Adaptation, Model, UpdatedPart  # noqa: E402
from pmeta.codegen.graph import Float32Array, frozen_float32  # noqa: E402
from pmeta.codegen.operators import Window  # noqa: E402
from pmeta.codegen.taskfile import Task  # noqa: E402
from pmeta.host.simulator import Simulator  # noqa: E402
from pmeta.trainer.config import config_from_dict  # noqa: E402
from pmeta.trainer.evaluation import task_batch  # noqa: E402
from pmeta.trainer.export import from_model, to_model  # noqa: E402
from pmeta.trainer.meta_learner import MetaLearner  # noqa: E402
from pmeta.trainer.methods import METHODS  # noqa: E402
from tests.models import Chain, layer_attention, random_4conv, random_samples, uint8_encoding, with_batch  # noqa: E402

pytestmark = pytest.mark.differential
CPU = torch.device("cpu")
SAMPLES, QUERIES = 6, 4
BOTH: tuple[UpdatedPart, ...] = ("weight", "bias")


def random_task(model: Model, seed: int) -> Task:
    support_x, support_y = random_samples(model, seed, SAMPLES)
    query_x, query_y = random_samples(model, seed + 1, QUERIES)
    names = tuple(f"class {number}" for number in range(model.adaptation.ways))
    return Task(support_x, support_y.astype(np.uint8), query_x, query_y.astype(np.uint8), names, f"seed {seed}")


def adapted_by_trainer(model: Model, task: Task) -> tuple[dict[str, Float32Array], Float32Array]:
    """(weights, query logits) after K steps in the model's micro-batches."""
    inner, meta = from_model(model, CPU)
    batch = task_batch([task], model.adaptation.encoding, CPU)
    with torch.no_grad():
        weights = inner.adapt(meta, batch.support_x[0], batch.support_y[0], micro_batch=model.adaptation.sample_batch)
        logits = inner.network.forward(weights, batch.query_x[0])
    return {name: weight.numpy() for name, weight in weights.items()}, logits.numpy()


def adapted_by_simulator(model: Model, task: Task) -> tuple[dict[str, Float32Array], Float32Array]:
    simulator = Simulator(model)
    while not simulator.finished:
        for sample, label in zip(task.support_x, task.support_y, strict=True):
            simulator.adapt_sample(sample, int(label))
        simulator.end_step(SAMPLES)
    return dict(simulator.weights), np.stack([simulator.predict(sample) for sample in task.query_x])


def assert_same_adaptation(model: Model) -> None:
    """Every weight that learns moves the same way, but for float32 rounding; every other keeps its bits."""
    task = random_task(model, 0)
    weights, logits = adapted_by_trainer(model, task)
    simulated, simulated_logits = adapted_by_simulator(model, task)
    learned = {weight.name for weight in model.learned_weights}
    assert learned
    for name, before in model.graph.weights.items():
        moved, error = np.abs(simulated[name] - before).max(), np.abs(weights[name] - simulated[name]).max()
        if name not in learned:
            assert weights[name].tobytes() == before.tobytes(), name
        else:
            assert moved > 1e-4, f"{name} hardly moved: nothing is compared"
            assert error < 5e-6, name
    np.testing.assert_allclose(logits, simulated_logits, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("method", "attention"), [*((name, None) for name in METHODS), ("maml++", "forward"), ("maml++", "backward")]
)
def test_a_trained_model(method: str, attention: str | None) -> None:
    """Some outer steps of every method, exported."""
    settings = {
        "task": {"ways": 3, "shots": 2, "queries": 2},
        "network": {"width": 8, "groups": 2, "blocks": 2},
        "method": {
            "name": method,
            "steps": 3,
            "alpha": 0.2,
            "penalty": 0.0,
            "frozen_layers": ["norm1"],
            "attention": attention,
        },
        "training": {"iterations": 20, "learning_rate": 0.05},
    }
    config = config_from_dict(settings, "test")
    encoding = uint8_encoding(np.random.default_rng(0), 1)
    learner = MetaLearner(config, (1, 16, 16), CPU)
    untrained = to_model(learner.graph, learner.meta, config, encoding, {})
    tasks = task_batch([random_task(untrained, seed) for seed in (2, 4)], encoding, CPU)
    for iteration in range(3):
        learner.step(tasks, iteration)
    model = to_model(learner.graph, learner.meta, config, encoding, {})
    assert bool(model.adaptation.attention) == (attention is not None or method == "p-meta-3.2+3.3")
    assert bool(model.adaptation.alpha_in) == bool(model.adaptation.alpha_out) == (method == "p-meta-3.2+alpha-ch")
    assert_same_adaptation(model)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(
    "updates", [(BOTH,) * 9, (("bias",),) * 9, (("weight",),) * 8 + (("bias",),), ((),) * 4 + (BOTH,) * 5]
)
def test_which_parts_of_a_layer_learn(updates: tuple[tuple[UpdatedPart, ...], ...], attention: bool) -> None:
    """A random model whose step sizes differ, some of them zero."""
    alpha = np.random.default_rng(0).uniform(0.05, 0.1, (9, 3)).astype(np.float32)
    alpha[:3, 1] = alpha[7] = 0
    model = random_4conv(1, width=8, ways=3, alpha=alpha, attention=attention)
    assert_same_adaptation(replace(model, adaptation=replace(model.adaptation, updates=updates)))


@pytest.mark.parametrize("count", [2, 4, 6])
def test_micro_batches(count: int) -> None:
    """Of 4, the second one has 2 samples."""
    assert_same_adaptation(with_batch(random_4conv(1, width=8, ways=3), count))


# --- networks of other operators (all of them, at random: test_trainer_networks.py) --------------------------

SAME = Window((3, 3), pad_before=(1, 1), pad_after=(1, 1))
HALVE = Window((2, 2), stride=(2, 2))


def residual(chain: Chain) -> None:
    chain.add_conv(8, SAME, bias=True)
    entry = chain.position
    chain.add_group_norm(4)
    chain.add_leaky_relu(0.1)
    chain.add_conv(8, SAME, bias=False)
    chain.add_group_norm(2)
    chain.add_add(entry[0])
    chain.add_relu()
    chain.add_average_pool(HALVE, count_include_pad=False)


def depthwise(chain: Chain) -> None:
    chain.add_conv(8, Window((3, 3), stride=(2, 2), pad_before=(0, 0), pad_after=(1, 1)), bias=False)
    chain.add_group_norm(2)
    chain.add_hard_swish()
    chain.add_conv(16, Window((3, 3), dilation=(2, 2)), bias=True, groups=8)
    chain.add_group_norm(4)
    chain.add_clip(0.0, 6.0)
    chain.add_conv(8, Window((1, 1)), bias=True)
    chain.add_tanh()
    chain.add_global_average_pool()


def one_row(chain: Chain) -> None:
    """Branches over a sample (C, 1, L)."""
    window = Window((1, 5), pad_before=(0, 2), pad_after=(0, 2))
    chain.add_conv(6, window, bias=True)
    chain.add_group_norm(2)
    entry = chain.position
    chain.add_conv(4, window, bias=False)
    chain.add_leaky_relu(0.3)
    branch = chain.position
    chain.go_to(entry)
    chain.add_average_pool(window, count_include_pad=False)
    chain.add_sigmoid()
    chain.add_concat(branch, entry)
    chain.add_max_pool(Window((1, 3), stride=(1, 3)))
    chain.add_group_norm(4)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(("body", "size"), [(residual, (2, 10, 10)), (depthwise, (2, 13, 13)), (one_row, (6, 1, 24))])
def test_other_networks(body: Callable[[Chain], None], size: tuple[int, int, int], attention: bool) -> None:
    rng = np.random.default_rng(3)
    chain = Chain(rng, size)
    body(chain)
    chain.add_flatten()
    chain.add_gemm(3, bias=True)
    graph = chain.graph(body.__name__)
    layers = graph.layers
    adaptation = Adaptation(
        method="p-meta",
        ways=3,
        shots=2,
        alpha=frozen_float32(rng.uniform(0.05, 0.1, (len(layers), 3))),
        updates=tuple(BOTH[: len(layer.weight_names)] for layer in layers),
        rho_fw=300,
        rho_bw=300,
        encoding=uint8_encoding(rng, size[0]),
        attention={layer.name: layer_attention(rng, graph, layer, 1.0) for layer in layers[:-1]} if attention else {},
    )
    assert_same_adaptation(Model(graph, adaptation))
