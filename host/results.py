"""What one task came to: collected from the stream of events, for people (table) and machines (JSON)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pmeta.codegen.taskfile import Task
from pmeta.host.events import Event, Float32Array, Phase, QueryDone, SampleDone, StepDone


@dataclass
class TaskResult:
    """Grows with every event; complete when the stream ends."""

    task: Task
    tensors: tuple[str, ...]  # names of the learned tensors, in the order of a StepDone's CRC-32s
    logits: dict[Phase, list[Float32Array]] = field(default_factory=lambda: {"before": [], "after": []})
    losses: list[list[float]] = field(default_factory=list)  # per step, per support sample
    crcs: list[tuple[int, ...]] = field(default_factory=list)  # per step

    def add(self, event: Event) -> None:
        match event:
            case QueryDone():
                self.logits[event.phase].append(event.logits)
            case SampleDone():
                if event.index == 0:
                    self.losses.append([])
                self.losses[-1].append(float(event.loss))
            case StepDone():
                self.crcs.append(event.crcs)

    def predictions(self, phase: Phase) -> list[int]:
        """Predicted class of every query sample: the largest logit, the first of equals."""
        return [int(np.argmax(logits)) for logits in self.logits[phase]]

    def accuracy(self, phase: Phase) -> float:
        """Share of query samples predicted right, 0..1."""
        right = [one == int(other) for one, other in zip(self.predictions(phase), self.task.query_y, strict=True)]
        return sum(right) / len(right)

    def squared_errors(self, phase: Phase) -> list[float]:
        """Of every query sample the mean over its outputs, where the task teaches numbers; in float64."""
        distances = np.array(self.logits[phase], np.float64) - self.task.query_y
        return [float(error) for error in (distances**2).mean(axis=1)]

    def score(self, phase: Phase) -> float:
        """The accuracy; where the task teaches numbers, the mean squared error over all query samples."""
        return float(np.mean(self.squared_errors(phase))) if self.task.regression else self.accuracy(phase)

    def mean_losses(self) -> list[float]:
        """Mean support loss of every step, with the weights before it."""
        return [sum(losses) / len(losses) for losses in self.losses]

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task.name,
            **(self._numbers_to_json() if self.task.regression else self._classes_to_json()),
            "steps": [
                {
                    "support_loss": _number(loss),
                    "crc32": {name: f"{crc:08x}" for name, crc in zip(self.tensors, crcs, strict=True)},
                }
                for loss, crcs in zip(self.mean_losses(), self.crcs, strict=True)
            ],
        }

    def _classes_to_json(self) -> dict[str, Any]:
        return {
            "classes": list(self.task.class_names),
            "accuracy": {phase: self.accuracy(phase) for phase in self.logits},
            "query": {
                "label": [int(label) for label in self.task.query_y],
                **{phase: self.predictions(phase) for phase in self.logits},
            },
        }

    def _numbers_to_json(self) -> dict[str, Any]:
        return {
            "outputs": list(self.task.class_names),
            "mean_squared_error": {phase: _number(self.score(phase)) for phase in self.logits},
            "query": {
                "target": [[float(value) for value in row] for row in self.task.query_y],
                **{phase: [[_number(float(v)) for v in row] for row in rows] for phase, rows in self.logits.items()},
            },
        }


def _number(value: float) -> float | None:
    """JSON has no infinities and no NaN."""
    return value if np.isfinite(value) else None
