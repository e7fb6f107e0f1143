"""The meta-learner: what the outer loop optimizes, and one step of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import cos, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pmeta.codegen.adaptation import InputEncoding
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.graph import Graph, Node, Shape
from pmeta.trainer.attention import initial_module
from pmeta.trainer.captured import Captured
from pmeta.trainer.config import Config
from pmeta.trainer.distributed import ALONE, Processes
from pmeta.trainer.export import to_model
from pmeta.trainer.inner_loop import InnerLoop, MetaParameters
from pmeta.trainer.lasso import activation_shares, ram_shares
from pmeta.trainer.methods import DIRECTIONS
from pmeta.trainer.network_variants import varied
from pmeta.trainer.networks import Network, convolution_for, weight_tensors
from pmeta.trainer.objective import TaskBatch, meta_gradient, multi_step_weights, task_loss
from pmeta.trainer.operators import Tensors

FLOAT32 = InputEncoding("float32")
NEGLIGIBLE = 0.01  # of what step sizes start from


@dataclass(frozen=True)
class StepReport:
    """What one outer step says about itself."""

    loss: float  # mean query loss after adaptation
    accuracy: float  # mean query accuracy after adaptation
    zeros: int  # step sizes that are exactly zero, of those that may learn
    reentries: int  # step sizes that left zero in this step


class MetaLearner:
    """Meta-parameters, their optimizer, and the outer step of Algorithm 2."""

    def __init__(
        self,
        config: Config,
        input_shape: Shape,
        device: torch.device,
        encoding: InputEncoding = FLOAT32,
        processes: Processes = ALONE,
    ) -> None:
        """encoding: how samples travel, part of what the planner charges for (`method.lasso_cost`)."""
        self.config, self.device, self._processes = config, device, processes
        rng = np.random.default_rng([config.training.seed, 2**31])  # apart from every iteration's
        self.graph = network_graph(config, input_shape, rng)
        self.inner = inner_loop(self.graph, config, device)
        self.meta = initial_meta_parameters(self.inner, config, rng, device)
        self._leaves: list[Tensor] = tree_leaves(self.meta)
        for leaf in self._leaves:
            leaf.grad = torch.zeros_like(leaf)
        compiled = config.training.compile
        self._optimizer = torch.optim.AdamW(
            self._parameter_groups(), weight_decay=0.0, capturable=compiled and device.type == "cuda"
        )
        may_learn = torch.tensor([self.inner.may_learn(layer) for layer in self.graph.layers], device=device)
        self._mask = may_learn[:, None].expand_as(self.meta["alpha"])
        self._zero = (self.meta["alpha"] == 0) & self._mask
        self._price = self._prices(encoding)
        self._loss = torch.compile(task_loss, dynamic=False) if compiled else task_loss
        self._batching = "loop" if compiled else config.training.batching
        self._update = torch.compile(self._updated, dynamic=False) if compiled else self._updated
        self._gradients = {  # by whether they are of first order
            first_order: Captured(
                partial(self._write_gradients, replace(self.inner, first_order=first_order)),
                device,
                enabled=config.training.cuda_graph,
            )
            for first_order in (False, True)
        }
        gradients = [leaf.grad for leaf in self._leaves if leaf.grad is not None]
        captured = config.training.cuda_graph and not compiled  # then `_update` is compiled as a whole
        self._finish = Captured(self._clip_and_charge, device, enabled=captured, changed=gradients)

    def _prices(self, encoding: InputEncoding) -> Tensor:
        """λ·m of Eq. 9 for every step size, (L, K); 0 where it may not learn."""
        method = self.config.method
        if not method.penalty:
            return torch.zeros_like(self.meta["alpha"])
        if method.lasso_cost == "ram":
            all_learn = self.meta | {"alpha": self._mask.float()}
            shares = ram_shares(to_model(self.graph, all_learn, self.config, encoding, {}))
        else:
            shares = activation_shares(self.graph)
        return method.penalty * shares.to(self.device)[:, None] * self._mask

    def _parameter_groups(self) -> list[dict[str, Any]]:
        training = self.config.training
        body = tree_leaves({"weights": self.meta["weights"], "attention": self.meta["attention"]})
        groups: list[dict[str, Any]] = [
            {"params": body, "base": training.learning_rate, "weight_decay": training.weight_decay}
        ]
        step_sizes = tree_leaves(self.meta["channel_alpha"])
        if self.config.method.learn_alpha:
            step_sizes.append(self.meta["alpha"])
        if step_sizes:
            rate = training.alpha_learning_rate or training.learning_rate
            groups.append({"params": step_sizes, "base": rate})
        for group in groups:  # compiled, a number would be part of the program, which would be made anew for each
            rate = group["base"]
            group["lr"] = torch.tensor(rate, device=self.device) if training.compile else rate
        return groups

    def step(self, tasks: TaskBatch, iteration: int) -> StepReport:
        """One outer step (Eqs. 7, 9 and 15); `iteration` counts from 0 and sets rates and weights.

        tasks: this process's share of the iteration's.
        """
        inputs: dict[str, tuple[Tensor, ...]] = {"tasks": tasks.tensors()}
        annealed = self.config.training.multi_step_iterations
        if iteration < annealed:
            weights = multi_step_weights(self.inner.steps, iteration / annealed)
            inputs["step_weights"] = (torch.tensor(weights, device=self.device),)
        first_order = self.inner.first_order or iteration < self.config.training.first_order_iterations
        with tf32(self.config.training.precision == "tf32"):
            means = self._gradients[first_order](inputs)
        self._exchange(means, len(tasks.query_y))
        self._set_learning_rates(iteration)
        zeros, reentries = self._update()
        report = torch.stack([*means, zeros, reentries]).tolist()  # the step's one wait for the device
        return StepReport(report[0], report[1], int(report[2]), int(report[3]))

    def _write_gradients(self, inner: InnerLoop, inputs: dict[str, tuple[Tensor, ...]]) -> Tensor:
        """Set every leaf's .grad in place to the mean over tasks; returns the means of (loss, accuracy), (2,)."""
        step_weights = inputs["step_weights"][0] if "step_weights" in inputs else None
        gradient, losses, accuracies = meta_gradient(
            inner, self.meta, TaskBatch(*inputs["tasks"]), step_weights, self._batching, self._loss
        )
        for leaf, value in zip(self._leaves, tree_leaves(gradient), strict=True):
            assert leaf.grad is not None
            leaf.grad.copy_(value)
        return torch.stack([losses.mean(), accuracies.mean()])

    def _exchange(self, means: Tensor, tasks: int) -> None:
        """Turn means over this process's tasks, `means` and every leaf's .grad, into means over all tasks."""
        if self._processes.count == 1:
            return
        parts = [means, *(leaf.grad for leaf in self._leaves if leaf.grad is not None)]
        for part in parts:
            part.mul_(tasks / self.config.training.tasks_per_batch)
        self._processes.add_up(parts)

    def _updated(self) -> tuple[Tensor, Tensor]:
        """Every leaf by its .grad; returns what `_project_alpha` does."""
        self._finish({})
        self._optimizer.step()
        return self._project_alpha()

    def _clip_and_charge(self, _: dict[str, Tensor]) -> None:
        """Limit the gradient's norm, then add the price of step sizes."""
        if self.config.training.clip_norm:
            groups = self._optimizer.param_groups  # without step sizes that are fixed
            gradients = [leaf.grad for group in groups for leaf in group["params"]]
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in gradients]))
            shrink = (self.config.training.clip_norm / norm).clamp(max=1.0)
            for part in gradients:
                part.mul_(shrink)
        # λ·m·|α| of Eq. 9 for α >= 0: its slope is λ·m at zero too, or zeros would flicker.
        self.meta["alpha"].grad.add_(self._price)

    def _project_alpha(self) -> tuple[Tensor, Tensor]:
        """α ← max(α, 0), frozen layers at exactly 0; returns (zeros, re-entries) as float scalars."""
        for channels in tree_leaves(self.meta["channel_alpha"]):
            channels.clamp_(min=0.0)
        alpha = self.meta["alpha"]
        before = self._zero
        alpha.copy_(torch.where(self._mask, alpha.clamp(min=0.0), torch.zeros_like(alpha)))
        self._zero = (alpha == 0) & self._mask
        return self._zero.sum().float(), (before & ~self._zero).sum().float()

    def _set_learning_rates(self, iteration: int) -> None:
        for group in self._optimizer.param_groups:
            rate = self._learning_rate(group["base"], iteration)
            if self.config.training.compile:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def settled(self) -> MetaParameters:
        """The meta-parameters to validate and export, where step sizes have a price: negligible ones are zero.

        Near zero the optimizer moves a step size back and forth by its learning rate. One that is caught there would
        cost the device its layer's memory, and change nothing.
        """
        alpha = self.meta["alpha"]
        if not self.config.method.penalty:
            return self.meta
        return self.meta | {"alpha": torch.where(alpha < NEGLIGIBLE * self.config.method.alpha, 0.0, alpha)}

    def _learning_rate(self, base: float, iteration: int) -> float:
        training = self.config.training
        final = training.final_learning_rate * base / training.learning_rate
        return final + 0.5 * (base - final) * (1.0 + cos(pi * iteration / training.iterations))

    # --- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on, beside the configuration."""
        return {"meta": self.meta, "optimizer": self._optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with torch.no_grad():
            for leaf, value in zip(self._leaves, tree_leaves(state["meta"]), strict=True):
                leaf.copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self._zero = (self.meta["alpha"] == 0) & self._mask


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether a GPU may round the operands of products to TF32, 10 bits of mantissa."""
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = allowed
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.allow_tf32 = value


def network_graph(config: Config, input_shape: Shape, rng: np.random.Generator) -> Graph:
    """The network of `config` for samples of `input_shape`, its weights drawn from `rng`."""
    network = config.network
    return varied(network.graph(input_shape, config.task.ways, rng), network.normalization, network.pooling)


def inner_loop(graph: Graph, config: Config, device: torch.device) -> InnerLoop:
    """The inner loop that `config` asks for; raises ConfigError as `learning_layers` does."""
    return InnerLoop(
        network=Network(graph, convolution_for(device, config.training.convolution)),
        steps=config.method.steps,
        learning=frozenset(name for layer in learning_layers(graph, config) for name in layer.weight_names),
        rho_fw=config.method.rho_fw,
        rho_bw=config.method.rho_bw,
        first_order=config.method.first_order,
        sparsify=config.method.sparsify,
    )


def learning_layers(graph: Graph, config: Config) -> tuple[Node, ...]:
    """The layers that may learn: those of the method, less the frozen ones.

    Raises ConfigError for frozen layers that do not exist, and where nothing is left.
    """
    names, frozen = [layer.name for layer in graph.layers], config.method.frozen_layers
    unknown = sorted(set(frozen) - set(names))
    if unknown:
        raise ConfigError(
            f"'method.frozen_layers' names '{unknown[0]}', which is no layer", "configuration",
            f"use some of {', '.join(names)}",
        )  # fmt: skip
    layers = {"last": graph.layers[-1:], "body": graph.layers[:-1]}.get(config.method.layers or "all", graph.layers)
    learning = tuple(layer for layer in layers if layer.name not in frozen)
    if not learning:
        raise ConfigError("no layer is left to learn", "configuration", "freeze fewer in 'method.frozen_layers'")
    return learning


def initial_meta_parameters(
    inner: InnerLoop, config: Config, rng: np.random.Generator, device: torch.device
) -> MetaParameters:
    """The graph's weights, equal step sizes (0 for layers that do not learn), fresh attention on all but the last."""
    graph, method = inner.graph, config.method
    alpha = torch.full((len(graph.layers), inner.steps), method.alpha, device=device)
    attention: dict[str, dict[str, Tensors]] = {}
    channel_alpha: dict[str, Tensors] = {}
    for number, layer in enumerate(graph.layers):
        if not inner.may_learn(layer):
            alpha[number] = 0.0
            continue
        inputs, outputs = layer.attention_channels(graph.shapes[layer.input])
        if method.channel_alpha:
            channel_alpha[layer.name] = _on(device, {"in": torch.ones(inputs), "out": torch.ones(outputs)})
        directions = DIRECTIONS[method.attention or "none"]
        if directions and layer is not graph.layers[-1]:
            attention[layer.name] = {
                direction: _on(device, initial_module(inputs if direction == "fw" else outputs, rng))
                for direction in directions
            }
    weights = weight_tensors(graph, device)
    return {"weights": weights, "alpha": alpha, "attention": attention, "channel_alpha": channel_alpha}


def _on(device: torch.device, tensors: Tensors) -> Tensors:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
