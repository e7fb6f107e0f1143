"""What PyTorch's two exporters write: pmeta reads it, and computes what onnxruntime computes from the file.

The exporters say the same network in different words: the one of TorchScript (`dynamo=False`) traces it, the newer one
(`dynamo=True`) decomposes it; both write shapes that are computed where the number of samples is left open.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from pmeta.codegen.bring_your_own import OwnAdaptation, own_model  # noqa: E402
from pmeta.codegen.errors import UnsupportedError  # noqa: E402
from pmeta.codegen.graph import Graph  # noqa: E402
from pmeta.codegen.modelfile import load_network  # noqa: E402
from pmeta.host.simulator import Simulator  # noqa: E402

pytestmark = [
    pytest.mark.differential,
    pytest.mark.filterwarnings("ignore"),  # the exporters' own, about themselves
]

WAYS = 5
IMAGE = (1, 8, 8)
Exporter = Callable[[nn.Module, Sequence[int], bool], bytes]


# --- the exporters -------------------------------------------------------------------------------------------


def torchscript(network: nn.Module, shape: Sequence[int], dynamic: bool) -> bytes:
    file = io.BytesIO()
    axes = {"input": {0: "N"}} if dynamic else None
    options = {"dynamo": False, "opset_version": 20, "input_names": ["input"], "dynamic_axes": axes}
    torch.onnx.export(network, torch.randn(1, *shape), file, **options)
    return file.getvalue()


def dynamo(network: nn.Module, shape: Sequence[int], dynamic: bool) -> bytes:
    options = {"dynamic_shapes": ({0: torch.export.Dim("N")},)} if dynamic else {}
    sample = torch.randn(2 if dynamic else 1, *shape)  # one sample would be taken for a constant
    program = torch.onnx.export(network, (sample,), dynamo=True, verbose=False, **options)
    data: bytes = program.model_proto.SerializeToString()
    return data


both_exporters = pytest.mark.parametrize("export", [torchscript, dynamo], ids=lambda export: export.__name__)
any_batch = pytest.mark.parametrize("dynamic", [False, True], ids=["one sample", "any number"])


# --- networks ------------------------------------------------------------------------------------------------


class Function(nn.Module):
    """A network whose forward pass is written out."""

    def __init__(self, forward: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def blocks(norm: Callable[[int], nn.Module], channels: int = 8) -> nn.Module:
    """The paper's blocks, two of them."""
    layers: list[nn.Module] = []
    for filters in (1, channels):
        layers += [nn.Conv2d(filters, channels, 3, padding=1), norm(channels), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 4, WAYS))


def mobile() -> nn.Module:
    """Depthwise separable, as MobileNetV3."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()),
        *(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
        *(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, WAYS)),
    )


class Residual(nn.Module):
    """A block of ResNet that halves the map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.last = nn.Linear(16, WAYS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.second(self.first(x)) + self.shortcut(x))
        return self.last(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


def sensor() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(3, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(8, 8, 3), nn.GroupNorm(2, 8), nn.LeakyReLU(0.1)),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, WAYS)),
    )


def averages() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 4, 1), nn.Tanh()),
        *(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Hardtanh(-0.5, 0.6), nn.Flatten(), nn.Linear(36, WAYS)),
    )


def windows() -> nn.Module:
    return nn.Sequential(
        *(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(1, 4, 3, padding=1), nn.LeakyReLU()),
        *(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(4, 4, 4, padding="same")),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, WAYS)),
    )


def joined() -> nn.Module:
    def forward(x: Tensor, one: nn.Module, three: nn.Module, last: nn.Module) -> Tensor:
        return last(torch.cat([one(x).relu(), F.leaky_relu(three(x))], 1).clamp(max=1.0).flatten(1))

    return Function(forward, nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 3, padding=1), nn.Linear(5 * 64, WAYS))


def ending(of_maps: Callable[[Tensor], Tensor], features: int = 8) -> Callable[[], nn.Module]:
    """A network that ends with `of_maps`, from (N, 8, 6, 6) to vectors, and a fully connected layer."""

    def forward(x: Tensor, conv: nn.Module, last: nn.Module) -> Tensor:
        return last(of_maps(conv(x).relu()))

    return lambda: Function(forward, nn.Conv2d(1, 8, 3), nn.Linear(features, WAYS))


