"""The simulator: one device in NumPy, bit for bit, with the same calls and the same refusals."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import DataError, DeviceError
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.numerics import STRICT, Numerics
from pmeta.codegen.targets import Target, target_bytes, target_problem
from pmeta.host.simulator.arithmetic import canonical_bytes, crc32
from pmeta.host.simulator.channel_rates import scaled_by_channel
from pmeta.host.simulator.sample_pass import SamplePass, SupportSample, decode, run_batch, run_forward, run_support

Sample = npt.NDArray[Any]  # as it travels: uint8 or float32, of the model's input shape
WHERE = "simulator"


@dataclass(frozen=True)
class SampleResult:
    """What the device answers to one support sample."""

    logits: Float32Array  # (ways,), computed with the weights before the step
    loss: np.float32


class Simulator:
    """Adapts one model as docs/numerics.md says, in one of its variants.

    For each step 1..K: `adapt_sample` for every support sample, always in the same order, then `end_step`. `predict` at
    any time.
    """

    def __init__(self, model: Model, numerics: Numerics = STRICT) -> None:
        self._model = model
        self._numerics = numerics
        self.reset()

    def reset(self) -> None:
        """Back to the meta-trained weights and the first step."""
        self._weights: dict[str, Float32Array] = dict(self._model.graph.weights)
        self._step = 1
        self._expected_crc = 0  # of step 1's samples and targets
        self.restart_step()

    def restart_step(self) -> None:
        """Drop what the current step has accumulated, so that it can be sent again."""
        self._samples = 0
        self._batch: list[SupportSample] = []  # waiting until the micro-batch is complete
        self._support_crc = 0  # of this step's samples and targets so far
        learned = () if self.finished else self._model.learned_in_step(self._step)
        self._accumulators = {weight.name: np.zeros_like(self._weights[weight.name]) for weight in learned}

    @property
    def step(self) -> int:
        """The current step, 1..K; K + 1 when adaptation is finished."""
        return self._step

    @property
    def samples(self) -> int:
        """Support samples received in the current step."""
        return self._samples

    @property
    def weights(self) -> Mapping[str, Float32Array]:
        """The weights as they are now, by name; read-only."""
        return MappingProxyType(self._weights)

    @property
    def finished(self) -> bool:
        return self._step > self._model.adaptation.steps

    def adapt_sample(self, sample: Sample, target: Target) -> SampleResult:
        """Add one support sample to the gradients of this step; raises DeviceError or DataError, then unchanged."""
        one = self._run_support(sample, target)
        self._batch.append(one)
        if len(self._batch) == self._model.adaptation.sample_batch:
            self._end_batch()
        self._samples += 1
        for part in (sample.tobytes(), target_bytes(target)):
            self._support_crc = zlib.crc32(part, self._support_crc)
        return SampleResult(one.forward.logits, one.loss)

    def trace_sample(self, sample: Sample, target: Target) -> SamplePass:
        """All that `adapt_sample` would compute for this sample alone, without adding it."""
        one = self._run_support(sample, target)
        with np.errstate(all="ignore"):
            return run_batch(self._model, self._weights, self._step, [one], self._numerics)[0]

    def _end_batch(self) -> None:
        """Add what the waiting samples contribute; meta attention averages over them."""
        with np.errstate(all="ignore"):
            for traced in run_batch(self._model, self._weights, self._step, self._batch, self._numerics):
                for name, contribution in traced.contributions.items():
                    self._accumulators[name] = contribution.added_to(self._accumulators[name])
        self._batch = []

    def _run_support(self, sample: Sample, target: Target) -> SupportSample:
        self._refuse_when_finished()
        problem = target_problem(target, self._model.adaptation.loss, self._model.adaptation.ways)
        if problem:
            raise DeviceError(problem, WHERE, "use a task file made for this model")
        x = self._decoded(sample)
        with np.errstate(all="ignore"):
            return run_support(self._model, self._weights, x, target, self._numerics)

    def end_step(self, samples: int) -> tuple[str, ...]:
        """Update the weights and go to the next step; `samples` is how many the host believes it sent.

        Returns the names of the updated weights: in layer order, a layer's weight before its bias. Raises DeviceError
        for a wrong count, then unchanged, and for other samples or targets than in step 1, then at the step's start.
        """
        self._refuse_when_finished()
        if samples != self._samples or samples < 1:
            raise DeviceError(
                f"step {self._step} has {self._samples} samples, the host says {samples}", WHERE, "reset and send again"
            )
        if self._step == 1:
            self._expected_crc = self._support_crc
        elif self._support_crc != self._expected_crc:
            self.restart_step()
            raise DeviceError(
                f"step {self._step} has other samples or targets than step 1",
                WHERE,
                "send the same again in every step",
            )
        if self._batch:
            self._end_batch()  # fewer samples than others
        learned = self._model.learned_in_step(self._step)
        with np.errstate(all="ignore"):
            for weight in learned:
                rate = np.float32(weight.step_sizes[self._step - 1]) / np.float32(samples)
                gradient = scaled_by_channel(self._model, weight, self._accumulators[weight.name])
                self._weights[weight.name] = self._weights[weight.name] - rate * gradient
        self._step += 1
        self.restart_step()
        return tuple(weight.name for weight in learned)

    def predict(self, sample: Sample) -> Float32Array:
        """Logits (ways,) of one query sample with the weights as they are now."""
        x = self._decoded(sample)
        with np.errstate(all="ignore"):
            return run_forward(self._model, self._weights, x, self._numerics).logits

    def tensor_bytes(self, name: str) -> bytes:
        """Canonical bytes (little-endian float32) of the weight `name`; KeyError where there is none."""
        return canonical_bytes(self._weights[name])

    def tensor_crc32(self, name: str) -> int:
        """CRC-32 of `tensor_bytes`."""
        return crc32(self._weights[name])

    def _refuse_when_finished(self) -> None:
        if self.finished:
            steps = self._model.adaptation.steps
            raise DeviceError(f"adaptation is finished after {steps} steps", WHERE, "reset to adapt again")

    def _decoded(self, sample: Sample) -> Float32Array:
        shape, encoding = self._model.graph.input_shape, self._model.adaptation.encoding
        if sample.shape != shape or sample.dtype != np.dtype(encoding.kind):
            raise DataError(
                f"a sample is {sample.dtype} {sample.shape}, expected {encoding.kind} {shape}",
                WHERE,
                "pass samples as the model was trained on",
            )
        return decode(sample, encoding)
