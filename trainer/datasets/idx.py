"""Reads the idx format of MNIST and its relatives: https://yann.lecun.com/exdb/mnist, "file format"."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.compressed import read_maybe_gzip

_MAX_BYTES: Final = 1 << 30
_UNSIGNED_BYTES: Final = 8  # the format's code of the element type


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Returns the read-only array of bytes in an idx file, plain or gzip-compressed.

    Raises DataError if the file is missing or damaged, or its array has not so many dimensions.
    """
    content = read_maybe_gzip(path, _MAX_BYTES)
    header = struct.Struct(f">HBB{dimensions}I")
    if len(content) < header.size:
        raise DataError("is no idx file: too short", str(path), "download it again")
    zero, element_type, found, *shape = header.unpack_from(content)
    if (zero, element_type, found) != (0, _UNSIGNED_BYTES, dimensions):
        raise DataError(f"is no idx file of bytes in {dimensions} dimensions", str(path), "download it again")
    if math.prod(shape) != len(content) - header.size:
        what = f"holds {len(content) - header.size} bytes, its header says {'x'.join(map(str, shape))}"
        raise DataError(what, str(path), "download it again")
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(shape)