def beginning(shape_of_first: Callable[[Tensor], Tensor], first: nn.Module, features: int) -> Callable[[], nn.Module]:
    """A network that gives its input another shape first."""

    def forward(x: Tensor, conv: nn.Module, last: nn.Module) -> Tensor:
        return last(conv(shape_of_first(x)).relu().flatten(1))

    return lambda: Function(forward, first, nn.Linear(features, WAYS))


CONV, GAP = "Conv Relu", "GlobalAveragePool Flatten Gemm"
BLOCKS = "Conv GroupNorm Relu MaxPool " * 2 + "Flatten Gemm"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "GroupNorm": (lambda: blocks(lambda channels: nn.GroupNorm(4, channels)), IMAGE, BLOCKS),
    "GroupNorm, one group": (lambda: blocks(lambda channels: nn.GroupNorm(1, channels)), IMAGE, BLOCKS),
    "BatchNorm": (lambda: blocks(nn.BatchNorm2d), IMAGE, "Conv Relu MaxPool " * 2 + "Flatten Gemm"),
    "InstanceNorm": (lambda: blocks(lambda channels: nn.InstanceNorm2d(channels, affine=True)), IMAGE, BLOCKS),
    "LayerNorm": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.LayerNorm([4, 6, 6], elementwise_affine=False), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(144, WAYS)),
        ),
        IMAGE,
        "Conv GroupNorm Relu Flatten Gemm",
    ),
    "MobileNet": (mobile, IMAGE, "Conv HardSwish Conv Clip Conv GlobalAveragePool Flatten Gemm"),
    "ResNet": (Residual, IMAGE, "Conv Relu Conv Relu Conv Conv Add Relu GlobalAveragePool Flatten Gemm"),
    "sensor": (sensor, (3, 32), "Conv Relu MaxPool Conv GroupNorm LeakyRelu " + GAP),
    "MLP": (
        lambda: nn.Sequential(nn.Linear(20, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, WAYS)),
        (20,),
        "Gemm GroupNorm Relu Gemm",
    ),
    "averages": (averages, IMAGE, "Conv Sigmoid AveragePool Conv Tanh AveragePool Clip Flatten Gemm"),
    "windows": (windows, IMAGE, "Conv LeakyRelu MaxPool Conv MaxPool Flatten Gemm"),
    "branches": (joined, IMAGE, "Conv Relu Conv LeakyRelu Concat Clip Flatten Gemm"),
    "mean": (ending(lambda x: x.mean((2, 3))), IMAGE, f"{CONV} {GAP}"),
    "mean, kept": (ending(lambda x: x.mean([-1, -2], keepdim=True).flatten(1)), IMAGE, f"{CONV} {GAP}"),
    "squeeze": (ending(lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)), IMAGE, f"{CONV} {GAP}"),
    "view": (ending(lambda x: x.view(x.size(0), -1), 288), IMAGE, f"{CONV} Flatten Gemm"),
    "reshape": (ending(lambda x: x.reshape(-1, 288), 288), IMAGE, f"{CONV} Flatten Gemm"),
    "from images": (beginning(lambda x: x.unsqueeze(1), nn.Conv2d(1, 2, 3), 72), (8, 8), "Conv Relu Flatten Gemm"),
    "from rows": (beginning(lambda x: x.view(-1, 1, 8, 8), nn.Conv2d(1, 2, 3), 72), (64,), "Conv Relu Flatten Gemm"),
    "from series": (beginning(lambda x: x[:, None], nn.Conv1d(1, 2, 3), 36), (20,), "Conv Relu Flatten Gemm"),
}


