"""The usual way to meta-train, to measure against: learn2learn's, written anew.

A module is cloned for every task, differentiably; the clone takes gradient steps with
`torch.autograd.grad(create_graph=True)`; the gradients of the query losses add up in the module's parameters. One task
after the other, plain PyTorch modules and operators, on any device.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def four_conv(channels: int, size: int, width: int, groups: int, ways: int, blocks: int = 4) -> nn.Sequential:
    """The paper's 4Conv for samples of (channels, size, size)."""
    layers: list[nn.Module] = []
    for block in range(blocks):
        layers += [
            nn.Conv2d(width if block else channels, width, 3, padding=1, bias=False),
            nn.GroupNorm(groups, width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (size >> blocks) ** 2, ways))


def clone(module: nn.Module) -> nn.Module:
    """A copy whose parameters are differentiable copies of the module's."""
    copied = copy.copy(module)
    copied._parameters = {n: None if p is None else p.clone() for n, p in module._parameters.items()}
    copied._modules = {name: None if child is None else clone(child) for name, child in module._modules.items()}
    return copied


def adapt(learner: nn.Module, x: Tensor, y: Tensor, step_size: float) -> None:
    """One gradient step of a clone on (x, y), itself differentiable."""
    slots = [(owner, name) for owner in learner.modules() for name, p in owner._parameters.items() if p is not None]
    parameters = [owner._parameters[name] for owner, name in slots]
    gradients = torch.autograd.grad(F.cross_entropy(learner(x), y), parameters, create_graph=True)
    for (owner, name), parameter, gradient in zip(slots, parameters, gradients, strict=True):
        owner._parameters[name] = parameter - step_size * gradient


def meta_step(
    module: nn.Module, optimizer: torch.optim.Optimizer, tasks: tuple[Tensor, ...], steps: int, step_size: float
) -> float:
    """One outer iteration; returns the mean query loss.

    tasks: support x (T, N, C, H, W), support y (T, N), query x, query y.
    """
    optimizer.zero_grad()
    total = 0.0
    for support_x, support_y, query_x, query_y in zip(*tasks, strict=True):
        learner = clone(module)
        for _ in range(steps):
            adapt(learner, support_x, support_y, step_size)
        loss = F.cross_entropy(learner(query_x), query_y) / len(tasks[0])
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total
