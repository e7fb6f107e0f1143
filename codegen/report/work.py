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


# Sums that a core with a floating-point unit holds in registers: pmeta_inline.h.
BLOCK, BLOCK_WIDTH, BLOCK_HEIGHT = 16, 8, 4

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


def _part(count: int, most: int) -> int:
    """pmeta_part of pmeta_inline.h: the size of equal parts of at most `most`."""
    return -(-count // -(-count // most))


def _blocks(sums: int, width: int) -> int:
    """Into how many blocks of sums in registers, `width` wide, a convolution divides that many rows of sums."""
    return -(-sums // _part(sums, min(BLOCK_HEIGHT, BLOCK // _part(width, BLOCK_WIDTH))))


def _convolution(shape: Mapping[str, int], sums: int, terms: int, width: int, stride: int) -> Work:
    """Of so many channels (or filters) summed over, and rows of sums, both of a group: MACs; kernel rows of blocks, and
    what these load."""
    rows = _inside(shape, "h")
    blocks = -(-width // BLOCK_WIDTH)
    block_rows = shape["groups"] * _blocks(sums, width) * blocks * terms * rows
    columns = _part(width, BLOCK_WIDTH) * stride + shape["kernel_w"]
    height = -(-sums // _blocks(sums, width))
    return {
        "mac": shape["groups"] * sums * terms * rows * _inside(shape, "w"),
        "block row": block_rows,
        "load": block_rows * (columns + height * shape["kernel_w"]),
    }


def _conv_forward(a: _Arguments) -> Work:
    shape = a.shape
    filters, channels = shape["filters"] // shape["groups"], shape["channels"] // shape["groups"]
    work = _convolution(shape, filters, channels, shape["out_w"], shape["stride_w"])
    return {**work, "output": shape["filters"] * shape["out_h"] * shape["out_w"]}


def _conv_input_gradient(a: _Arguments) -> Work:
    shape = a.shape
    filters, channels = shape["filters"] // shape["groups"], shape["channels"] // shape["groups"]
    work = _convolution(shape, channels, filters, -(-shape["in_w"] // shape["stride_w"]), 1)
    return {**work, "input": shape["channels"] * shape["in_h"] * shape["in_w"]}


def _conv_weight_gradient(a: _Arguments) -> Work:
    """Blocks of some filters, channels and the taps of a kernel row visit every output."""
    shape = a.shape
    kept = shape["channels"] if a.kept is None else a.kept
    rows, taps = _inside(shape, "h"), min(shape["kernel_w"], BLOCK_WIDTH)
    channels = min(
        shape["channels"] // shape["groups"], 1 if a.types[0] != "float32" or taps > 4 else 4 if taps == 1 else 2
    )
    filters = min(shape["filters"] // shape["groups"], BLOCK_HEIGHT, BLOCK // (taps * channels))
    pairs = a.share("bw") * shape["filters"] * kept / shape["groups"]
    visits = pairs / (filters * channels) * rows
    return {
        "mac": pairs * rows * _inside(shape, "w"),
        "block row": visits,
        "load": visits * shape["out_w"] * (filters + channels * (1 + taps / 4)),
        "tap": pairs * shape["kernel_h"] * shape["kernel_w"],
        **_read(a.types[0], kept * shape["in_h"] * shape["in_w"]),
    }


def _in_blocks(sums: int, terms: int, block: int) -> Work:
    """MACs of the sums that fill blocks, and of the others; blocks."""
    single = sums % block
    return {"mac": (sums - single) * terms, "single mac": single * terms, "block": sums // block + single}


def _gemm_forward(a: _Arguments) -> Work:
    return _in_blocks(a.shape["features"], a.shape["channels"], BLOCK_HEIGHT)


def _gemm_input_gradient(a: _Arguments) -> Work:
    return _in_blocks(a.shape["channels"], a.shape["features"], BLOCK_WIDTH)


def _gemm_weight_gradient(a: _Arguments) -> Work:
    shape = a.shape
    outputs = a.share("bw") * shape["features"]
    whole = a.kept is None and a.share("bw") == 1.0
    macs = (shape["channels"] if a.kept is None else a.kept) * outputs
    return {"mac": macs if whole else 0, "chosen mac": 0 if whole else macs, "output": outputs}


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


def _max_pool(a: _Arguments) -> Work:
    """Windows that reach beyond the input are looked at tap by tap."""
    shape = a.shape
    outputs = shape["channels"] * shape["out_h"] * shape["out_w"]
    taps = outputs * shape["kernel_h"] * shape["kernel_w"]
    reach = {axis: (shape[f"out_{axis}"] - 1) * shape[f"stride_{axis}"] + 1 for axis in "hw"}
    ends = {axis: reach[axis] + (shape[f"kernel_{axis}"] - 1) * shape[f"dilation_{axis}"] for axis in "hw"}
    inside = not (shape["pad_top"] or shape["pad_left"]) and all(ends[axis] <= shape[f"in_{axis}"] for axis in "hw")
    tiles = inside and all(
        shape[f"stride_{axis}"] == shape[f"kernel_{axis}"] and shape[f"dilation_{axis}"] == 1 for axis in "hw"
    )
    inputs = shape["channels"] * shape["in_h"] * shape["in_w"]
    return {
        "tap": taps if inside else 0,
        "checked tap": 0 if inside else taps,
        "output": outputs if tiles else 0,
        "scattered output": 0 if tiles else outputs,
        "cleared input": 0 if tiles else inputs,
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
    "pmeta_conv_forward_float16": _conv_forward,
    "pmeta_conv_forward_uint8": _conv_forward,
    "pmeta_conv_weight_gradient": _conv_weight_gradient,
    "pmeta_conv_input_gradient": _conv_input_gradient,
    "pmeta_gemm_forward": _gemm_forward,
    "pmeta_gemm_weight_gradient": _gemm_weight_gradient,
    "pmeta_gemm_input_gradient": _gemm_input_gradient,
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
    "pmeta_max_pool_forward": _max_pool,
    "pmeta_max_pool_input_gradient": _max_pool,
    "pmeta_softmax_cross_entropy": _elements(0),
    "pmeta_mean_squared_error": _elements(0),
}
