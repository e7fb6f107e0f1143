"""Trains a 1-D convolutional network on vibrations of machines, then draws tasks of machines it has never met.

python examples/vibration/train.py --out build/vibration    writes model.onnx and tasks.npz there

A sample is what a three-axis accelerometer gives: 64 moments, float32. Every machine hums with frequencies of its own,
differently along every axis; a task is three states of such machines, five samples each to learn them from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pmeta.codegen.taskfile import Task, save_tasks

AXES, MOMENTS = 3, 64
TRAINED_ON = 40  # machines
WAYS, SHOTS, QUERIES = 3, 5, 10

Floats = npt.NDArray[np.float32]


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(AXES, 16, 7, padding=3), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(16, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(32, 32, 3, padding=1), nn.ReLU(), nn.AvgPool1d(16), nn.Flatten()),
        nn.Linear(32, TRAINED_ON),
    )


def vibrations(machine: int, count: int, rng: np.random.Generator) -> Floats:
    """Samples (count, AXES, MOMENTS) of one machine: three tones under noise, from a random moment on."""
    own = np.random.default_rng([1, machine])  # what this machine is like
    frequencies, strengths = own.uniform(0.02, 0.45, 3), own.uniform(0.2, 1.0, (AXES, 3))
    moments = np.arange(MOMENTS) + rng.uniform(0, 1000, (count, 1, 1, 1))
    tones = np.sin(2 * np.pi * frequencies[:, None] * moments)  # (count, 1, 3, MOMENTS)
    loudness = rng.uniform(0.7, 1.3, (count, 1, 1))
    clean = loudness * (strengths[:, :, None] * tones).sum(axis=2)
    return (clean + 0.5 * rng.normal(size=(count, AXES, MOMENTS))).astype(np.float32)


def train(net: nn.Module, rng: np.random.Generator) -> None:
    """As any classifier."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    labels = torch.arange(TRAINED_ON)
    for _ in range(400):
        batch = np.concatenate([vibrations(machine, 2, rng) for machine in range(TRAINED_ON)])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(torch.from_numpy(batch)), labels.repeat_interleave(2))
        loss.backward()
        optimizer.step()


def task(number: int, rng: np.random.Generator) -> Task:
    """Three machines that training has not seen."""
    machines = TRAINED_ON + WAYS * number + np.arange(WAYS)
    support_x, query_x = (np.concatenate([vibrations(m, count, rng) for m in machines]) for count in (SHOTS, QUERIES))
    support_y, query_y = (np.arange(WAYS, dtype=np.uint8).repeat(count) for count in (SHOTS, QUERIES))
    return Task(support_x, support_y, query_x, query_y, tuple(f"machine {m}" for m in machines), f"task {number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for model.onnx and tasks.npz")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = network()
    train(net, rng)
    torch.onnx.export(net.eval(), (torch.zeros(1, AXES, MOMENTS),), str(out / "model.onnx"), dynamo=False)
    save_tasks([task(number, rng) for number in range(20)], out / "tasks.npz")
    print(f"wrote {out / 'model.onnx'} and {out / 'tasks.npz'}")


if __name__ == "__main__":
    main()
