"""The Cortex-M55 with Helium and without, emulated ≡ simulator in that variant, by bytes, down to subnormal numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.adaptation import InputEncoding
from pmeta.codegen.boards import MPS3_AN547, MPS3_AN547_HELIUM, Board
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.modelfile import load_model, save_model
from pmeta.codegen.numerics import HELIUM, STRICT, Numerics
from pmeta.codegen.operators import Conv, Window
from pmeta.codegen.project.generate import generate, write_project
from pmeta.codegen.storage import StoredType
from pmeta.codegen.taskfile import Task
from pmeta.host.link.device import Device
from pmeta.host.link.protocol import Client, Timeouts
from pmeta.host.link.transports import BAUD_RATE, connector
from pmeta.host.project import Project, open_project
from pmeta.host.simulator.arithmetic import canonical_bytes
from pmeta.host.simulator.operators.conv import ConvOperator, HeliumConvOperator
from pmeta.host.simulator.operators.operator import Gamma
from pmeta.host.simulator.sample_pass import decode
from pmeta.host.simulator.simulator import Simulator
from pmeta.host.simulator.storage import to_float16
from pmeta.host.verify import Difference, verify
from tests.differential.operators.comparison import (
    ROW_TYPES,
    as_stored,
    gamma,
    kept_rows,
    stored_rows,
    values,
)
from tests.emulated_kernels import EmulatedCall, run_calls
from tests.kernels import Argument, Fenced, in_place, unwritten
from tests.models import faint, random_samples

pytestmark = [pytest.mark.emulated, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

FLAVOURS = ("ordinary", "tiny", "special", "faint")
LAYERS = {MPS3_AN547_HELIUM: 16, MPS3_AN547: 8}
STORED: tuple[StoredType, ...] = ("float32", "float16", "int8")
OPERATORS: Mapping[Numerics, ConvOperator] = {STRICT: ConvOperator(), HELIUM: HeliumConvOperator()}
Results = Mapping[Numerics, Float32Array]  # by variant


@dataclass(frozen=True)
class Case:
    """One pass of one layer: the call, where its result will be, and what the simulator says."""

    call: EmulatedCall
    computed: Fenced
    expected: Results


def random_window(rng: np.random.Generator) -> tuple[Window, tuple[int, int]]:
    """(a window, an input size that it fits); widths up to 30, wider than several blocks."""
    axes, sizes = [], []
    for longest in (8, 30):
        kernel, stride, dilation = rng.integers(1, 8), rng.integers(1, 4), rng.integers(1, 3)
        before, after = rng.integers(0, kernel + 1, 2)
        smallest = max(1, dilation * (kernel - 1) + 1 - before - after)
        sizes.append(int(rng.integers(smallest, max(smallest, longest) + 1)))
        axes.append(tuple(map(int, (kernel, stride, dilation, before, after))))
    return Window(*zip(*axes, strict=True)), (sizes[0], sizes[1])


def random_layer(rng: np.random.Generator) -> tuple[Conv, tuple[int, int, int]]:
    """(a convolution, the shape of its input), half of them with several groups."""
    window, size = random_window(rng)
    groups = int(rng.choice([1, 1, 1, 2, 3, 5]))
    channels, filters = (int(rng.integers(1, 10 if groups == 1 else 4)) * groups for _ in range(2))
    return Conv("conv", "x", "y", "weight", "bias", filters, window, groups), (channels, *size)


def numbers(rng: np.random.Generator, flavour: str, *shape: int, of_products: bool = False) -> Float32Array:
    """Of the kinds of all operators' tests, or "faint": products are about as small as normal numbers can be.

    of_products: what products are added to; some of it is subnormal then.
    """
    if flavour != "faint":
        return values(rng, *shape, flavour=flavour)
    exponent = -126 if of_products else -63
    return (rng.normal(size=shape) * 2.0 ** rng.integers(exponent - 3, exponent + 3, shape)).astype(np.float32)


def cases_of(rng: np.random.Generator, flavour: str) -> list[Case]:
    """All passes of a random layer."""
    layer, shape = random_layer(rng)
    x = numbers(rng, flavour, *shape)
    w = numbers(rng, flavour, layer.filters, shape[0] // layer.groups, *layer.window.kernel)
    b = numbers(rng, flavour, layer.filters, of_products=True) if rng.random() < 0.7 else None
    gy = numbers(rng, flavour, *layer.output_shape(shape))
    start = np.float32(0) + numbers(rng, flavour, *w.shape, of_products=True)
    constants = layer.shape_constants(shape)
    return [
        forward(layer, "pmeta_conv_forward", (constants, x), x, w, b),
        decoding_forward(rng, layer, x, w, b),
        input_gradient(layer, shape, w, gy),
        weight_gradient(rng, layer, x, gy, start),
    ]


def forward(
    layer: Conv, function: str, read: tuple[Argument, ...], x: Float32Array, w: Float32Array, b: Float32Array | None
) -> Case:
    """`read` is how the kernel gets x."""
    y = unwritten(*layer.output_shape(x.shape))
    weights = {"weight": w, "bias": np.zeros(layer.filters, np.float32) if b is None else b}
    expected = {variant: operator.forward(layer, weights, x)[0] for variant, operator in OPERATORS.items()}
    return Case(EmulatedCall(function, (*read, w, b, y)), y, expected)


def decoding_forward(
    rng: np.random.Generator, layer: Conv, x: Float32Array, w: Float32Array, b: Float32Array | None
) -> Case:
    constants = layer.shape_constants(x.shape)
    if rng.random() < 0.5:
        rounded = to_float16(x)
        read = (constants, stored_rows(rounded, "float16"))
        return forward(layer, "pmeta_conv_forward_float16", read, rounded, w, b)
    scale, offset = values(rng, x.shape[0]), values(rng, x.shape[0])
    sample = rng.integers(0, 256, x.shape, np.uint8)
    decoded = decode(sample, InputEncoding("uint8", tuple(map(float, scale)), tuple(map(float, offset))))
    return forward(layer, "pmeta_conv_forward_uint8", (constants, sample, scale, offset), decoded, w, b)


def input_gradient(layer: Conv, shape: tuple[int, ...], w: Float32Array, gy: Float32Array) -> Case:
    gx, x = unwritten(*shape), np.zeros(shape, np.float32)
    call = EmulatedCall("pmeta_conv_input_gradient", (layer.shape_constants(shape), 1, w, gy, gx))
    expected = {name: operator.input_gradient(layer, {"weight": w}, x, gy) for name, operator in OPERATORS.items()}
    return Case(call, gx, expected)


def weight_gradient(
    rng: np.random.Generator, layer: Conv, x: Float32Array, gy: Float32Array, start: Float32Array
) -> Case:
    """Of rows as they are stored, with or without attention."""
    kept_as, pixels = STORED[rng.integers(3)], x[0].size
    fw, bw = gamma(rng, x.shape[0]), gamma(rng, layer.filters)
    kept, stored = (None, x) if fw is None else kept_rows(x, fw, weigh=True)
    rows = stored_rows(stored.reshape(-1, pixels), kept_as)
    decoded, grad = None if kept_as == "float32" else unwritten(pixels), in_place(start)
    arguments = (layer.shape_constants(x.shape), kept, ROW_TYPES[kept_as], rows, decoded, gy, bw, grad)
    seen = OPERATORS[STRICT].kept_for_weights(x, functools.partial(as_stored, kept_as), fw, of_sample=False)
    added = {name: op.contribution(layer, seen, gy, Gamma(fw, bw), "weight") for name, op in OPERATORS.items()}
    expected = {name: contribution.added_to(start) for name, contribution in added.items()}
    return Case(EmulatedCall("pmeta_conv_weight_gradient", arguments), grad, expected)


@pytest.mark.parametrize("board", [MPS3_AN547_HELIUM, MPS3_AN547], ids=lambda board: board.name)
def test_convolutions(board: Board, tmp_path: Path) -> None:
    """On the same core with Helium and without."""
    rng = np.random.default_rng(5)
    cases = [
        (flavour, case)
        for index in range(LAYERS[board])
        for flavour in FLAVOURS[index % 4 :][:1]
        for case in cases_of(rng, flavour)
    ]
    run_calls(board, [case.call for _, case in cases], tmp_path)
    differing = set()
    for flavour, case in cases:
        what = f"{flavour} {case.call.function} {case.call.arguments[0]}"
        assert canonical_bytes(case.computed.array) == canonical_bytes(case.expected[board.numerics]), what
        if canonical_bytes(case.expected[STRICT]) != canonical_bytes(case.expected[HELIUM]):
            differing.add((flavour, case.call.function))
    # So each pass would fail with the other variant.
    assert {function for flavour, function in differing if flavour == "faint"} >= {
        *("pmeta_conv_forward", "pmeta_conv_input_gradient", "pmeta_conv_weight_gradient"),
    }


def test_one_project_for_both(platformio, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each board has the golden vectors of its variant; the host learns from the device which one to simulate."""
    model, folder = faint(12), tmp_path / "project"
    boards = (MPS3_AN547, MPS3_AN547_HELIUM)
    save_model(model, tmp_path / "model.onnx")
    write_project(generate(tmp_path / "model.onnx", [board.name for board in boards]), folder)
    project = open_project(folder)
    for board, other in zip(boards, reversed(boards), strict=True):
        tested = platformio(folder, "test", "-e", board.name)
        assert tested.returncode == 0, tested.stdout
        platformio(folder, "run", "-e", board.name, "-t", "upload")
        try:
            assert first_difference(project, board, board.numerics) is None
            assert first_difference(project, board, other.numerics) is not None
        finally:
            platformio(folder, "run", "-e", board.name, "-t", "stop")


def first_difference(project: Project, board: Board, numerics: Numerics) -> Difference | None:
    """Of an adaptation on the running board from the simulator's in a variant."""
    model, port = load_model(project.model_path), project.port(board.name)
    x, y = random_samples(model, 1, 3)
    task = Task(x, y.astype(np.uint8), x, y.astype(np.uint8), tuple("abc"), "task")
    with Device(Client(connector(port, BAUD_RATE), port, Timeouts())) as device:
        assert device.handshake(project.manifest).numerics == board.numerics
        checked = list(verify(device, project.manifest, task, Simulator(model, numerics), full=True))
    return checked[-1].difference
