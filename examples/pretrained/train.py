"""Trains an ordinary classifier of icons, then draws tasks of icons it has never seen.

python examples/pretrained/train.py --out build/pretrained    writes model.onnx and tasks.npz there

Nothing here knows of meta-learning: the network could be any that torch.onnx.export can write.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pmeta.codegen.taskfile import Task, save_tasks
from pmeta.trainer.datasets.base import ClassSamples
from pmeta.trainer.datasets.episodes import sample_episode
from pmeta.trainer.datasets.icons import load_icons

WAYS, SHOTS, QUERIES = 5, 5, 10
EPOCHS = 4


def network(classes: int) -> nn.Module:
    """For images (1, 28, 28)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten()),
        nn.Linear(32 * 4 * 4, classes),
    )


def train(net: nn.Module, data: ClassSamples) -> None:
    """As any classifier; the network sees bytes u as u / 255."""
    images, labels = torch.from_numpy(data.samples.copy()).float() / 255, torch.from_numpy(data.labels.copy())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.002)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()


def task(number: int, data: ClassSamples) -> Task:
    """Five classes; samples travel as the bytes they are."""
    episode = sample_episode(data, WAYS, SHOTS, QUERIES, np.random.default_rng(number))
    support_y, query_y = (labels.astype(np.uint8) for labels in (episode.support_y, episode.query_y))
    return Task(episode.support_x, support_y, episode.query_x, query_y, episode.class_names, f"task {number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for model.onnx and tasks.npz")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    data, unseen = load_icons("train"), load_icons("test")
    net = network(data.num_classes)
    train(net, data)
    torch.onnx.export(net.eval(), (torch.zeros(1, *data.shape),), str(out / "model.onnx"), dynamo=False)
    save_tasks([task(number, unseen) for number in range(20)], out / "tasks.npz")
    print(f"wrote {out / 'model.onnx'} and {out / 'tasks.npz'}")


if __name__ == "__main__":
    main()
