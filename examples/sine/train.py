"""Meta-trains a small network to learn sine waves from ten points, with MAML (Finn et al. 2017, Sec. 5.1).

python examples/sine/train.py --out build/sine    writes model.onnx and tasks.npz there
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from pmeta.codegen.taskfile import Task, save_tasks

ALPHA, STEPS = 0.02, 3  # of the adaptation; pmeta-gen must be told the same
POINTS = 10  # support samples, and queries in training
ITERATIONS, TASKS_PER_ITERATION = 1000, 25


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))


def waves(count: int, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(x, y), both (count, points, 1): points of sine waves of random amplitude and phase."""
    amplitude = 0.1 + 4.9 * torch.rand(count, 1, 1, generator=generator)
    phase = torch.pi * torch.rand(count, 1, 1, generator=generator)
    x = 10 * torch.rand(count, points, 1, generator=generator) - 5
    return x, amplitude * torch.sin(x - phase)


def meta_train(net: nn.Module, generator: torch.Generator) -> None:
    """Makes the weights ones that STEPS steps of gradient descent on a few points adapt well."""
    weights = dict(net.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(functional_call(net, weights, (x,)), y)

    def loss_after_adaptation(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        for _ in range(STEPS):
            gradients = grad(loss)(weights, x[:POINTS], y[:POINTS])
            weights = {name: weight - ALPHA * gradients[name] for name, weight in weights.items()}
        return loss(weights, x[POINTS:], y[POINTS:])

    optimizer = torch.optim.Adam(weights.values(), lr=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ITERATIONS)
    for _ in range(ITERATIONS):
        x, y = waves(TASKS_PER_ITERATION, 2 * POINTS, generator)
        optimizer.zero_grad()
        vmap(loss_after_adaptation, in_dims=(None, 0, 0))(weights, x, y).mean().backward()
        nn.utils.clip_grad_norm_(weights.values(), 10)
        optimizer.step()
        schedule.step()


def task(number: int, generator: torch.Generator) -> Task:
    """One wave: ten points to learn it from, forty to see how well."""
    x, y = (points[0].numpy().astype(np.float32) for points in waves(1, POINTS + 40, generator))
    return Task(x[:POINTS], y[:POINTS], x[POINTS:], y[POINTS:], ("y",), f"wave {number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for model.onnx and tasks.npz")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = network()
    meta_train(net, generator)
    torch.onnx.export(net, (torch.zeros(1, 1),), str(out / "model.onnx"), dynamo=False)
    save_tasks([task(number, generator) for number in range(20)], out / "tasks.npz")
    print(f"wrote {out / 'model.onnx'} and {out / 'tasks.npz'}")


if __name__ == "__main__":
    main()
