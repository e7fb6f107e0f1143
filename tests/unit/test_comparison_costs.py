"""What an adaptation costs: equal to the paper's tables, and with attention equal to a count sample by sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.bring_your_own import OwnAdaptation, own_model
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.networks import four_conv
from pmeta.codegen.paper_accounting import paper_accounting
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.report.paper_tables import paper_tables
from pmeta.codegen.taskfile import Task
from pmeta.trainer.comparison.costs import KeptChannels, costs_of, measured_costs, paper_costs, updating
from tests.models import random_4conv, random_samples, with_batch

pytestmark = pytest.mark.unit


def of_table_2(method: str) -> Model:
    """The paper's 4Conv, adapted in five steps."""
    graph = four_conv()
    body = ",".join(layer.name for layer in graph.layers[:-1])
    update = {"MAML": "all", "MAML++": "all", "ANIL": "last", "BOIL": body}[method]
    return own_model(graph, OwnAdaptation(update, steps=5, uint8_scale=1.0))


def test_costs_are_those_of_the_papers_table_2() -> None:
    rows = {row.name: row.cells for row in paper_tables()[1].rows if row.group == "4Conv"}
    for method in ("MAML", "ANIL", "BOIL", "MAML++"):
        for shots, gmac, megabytes in ((1, 0, 1), (5, 2, 3)):
            costs = costs_of(of_table_2(method), 5 * shots)
            assert costs.paper.macs / 1e9 == rows[method][gmac].computed
            assert costs.paper.memory_bytes / 1e6 == rows[method][megabytes].computed
            assert costs.paper == costs.paper_bound


def test_ratios_are_to_all_layers_and_the_last_one_gives_the_best() -> None:
    costs, anil = costs_of(of_table_2("MAML++"), 5), costs_of(of_table_2("ANIL"), 5)
    assert costs.paper_ratio == costs.arena_ratio == 1
    assert anil.paper_ratio == anil.best_paper_ratio == costs.best_paper_ratio == 2064436 / 919188
    assert anil.arena_ratio == anil.best_arena_ratio == costs.arena_bytes / anil.arena_bytes > 2
    assert anil.arena_bytes == make_plan(of_table_2("ANIL")).arena_bytes


def test_where_steps_differ_the_highest_counts_for_memory_and_the_mean_for_macs() -> None:
    alpha = np.zeros((9, 2))
    alpha[-1] = alpha[6:, 1] = 0.1  # the last layer, then the last block too
    model = random_4conv(1, steps=2, attention=False, alpha=alpha)
    first, second = (paper_accounting(model, step) for step in (1, 2))
    costs = paper_costs(model, 10)
    assert costs.memory_bytes == second.memory_bytes > first.memory_bytes
    assert costs.macs == 10 * (first.macs + second.macs) / 2


def random_kept(model: Model, tasks: int, samples: int) -> KeptChannels:
    rng = np.random.default_rng(0)
    found = {}
    for layer in model.graph.layers[:-1]:
        channels = layer.attention_channels(model.graph.shapes[layer.input])
        shape = (tasks, model.adaptation.steps, samples)
        found[layer.name] = np.stack([rng.integers(1, count + 1, shape) for count in channels], -1)
    return found


@pytest.mark.parametrize("batch", [1, 5])
def test_measured_costs_equal_the_account_of_each_sample(batch: int) -> None:
    alpha = np.full((9, 3), 0.1)
    alpha[:4, 0] = alpha[6, 1] = 0
    model = with_batch(random_4conv(2, alpha=alpha), batch)
    kept = random_kept(model, 4, 5)
    peaks, macs = np.zeros((4, 3, 5)), np.zeros((4, 3, 5))
    for place in np.ndindex(4, 3, 5):
        channels = {layer: (int(counts[place][0]), int(counts[place][1])) for layer, counts in kept.items()}
        account = paper_accounting(model, place[1] + 1, batch, critical=channels)
        peaks[place], macs[place] = account.memory_bytes, account.macs
    costs = measured_costs(model, kept)
    assert costs.memory_bytes == peaks.max((1, 2)).mean()
    assert costs.macs == pytest.approx(macs.sum(2).mean(), rel=1e-5)  # each account rounds up to a MAC
    assert costs.memory_bytes <= paper_costs(updating(model, slice(0, 9)), 5).memory_bytes * 1.1


def test_all_channels_kept_is_the_network_without_clipping() -> None:
    model = random_4conv(3, rho=(300, 0))
    whole = replace(model, adaptation=replace(model.adaptation, rho_fw=0))
    kept = {}
    for layer in model.graph.layers[:-1]:
        channels = layer.attention_channels(model.graph.shapes[layer.input])
        kept[layer.name] = np.broadcast_to(np.array(channels), (2, 3, 4, 2))
    assert measured_costs(model, kept) == paper_costs(whole, 4)


def test_kept_channels_are_counted_task_by_task(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from pmeta.trainer.attention import channel_weights
    from pmeta.trainer.comparison.kept_channels import kept_channels
    from pmeta.trainer.encoding import decode
    from pmeta.trainer.trained import load_trained

    model = random_4conv(4, ways=3, steps=2, rho=(300, 200))
    save_model(model, tmp_path / "model.onnx")
    trained = load_trained(tmp_path / "model.onnx", torch.device("cpu"))
    tasks = []
    for seed in range(5):
        x, y = random_samples(model, seed, 6)
        tasks.append(Task(x, y.astype(np.uint8), x, y.astype(np.uint8), ("a", "b", "c"), f"task {seed}"))
    done: list[int] = []
    kept = kept_channels(trained, tasks, done.append)
    assert sum(done) == 5
    layers = model.graph.layers[:-1]
    assert set(kept) == {layer.name for layer in layers}
    for layer in layers:
        counts = kept[layer.name]
        assert counts.shape == (5, 2, 6, 2) and counts.min() >= 1
        channels = layer.attention_channels(model.graph.shapes[layer.input])
        for side, (most, rho) in enumerate(zip(channels, (300, 200), strict=True)):
            assert counts[..., side].max() <= max(1, most - -(-rho * most // 1000))
    # The first layer reads the sample itself, so its attention can be computed by hand; after a step others differ.
    first = layers[0].name
    x = decode(torch.tensor(tasks[2].support_x), model.adaptation.encoding)
    gamma = channel_weights(trained.meta["attention"][first]["fw"], x, 1, 300)
    assert np.array_equal(kept[first][2, 0, :, 0], (gamma != 0).sum(-1).numpy())
    assert any((kept[layer.name][:, 0] != kept[layer.name][:, 1]).any() for layer in layers)
