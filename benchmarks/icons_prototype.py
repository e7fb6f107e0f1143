"""A baseline that does not learn on the device: a prototypical network (Snell et al., 2017) on icons.

The backbone, data, augmentation, number of tasks and test tasks are those of a training configuration; a class is
represented by the mean embedding of its support samples, a query gets the class of the nearest mean.

    python -m benchmarks.icons_prototype --config trainer/configs/icons-4conv-5way.toml --iterations 6000
"""

from __future__ import annotations

import argparse
import json
import os
import time
from math import cos, pi, sqrt
from pathlib import Path

from pmeta.trainer.threads import SPINS

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from pmeta.trainer.architectures import options_of
from pmeta.trainer.config import load_config
from pmeta.trainer.datasets.icons import load_icons
from pmeta.trainer.encoding import input_encoding
from pmeta.trainer.evaluation import task_batch
from pmeta.trainer.networks import Network, weight_tensors
from pmeta.trainer.objective import TaskBatch
from pmeta.trainer.operators import Tensors
from pmeta.trainer.sampler import TaskSampler
from pmeta.trainer.tasks import fixed_tasks

VALIDATION_SEED, TEST_SEED = 20_000, 10_000
TASKS_AT_ONCE = 50


def scores(network: Network, weights: Tensors, tasks: TaskBatch) -> Tensor:
    """Negative squared distances of every query to every class's prototype: (T, Q, ways)."""
    support, query = (_embeddings(network, weights, x) for x in (tasks.support_x, tasks.query_x))
    share = tasks.support_y / tasks.support_y.sum(1, keepdim=True)
    prototypes = share.transpose(1, 2) @ support
    return -(query[:, :, None] - prototypes[:, None]).square().sum(-1)


def _embeddings(network: Network, weights: Tensors, x: Tensor) -> Tensor:
    """What the classifier would read: (T, N, features)."""
    *body, last = network.graph.nodes
    return network.below(weights, x.flatten(0, 1), len(body))[last.input].reshape(*x.shape[:2], -1)


def accuracy(network: Network, weights: Tensors, batches: list[TaskBatch]) -> tuple[float, float]:
    """Mean accuracy over tasks and the half-width of its 95 % interval."""
    with torch.no_grad():
        hits = [(scores(network, weights, b).argmax(-1) == b.query_y.argmax(-1)).float().mean(1) for b in batches]
    values = torch.cat(hits).tolist()
    return float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--test-tasks", type=int, default=600)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device, config = torch.device(options.device), load_config(options.config)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    data = load_icons("train")
    encoding = input_encoding(config.input, data)
    task, seed = config.task, config.training.seed
    sampler = TaskSampler(data, task, config.augmentation, encoding, device)

    def fixed(split: str, count: int, split_seed: int) -> list[TaskBatch]:
        drawn = fixed_tasks(load_icons(split), task.ways, task.shots, task.queries, count, split_seed)
        parts = (drawn[i : i + TASKS_AT_ONCE] for i in range(0, count, TASKS_AT_ONCE))
        return [task_batch(part, encoding, device) for part in parts]

    validation = fixed("val", config.training.validation_tasks, VALIDATION_SEED)
    graph = config.network.graph(data.shape, task.ways, np.random.default_rng(seed))
    network = Network(graph)
    weights = {name: tensor.requires_grad_() for name, tensor in weight_tensors(graph, device).items()}
    optimizer = torch.optim.Adam([weights[name] for name in weights if not name.startswith("fc.")])
    best, best_weights, start = -1.0, weights, time.perf_counter()
    for iteration in track(range(options.iterations), "training"):
        batch = sampler.gather(sampler.draw(seed, iteration, config.training.tasks_per_batch))
        optimizer.param_groups[0]["lr"] = options.learning_rate * 0.5 * (1 + cos(pi * iteration / options.iterations))
        optimizer.zero_grad()
        logits = scores(network, weights, batch)
        F.cross_entropy(logits.flatten(0, 1), batch.query_y.flatten(0, 1).argmax(-1)).backward()
        optimizer.step()
        if (iteration + 1) % config.training.validate_every == 0 or iteration + 1 == options.iterations:
            value, _ = accuracy(network, weights, validation)
            if value > best:
                best = value
                best_weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
    mean, interval = accuracy(network, best_weights, fixed("test", options.test_tasks, TEST_SEED))
    result = {
        "ways": task.ways, "shots": task.shots, "network": options_of(config.network), "test_tasks": options.test_tasks,
        "accuracy": mean, "interval": interval, "validation": best, "seconds": time.perf_counter() - start,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
