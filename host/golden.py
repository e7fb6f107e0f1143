"""The simulator as the reference that `pmeta-gen` asks for golden vectors (entry point `pmeta.reference`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import Model
from pmeta.codegen.numerics import Numerics
from pmeta.codegen.project.golden import GoldenAnswers, GoldenTask
from pmeta.host.simulator.arithmetic import canonical_bytes
from pmeta.host.simulator.simulator import Simulator


def answer(model: Model, task: GoldenTask, tensors: tuple[str, ...], numerics: Numerics) -> GoldenAnswers:
    """Adapt to the task, if it has support samples, and predict.

    `tensors` names the learned tensors in the order of their numbers.
    """
    simulator = Simulator(model, numerics)
    logits, losses, crcs = [], [], []
    for _ in range(model.adaptation.steps if task.support else 0):
        results = [
            simulator.adapt_sample(_sample(model, raw), target)
            for raw, target in zip(task.support, task.targets, strict=True)
        ]
        simulator.end_step(len(results))
        logits.append(tuple(canonical_bytes(result.logits) for result in results))
        losses.append(tuple(canonical_bytes(np.asarray(result.loss)) for result in results))
        crcs.append(tuple(simulator.tensor_crc32(name) for name in tensors))
    query = canonical_bytes(simulator.predict(_sample(model, task.query)))
    return GoldenAnswers(tuple(logits), tuple(losses), tuple(crcs), query)


def _sample(model: Model, raw: bytes) -> npt.NDArray[np.generic]:
    dtype = np.dtype(np.uint8) if model.adaptation.encoding.kind == "uint8" else np.dtype("<f4")
    return np.frombuffer(raw, dtype).reshape(model.graph.input_shape)
