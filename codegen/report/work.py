"""How much work a kernel call does, in the units that its instructions grow with: MACs, rows, taps, elements, ...

Unlike `macs`, which counts nominal MACs as the paper does, this counts what is executed: taps in the padding are
skipped, each row of a convolution has its overhead. Where attention chooses channels at run time, the most that it can
keep are counted. `pmeta.codegen.report.instructions` multiplies these numbers with measured instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod

from pmeta.codegen.adaptation import Adaptation
from pmeta.codegen.operators.weight_gradient import kept_channels_bound
from pmeta.codegen.plan.program import Buffer, Call, Constant, whole
from pmeta.codegen.project.channel_rates import ChannelRates

Work = Mapping[str, float]  # by unit


def call_work(call: Call, adaptation: Adaptation) -> Work | None:
    """Work of one execution (of one slice, in a loop), `call` being 1; None for a kernel that has no entry here."""
    count = _WORK.get(kernel_name(call))
    return {**count(_Arguments(call, adaptation)), "call": 1} if count else None


def scaling_work(rates: ChannelRates) -> Work:
    """Work of applying one weight's step sizes per channel, at the end of a step."""
    rows, columns, taps = map(int, rates.arguments[:3])
    return {"element": rows * columns * taps, "column": rows * columns, "row": rows, "call": 1}


def kernel_name(call: Call) -> str:
    """The C function, without what its result is assigned to."""
    return call.function.rpartition(" ")[2]


_ROW_TYPES = ("PMETA_FLOAT32", "PMETA_FLOAT16", "PMETA_INT8")


class _Arguments:
    """What the arguments of a call say about its size."""

    def __init__(self, call: Call, adaptation: Adaptation) -> None:
        self._call = call
        self._rho = {"fw": adaptation.rho_fw, "bw": adaptation.rho_bw}

    @property
    def shape(self) -> Mapping[str, int]:
        """The shape struct, always the first argument."""
        constant = self._call.arguments[0]
        if not isinstance(constant, Constant):
            raise AssertionError(f"{self._call.function} begins with no shape")
        return {name: int(value) for name, value in constant.value.fields.items()}

    @property
    def numbers(self) -> tuple[int, ...]:
        """The plain numbers, in order."""
        plain = (argument.rstrip("u") for argument in self._call.arguments if isinstance(argument, str))
        return tuple(int(text) for text in plain if text.isdigit())

    @property
    def kept(self) -> int | None:
        """Most input channels that forward attention keeps; None where it keeps all."""
        kept = next((buffer for buffer in self._buffers if buffer.ctype == "uint16_t"), None)
        return None if kept is None else kept.shape[0] - 1  # their number, then their indices

    def share(self, direction: str) -> float:
        """Of the channels, those that attention can keep at most, if it is among the arguments; "fw" or "bw"."""
        gamma = next((buffer for buffer in self._buffers if buffer.name.endswith(f"_gamma_{direction}")), None)
        if gamma is None:
            return 1.0
        channels = gamma.shape[0]
        return kept_channels_bound(channels, self._rho[direction]) / channels

    @property
    def types(self) -> tuple[str, ...]:
        """How rows are stored (pmeta_rows.h), in order: float32, float16 or int8."""
        constants = (argument for argument in self._call.arguments if isinstance(argument, str))
        return tuple(text.removeprefix("PMETA_").lower() for text in constants if text in _ROW_TYPES)

    @property
    def last_written(self) -> int:
        """Elements of the buffer that is written last."""
        return prod(self._call.written[-1].shape)

    @property
    def _buffers(self) -> Iterator[Buffer]:
        return (whole(argument) for argument in self._call.arguments if isinstance(argument, Buffer))


def _inside(shape: Mapping[str, int], axis: str) -> int:
    """Over all taps of one axis, how many outputs read inside the input."""
    outputs, inputs = shape[f"out_{axis}"], shape[f"in_{axis}"]
    stride, pad = shape[f"stride_{axis}"], shape["pad_top" if axis == "h" else "pad_left"]
    firsts = (tap * shape[f"dilation_{axis}"] - pad for tap in range(shape[f"kernel_{axis}"]))
    return sum(0 <= output * stride + first < inputs for first in firsts for output in range(outputs))


