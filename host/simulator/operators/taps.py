"""Which input pixels a sliding window reads: for every tap, the outputs for which it lies inside the input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from pmeta.codegen.operators import Window

Size = tuple[int, int]  # rows, columns
Rectangle = tuple[slice, slice]  # of pixels: rows, columns


@dataclass(frozen=True)
class Tap:
    """One element of the kernel, and the rectangle of outputs for which it reads a pixel inside the input."""

    row: int  # i, in the kernel
    column: int  # j
    outputs: Rectangle  # the rectangle in the output map
    inputs: Rectangle  # the pixels it reads, one for one


@dataclass(frozen=True)
class Phase:
    """Input pixels a stride apart, from some first one on: the same taps read them."""

    pixels: Rectangle  # in the input map
    taps: tuple[Tap, ...]  # whose `inputs` count these pixels only


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


@lru_cache(maxsize=256)
def phases(window: Window, input_size: Size, output_size: Size) -> tuple[Phase, ...]:
    """The phases that any tap reads; with stride 1 that is one, of all pixels."""
    taps_of: dict[Size, list[Tap]] = {}
    for tap in taps_inside(window, input_size, output_size):
        firsts, counted = zip(*map(_in_strides, tap.inputs, window.stride), strict=True)
        taps_of.setdefault(firsts, []).append(replace(tap, inputs=counted))
    step_down, step_right = window.stride
    return tuple(
        Phase((slice(row, None, step_down), slice(column, None, step_right)), tuple(taps))
        for (row, column), taps in taps_of.items()
    )


def _in_strides(pixels: slice, stride: int) -> tuple[int, slice]:
    """(the phase of pixels a stride apart along one axis, the same pixels counted in strides)."""
    return pixels.start % stride, slice(pixels.start // stride, (pixels.stop - 1) // stride + 1)


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
