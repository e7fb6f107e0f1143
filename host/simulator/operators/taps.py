"""Which input pixels a sliding window reads: for every tap, the outputs for which it lies inside the input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pmeta.codegen.operators import Window

Size = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Tap:
    """One element of the kernel, and the rectangle of outputs for which it reads a pixel inside the input."""

    row: int  # i, in the kernel
    column: int  # j
    outputs: tuple[slice, slice]  # the rectangle in the output map
    inputs: tuple[slice, slice]  # the pixels it reads, one for one


@lru_cache(maxsize=256)
def taps_inside(window: Window, input_size: Size, output_size: Size) -> tuple[Tap, ...]:
    """The taps that read any pixel, in row-major order of the kernel."""
    axes = [
        [_axis_slices(window, axis, tap, input_size[axis], output_size[axis]) for tap in range(window.kernel[axis])]
        for axis in range(2)
    ]
    return tuple(
        Tap(i, j, (rows[0], columns[0]), (rows[1], columns[1]))
        for i, rows in enumerate(axes[0])
        for j, columns in enumerate(axes[1])
        if rows is not None and columns is not None
    )


def _axis_slices(window: Window, axis: int, tap: int, input_size: int, output_size: int) -> tuple[slice, slice] | None:
    """(outputs, inputs) along one axis; None where the tap is always outside."""
    stride = window.stride[axis]
    first_input = tap * window.dilation[axis] - window.pad_before[axis]  # what output 0 reads
    begin = max(0, -(first_input // stride))  # the first output that reads an index >= 0
    end = min(output_size, (input_size - 1 - first_input) // stride + 1)
    if begin >= end:
        return None
    start = begin * stride + first_input
    return slice(begin, end), slice(start, start + (end - begin - 1) * stride + 1, stride)