def _convolution(shape: Mapping[str, int], pairs: float) -> Work:
    """Of so many pairs of an input and an output channel: MACs, rows of outputs, taps."""
    rows = _inside(shape, "h")
    taps = shape["kernel_h"] * shape["kernel_w"]
    return {"mac": pairs * rows * _inside(shape, "w"), "row": pairs * rows * shape["kernel_w"], "tap": pairs * taps}


def _conv_forward(a: _Arguments) -> Work:
    shape = a.shape
    pairs = shape["filters"] * shape["channels"] // shape["groups"]
    return {**_convolution(shape, pairs), "output": shape["filters"] * shape["out_h"] * shape["out_w"]}


def _conv_forward_decoding(a: _Arguments) -> Work:
    """Row by row of the input, each decoded before."""
    shape = a.shape
    pairs = shape["filters"] * shape["channels"] // shape["groups"]
    work = _convolution(shape, pairs)
    return {
        "mac": work["mac"],
        "row": work["row"],
        "kernel row": pairs * shape["in_h"] * shape["kernel_h"],
        "input": shape["channels"] * shape["in_h"] * shape["in_w"],
        "output": shape["filters"] * shape["out_h"] * shape["out_w"],
    }


def _conv_weight_gradient(a: _Arguments) -> Work:
    shape = a.shape
    rows = shape["channels"] if a.kept is None else a.kept
    work = _convolution(shape, a.share("bw") * shape["filters"] * rows / shape["groups"])
    return {**work, **_read(a.types[0], rows * shape["in_h"] * shape["in_w"])}


def _conv_input_gradient(a: _Arguments) -> Work:
    shape = a.shape
    pairs = shape["filters"] * shape["channels"] // shape["groups"]
    return {**_convolution(shape, pairs), "input": shape["channels"] * shape["in_h"] * shape["in_w"]}


def _gemm(a: _Arguments) -> Work:
    shape = a.shape
    return {"mac": shape["channels"] * shape["features"], "output": shape["features"]}


def _gemm_weight_gradient(a: _Arguments) -> Work:
    shape = a.shape
    outputs = a.share("bw") * shape["features"]
    return {"mac": (shape["channels"] if a.kept is None else a.kept) * outputs, "output": outputs}


def _group_norm(a: _Arguments) -> Work:
    shape = a.shape
    return {"element": shape["channels"] * shape["size"], "channel": shape["channels"], "group": shape["groups"]}


def _group_norm_scale_gradient(a: _Arguments) -> Work:
    shape = a.shape
    rows = shape["channels"] if a.kept is None else a.kept
    channels = min(rows, a.share("fw") * shape["channels"], a.share("bw") * shape["channels"])
    return {"element": channels * shape["size"], "channel": channels, **_read(a.types[0], rows * shape["size"])}


def _pool(a: _Arguments) -> Work:
    shape = a.shape
    outputs = shape["channels"] * shape["out_h"] * shape["out_w"]
    taps = shape["channels"] * _inside(shape, "h") * _inside(shape, "w")
    return {
        "tap": taps,
        "tap row": outputs * shape["kernel_h"],
        "output": outputs,
        "input": shape["channels"] * shape["in_h"] * shape["in_w"],
    }


def _elements_of_shape(a: _Arguments) -> Work:
    return {"element": a.shape["count"]}


def _elements(position: int) -> Callable[[_Arguments], Work]:
    return lambda a: {"element": a.numbers[position]}


def _channels_and_size(a: _Arguments) -> Work:
    channels, size = a.numbers
    return {"element": channels * size, "channel": channels}


def _bias_gradient(a: _Arguments) -> Work:
    channels, size = a.numbers
    return {"element": a.share("bw") * channels * size, "channel": a.share("bw") * channels}


def _channel_means(a: _Arguments) -> Work:
    channels, size = a.numbers
    return {"element": channels * size, "channel": channels, **_read(a.types[0], channels * size)}


def _attention_output(a: _Arguments) -> Work:
    return {"mac": 2 * a.last_written**2, "channel": a.last_written}


def _attention_scores(a: _Arguments) -> Work:
    return {"channel": a.last_written, "pair": a.last_written**2}  # sorted by insertion


