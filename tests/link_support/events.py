"""Events without their places, for comparison with `expected_results`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pmeta.host.events import Event, QueryDone, SampleDone, StepDone


def numbers_of(events: Iterable[Event]) -> tuple[bytes | tuple[int, ...], ...]:
    """The bytes of every logit and loss, and every CRC-32, in order; Resumed and SampleKept have none."""
    numbers: list[bytes | tuple[int, ...]] = []
    for event in events:
        match event:
            case QueryDone():
                numbers.append(event.logits.tobytes())
            case SampleDone():
                numbers.append(event.logits.tobytes() + np.float32(event.loss).tobytes())
            case StepDone():
                numbers.append(event.crcs)
    return tuple(numbers)
