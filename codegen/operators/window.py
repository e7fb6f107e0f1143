"""The sliding window that convolution and pooling share: kernel, stride, dilation, padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pmeta.codegen.errors import ModelError
from pmeta.codegen.onnx_node import OnnxNode

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A 2-D window; pairs are (rows, columns)."""

    ATTRIBUTES: ClassVar[tuple[str, ...]] = ("kernel_shape", "strides", "dilations", "pads")  # ONNX
    LARGEST: ClassVar[int] = 1 << 15

    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pad_before: Pair = (0, 0)  # rows above, columns left
    pad_after: Pair = (0, 0)  # rows below, columns right

    def __post_init__(self) -> None:
        positive = (*self.kernel, *self.stride, *self.dilation)
        if min(positive) < 1 or min(*self.pad_before, *self.pad_after) < 0:
            raise ModelError(f"impossible window {self}", "window", "kernel, stride, dilation >= 1 and pads >= 0")
        if max(*positive, *self.pad_before, *self.pad_after) > self.LARGEST:
            raise ModelError(f"impossible window {self}", "window", f"no number of it may exceed {self.LARGEST}")

    @property
    def extent(self) -> Pair:
        """Rows and columns the dilated kernel spans."""
        rows, columns = (d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return rows, columns

    def output_size(self, size: tuple[int, ...], name: str) -> Pair:
        """(rows, columns) of the output for an input of (rows, columns), rounded down as ONNX's floor mode."""
        out = []
        for axis in range(2):
            room = size[axis] + self.pad_before[axis] + self.pad_after[axis] - self.extent[axis]
            if room < 0:
                raise ModelError(
                    f"the window of {self.extent} does not fit the padded input {size}",
                    f"node '{name}'",
                    "use a larger input or a smaller kernel",
                )
            out.append(room // self.stride[axis] + 1)
        return out[0], out[1]

    def pooled_size(self, size: tuple[int, ...], name: str) -> Pair:
        """`output_size` for a pooling, of which every window must see some input."""
        if not all(self._sees_input(axis, length) for axis, length in enumerate(size)):
            what = f"some window of {self} lies outside the input of {size}"
            raise ModelError(what, f"node '{name}'", "pad by less than the kernel")
        return self.output_size(size, name)

    def _sees_input(self, axis: int, size: int) -> bool:
        """Whether every window has a tap inside the input along one axis."""
        kernel, stride, dilation = self.kernel[axis], self.stride[axis], self.dilation[axis]
        before, after = self.pad_before[axis], self.pad_after[axis]
        windows = (size + before + after - self.extent[axis]) // stride + 1
        starts = range(-before, windows * stride - before, stride)
        critical = (*starts[: -(-before // stride)], *starts[-1:])  # those that begin before the input, and the last
        first_taps = [(start, max(0, -(start // dilation))) for start in critical]  # that are not before the input
        return all(tap < kernel and start + tap * dilation < size for start, tap in first_taps)

    @classmethod
    def from_onnx(cls, node: OnnxNode, kernel: Pair) -> Window:
        """Read the attributes that convolution and pooling share; `kernel` comes from the weights or kernel_shape."""
        if node.ints("kernel_shape", kernel) != kernel:
            raise node.unsupported("kernel_shape contradicts the weights", "export the model again")
        stride, dilation = node.ints("strides", (1, 1)), node.ints("dilations", (1, 1))
        pads = node.ints("pads", (0, 0, 0, 0))
        return cls(kernel, (stride[0], stride[1]), (dilation[0], dilation[1]), (pads[0], pads[1]), (pads[2], pads[3]))

    def to_onnx(self) -> dict[str, list[int]]:
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "dilations": list(self.dilation),
            "pads": [*self.pad_before, *self.pad_after],
        }

    def constants(self) -> dict[str, int]:
        """The window's part of a kernel's shape struct."""
        return {
            "kernel_h": self.kernel[0],
            "kernel_w": self.kernel[1],
            "stride_h": self.stride[0],
            "stride_w": self.stride[1],
            "dilation_h": self.dilation[0],
            "dilation_w": self.dilation[1],
            "pad_top": self.pad_before[0],
            "pad_left": self.pad_before[1],
        }