def _keep_rows(a: _Arguments) -> Work:
    (size,), rows = a.numbers, a.kept or 0
    return {"element": rows * size, "row": rows, **_read(a.types[0], rows * size), **_write(a.types[1], rows * size)}


def _keep_elements(a: _Arguments) -> Work:
    rows = a.kept or 0
    return {"element": rows, **_read(a.types[0], rows), **_write(a.types[1], rows)}


def _convert_rows(a: _Arguments) -> Work:
    rows, size = a.numbers
    return {"row": rows, **_read(a.types[0], rows * size), **_write(a.types[1], rows * size)}


def _decode_rows(a: _Arguments) -> Work:
    rows, size = a.numbers
    return {"row": rows, **_read(a.types[0], rows * size)}


def _round_rows(a: _Arguments) -> Work:
    rows, size = a.numbers
    return {"row": rows, **_write(a.types[0], rows * size)}


def _read(kept_as: str, elements: float) -> Work:
    """Elements that are decoded; float32 is read where it lies."""
    return {f"{name} read": elements if kept_as == name else 0 for name in ("float16", "int8")}


def _write(kept_as: str, elements: float) -> Work:
    return {f"{name} written": elements if kept_as == name else 0 for name in ("float32", "float16", "int8")}


_WORK: dict[str, Callable[[_Arguments], Work]] = {
    "memcpy": _elements(0),  # bytes
    "pmeta_add": _elements(0),
    "pmeta_concat_forward": _elements(1),
    "pmeta_concat_input_gradient": _elements(1),
    "pmeta_decode_uint8": _channels_and_size,
    "pmeta_conv_forward": _conv_forward,
    "pmeta_conv_forward_float16": _conv_forward_decoding,
    "pmeta_conv_forward_uint8": _conv_forward_decoding,
    "pmeta_conv_weight_gradient": _conv_weight_gradient,
    "pmeta_conv_input_gradient": _conv_input_gradient,
    "pmeta_gemm_forward": _gemm,
    "pmeta_gemm_weight_gradient": _gemm_weight_gradient,
    "pmeta_gemm_input_gradient": _gemm,
    "pmeta_group_norm_normalize": _group_norm,
    "pmeta_group_norm_affine": _group_norm,
    "pmeta_group_norm_scale_gradient": _group_norm_scale_gradient,
    "pmeta_group_norm_input_gradient": _group_norm,
    "pmeta_bias_gradient": _bias_gradient,
    "pmeta_channel_means": _channel_means,
    "pmeta_attention_output": _attention_output,
    "pmeta_attention_scores": _attention_scores,
    "pmeta_kept_channels": _elements(0),
    "pmeta_keep_elements": _keep_elements,
    "pmeta_keep_rows": _keep_rows,
    "pmeta_convert_rows": _convert_rows,
    "pmeta_decode_rows": _decode_rows,
    "pmeta_round_rows": _round_rows,
    "pmeta_relu_forward": _elements(0),
    "pmeta_relu_input_gradient": _elements(0),
    "pmeta_hard_swish_forward": _elements(0),
    "pmeta_hard_swish_input_gradient": _elements(0),
    "pmeta_leaky_relu_forward": _elements_of_shape,
    "pmeta_leaky_relu_input_gradient": _elements_of_shape,
    "pmeta_sigmoid_forward": _elements(0),
    "pmeta_sigmoid_input_gradient": _elements(0),
    "pmeta_tanh_forward": _elements(0),
    "pmeta_tanh_input_gradient": _elements(0),
    "pmeta_clip_forward": _elements_of_shape,
    "pmeta_clip_input_gradient": _elements_of_shape,
    "pmeta_average_pool_forward": _pool,
    "pmeta_average_pool_input_gradient": _pool,
    "pmeta_global_average_pool_forward": _channels_and_size,
    "pmeta_global_average_pool_input_gradient": _channels_and_size,
    "pmeta_max_pool_forward": _pool,
    "pmeta_max_pool_input_gradient": _pool,
    "pmeta_softmax_cross_entropy": _elements(0),
    "pmeta_mean_squared_error": _elements(0),
}
