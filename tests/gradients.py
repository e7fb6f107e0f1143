"""Simulator ≈ PyTorch's autograd, for any network: gradients, and the discrete decisions that they depend on.

PyTorch follows the simulator's decisions in float64, so that what is left is smooth. How far the simulator's float32
may be from it depends on the network: a gradient may be the small difference of large terms. So the tolerance is
measured, by Monte Carlo arithmetic (Parker, 1997): the same is computed again with each intermediate result off by
2⁻²⁰, up or down at random. A rounding of the simulator is 16 times smaller, but a sum of n terms rounds n times. The
tolerance, `MARGIN` times what this noise changes, leaves room for sums of some dozens of terms of one sign, and of any
number of both.

No decision is taken on trust: one that is not PyTorch's own must be one that such noise can turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.torch_vs_simulator import SimulatedStep, simulate_step, torch_weights
from pmeta.codegen.adaptation import Model
from pmeta.codegen.operators import Clip, HardSwish, LeakyRelu, MaxPool, Relu
from pmeta.codegen.targets import targets_of
from pmeta.host.simulator import Simulator
from tests.reference.noise import NOISE
from tests.reference.torch_adaptation import Decisions, SampleGradients, Weights, decode, sample_gradients

REPEATS = 3  # with noise
MARGIN = 4
SMALLEST = 2.0**-126 * MARGIN  # below, float32 rounds absolutely


@dataclass(frozen=True)
class Compared:
    """The gradient of one weight in one step, summed over the samples."""

    error: float  # largest difference
    tolerance: float
    largest: float  # magnitude in the reference


def assert_follows_pytorch(model: Model, support: npt.NDArray[np.generic], targets: npt.NDArray[Any]) -> None:
    """All steps of an adaptation, each from the simulator's weights."""
    for where, compared in compare(model, support, targets):
        assert compared.error <= compared.tolerance, f"{where}: {compared}"


def compare(
    model: Model, support: npt.NDArray[np.generic], targets: npt.NDArray[Any]
) -> Iterator[tuple[str, Compared]]:
    """Every gradient of every step; AssertionError for a decision that no rounding explains."""
    simulator, decoded = Simulator(model), decode(model, support, torch.float64)
    while not simulator.finished:
        step, weights = simulator.step, torch_weights(simulator, torch.float64)
        simulated = simulate_step(model, simulator, support, targets)
        exact, *noisy = (
            _computed(model, weights, step, decoded, targets, simulated, seed) for seed in (None, *range(REPEATS))
        )
        if any(_overflows(sample) for sample in exact):
            return  # the steps were too large: learning has left the range of float32
        for index, decisions in enumerate(simulated.decisions):
            where = f"step {step}, sample {index}"
            _check_decisions(model, decisions, exact[index], [run[index] for run in noisy], where)
        for name, gradient in simulated.gradients.items():
            yield f"step {step}, gradient of {name}", _compared(gradient, exact, noisy, name)


def _computed(
    model: Model,
    weights: Weights,
    step: int,
    decoded: Tensor,
    targets: npt.NDArray[Any],
    simulated: SimulatedStep,
    seed: int | None,
) -> list[SampleGradients]:
    """By sample; with noise from `seed`, or without."""
    noise = None if seed is None else torch.Generator().manual_seed(seed)
    samples = zip(decoded, targets_of(targets), simulated.decisions, strict=True)
    return [sample_gradients(model, weights, step, x, target, forced, noise) for x, target, forced in samples]


def _overflows(sample: SampleGradients) -> bool:
    """Whether float32 cannot hold what the reference computed."""
    numbers = (*sample.activations.values(), *sample.gradients.values())
    return any(bool((values.abs() > float(np.finfo(np.float32).max)).any()) for values in numbers)


