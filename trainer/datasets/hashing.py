"""What identifies the content of a data set."""

from __future__ import annotations

import hashlib

import numpy as np

from pmeta.trainer.datasets.base import ClassSamples


def data_hash(data: ClassSamples) -> str:
    """SHA-256 over shape, samples and labels of a data set."""
    digest = hashlib.sha256(str(data.samples.shape).encode())
    for start in range(0, len(data.samples), 1024):  # it may lie in a file
        digest.update(np.ascontiguousarray(data.samples[start : start + 1024]).tobytes())
    digest.update(np.ascontiguousarray(data.labels.astype("<i8")).tobytes())
    return digest.hexdigest()