def drawn(network: nn.Module) -> nn.Module:
    """Every weight and every statistic somewhere else than where PyTorch starts it, so that each matters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if tensor.is_floating_point():
                spread = torch.rand_like(tensor) if "running_var" in name else 0.4 * torch.randn_like(tensor)
                tensor.copy_(spread + (0.5 if tensor.ndim == 1 else 0.0))
    return network.eval()


# --- what is read --------------------------------------------------------------------------------------------


@any_batch
@both_exporters
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_exported_is_read(name: str, export: Exporter, dynamic: bool, tmp_path: Path) -> None:
    make, shape, kinds = NETWORKS[name]
    path = tmp_path / "network.onnx"
    path.write_bytes(export(drawn(make()), shape, dynamic))
    graph = load_network(path)
    assert " ".join(type(node).__name__ for node in graph.nodes) == kinds
    assert_runs_alike(graph, path, shape, samples=3 if dynamic else 1)


def assert_runs_alike(graph: Graph, path: Path, shape: Sequence[int], samples: int) -> None:
    """onnxruntime computes from the file what the simulator computes from the graph."""
    x = np.random.default_rng(1).normal(size=(samples, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path))
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    simulator = Simulator(own_model(graph, OwnAdaptation("all")))
    found = np.stack([simulator.predict(sample.reshape(graph.input_shape)) for sample in x])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_newer_opsets(tmp_path: Path) -> None:
    """From opset 21 on, the newer exporter writes a GroupNormalization as one."""
    path, network = tmp_path / "network.onnx", drawn(NETWORKS["GroupNorm"][0]())
    program = torch.onnx.export(network, (torch.randn(1, *IMAGE),), dynamo=True, verbose=False, opset_version=21)
    path.write_bytes(program.model_proto.SerializeToString())
    assert "GroupNormalization" in [node.op_type for node in program.model_proto.graph.node]
    assert_runs_alike(load_network(path), path, IMAGE, samples=1)


def test_what_is_not_optimized_is_read(tmp_path: Path) -> None:
    """Constants and shapes that are left to be computed."""
    path, network = tmp_path / "network.onnx", drawn(NETWORKS["GroupNorm"][0]())
    program = torch.onnx.export(network, (torch.randn(1, *IMAGE),), dynamo=True, verbose=False, optimize=False)
    path.write_bytes(program.model_proto.SerializeToString())
    assert {"Expand", "CastLike", "Range"} <= {node.op_type for node in program.model_proto.graph.node}
    assert_runs_alike(load_network(path), path, IMAGE, samples=1)


def test_weights_beside_the_file_are_refused(tmp_path: Path) -> None:
    """What the newer exporter does unless told otherwise; the message says what to tell it."""
    path, network = tmp_path / "network.onnx", drawn(nn.Linear(20, WAYS))
    torch.onnx.export(network, (torch.randn(1, 20),), path, dynamo=True, verbose=False)
    with pytest.raises(
        UnsupportedError, match=r"keeps weights in other files; save it as one file .*external_data=False"
    ):
        load_network(path)
    torch.onnx.export(network, (torch.randn(1, 20),), path, dynamo=True, verbose=False, external_data=False)
    assert_runs_alike(load_network(path), path, (20,), samples=1)


# --- what is not ---------------------------------------------------------------------------------------------


@both_exporters
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: nn.Sequential(nn.ConvTranspose2d(1, 4, 3), nn.Flatten(), nn.Linear(400, WAYS)), r"\(ConvTranspose\)"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, WAYS)),
            r"\(Mul\): it joins",
        ),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, WAYS), nn.LogSoftmax(1)), r"\(LogSoftmax\)"),
        (
            ending(lambda x: x.mean(1).flatten(1), 36),
            r"\(ReduceMean\): it reduces axes \[1\] of a sample of \(8, 6, 6\)",
        ),
        (ending(lambda x: x.view(-1, 4, 72).relu().flatten(1), 288), r"\(Reshape\): turns a sample of \(8, 6, 6\)"),
        (ending(lambda x: F.pad(x, (1,) * 4, mode="reflect").flatten(1), 512), r"\(Pad\): mode = reflect"),
    ],
    ids=["unknown", "a gate", "log-softmax", "mean over channels", "other shape", "reflection"],
)
def test_what_cannot_be_generated_is_refused(
    network: Callable[[], nn.Module], message: str, export: Exporter, tmp_path: Path
) -> None:
    """One line that names the node and its operator; of an operator that is not known, also those that are."""
    path = tmp_path / "network.onnx"
    path.write_bytes(export(drawn(network()), IMAGE, False))
    with pytest.raises(UnsupportedError, match=message) as caught:
        load_network(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith("node '")
    assert "the operator is not supported" not in text or "use only Add, AveragePool, BatchNormalization," in text