def _compared(
    gradient: npt.NDArray[np.float32],
    exact: Sequence[SampleGradients],
    noisy: Sequence[Sequence[SampleGradients]],
    name: str,
) -> Compared:
    reference, *others = (_total(run, name) for run in (exact, *noisy))
    largest = float(np.abs(reference).max())
    tolerance = MARGIN * (_spread(reference, others) + NOISE * largest) + SMALLEST
    return Compared(float(np.abs(gradient - reference).max()), tolerance, largest)


def _total(run: Sequence[SampleGradients], name: str) -> npt.NDArray[np.float64]:
    total: npt.NDArray[np.float64] = np.sum([sample.gradients[name].numpy() for sample in run], axis=0)
    return total


def _spread(reference: npt.NDArray[np.float64], others: Sequence[npt.NDArray[np.float64]]) -> float:
    """The largest change that noise makes."""
    return max(float(np.abs(other - reference).max()) for other in others)


# --- decisions -----------------------------------------------------------------------------------------------


def _check_decisions(
    model: Model, taken: Decisions, exact: SampleGradients, noisy: Sequence[SampleGradients], where: str
) -> None:
    """AssertionError where the simulator decides what the reference, and noise of its size, would not."""
    for node in model.graph.nodes:
        if isinstance(node, Clip | HardSwish | LeakyRelu | MaxPool | Relu):
            x = exact.activations[node.input][0]
            room = _room(x, [run.activations[node.input][0] for run in noisy])
            if isinstance(node, MaxPool):
                wrong = _beaten(x, taken.winners[node.name], exact.decisions.winners[node.name]) > room
            else:
                wrong = _distance(node, x, taken.passes[node.name] != exact.decisions.passes[node.name]) > room
            assert not wrong.any(), f"{where}: {node.name} decides otherwise, and not for a rounding"
    for direction, kept, rho in (
        ("fw", taken.kept_fw, model.adaptation.rho_fw),
        ("bw", taken.kept_bw, model.adaptation.rho_bw),
    ):
        for layer, channels in kept.items():
            pi = exact.importances[f"{direction} {layer}"]
            room = _room(pi, [run.importances[f"{direction} {layer}"] for run in noisy])
            assert _may_keep(pi, channels, rho, room), f"{where}: attention of {layer} keeps other channels"


def _room(exact: Tensor, noisy: Sequence[Tensor]) -> float:
    """How far roundings may move a number of this tensor."""
    return MARGIN * (max(float((run - exact).abs().max()) for run in noisy) + NOISE * float(exact.abs().max()))


def _distance(node: Clip | HardSwish | LeakyRelu | Relu, x: Tensor, differs: Tensor) -> Tensor:
    """How far each x is from the threshold that it was put on the other side of; 0 where it was not."""
    match node:
        case Clip():
            distances = torch.minimum((x - node.min).abs(), (x - node.max).abs())
        case HardSwish():
            distances = torch.stack([(x + 3).abs(), (x - 3).abs()])
        case _:
            distances = x.abs()
    return torch.where(differs, distances, 0)


def _beaten(x: Tensor, winners: Tensor, best: Tensor) -> Tensor:
    """By how much the true winner of each window exceeds the one taken."""
    pixels = x.flatten(1)
    return pixels.gather(1, best.flatten(1)) - pixels.gather(1, winners.flatten(1))


def _may_keep(pi: Tensor, kept: Tensor, rho: int, room: float) -> bool:
    """Whether Algorithm 1 keeps these channels for some importances within `room` of π."""
    channels = len(pi)
    if rho == 0 or channels == 1:
        return bool((pi[~kept] <= room).all())  # what underflows to 0 counts as not kept
    clipped, left = pi[~kept].sort().values, pi[kept]
    least = min((rho * channels + 999) // 1000, channels - 1)
    if not least <= len(clipped) <= channels - 1 or float(clipped[-1]) > float(left.min()) + 2 * room:
        return False
    enough = float(clipped.sum()) + room * len(clipped) >= rho / 1000 or len(clipped) == channels - 1
    not_too_many = float(clipped[:-1].sum()) - room * len(clipped) < rho / 1000 or len(clipped) == least
    return enough and not_too_many
