"""Modules as graphs: what is read computes the same, what cannot be read is refused in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pmeta.codegen.errors import PmetaError, UnsupportedError  # noqa: E402
from pmeta.trainer.networks import Network, weight_tensors  # noqa: E402
from pmeta.trainer.tracing import trace  # noqa: E402

pytestmark = pytest.mark.unit

WAYS = 5


class Function(nn.Module):
    """A network whose forward pass is written out."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **dict(self.named_children()))


def blocks() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 8, 3, padding="same"), nn.GroupNorm(2, 8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, stride=2, dilation=2, padding=2, groups=8), nn.Hardswish(), nn.AvgPool2d(3, 1, 1)),
        *(nn.Conv2d(8, 4, 1, bias=False), nn.ReLU6(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, WAYS)),
    )


def residual() -> nn.Module:
    def forward(x: Tensor, stem: nn.Module, conv: nn.Module, norm: nn.Module, last: nn.Module) -> Tensor:
        x = F.leaky_relu(stem(x), 0.1)
        y = norm(conv(x))
        x = y + x  # before the ReLU that works in place
        x = torch.cat([F.relu_(y), torch.tanh(x), x.sigmoid().clamp(max=0.6)], dim=-3)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return last(x.view(x.size(0), -1))

    return Function(
        forward,
        stem=nn.Conv2d(2, 6, 3, padding=1),
        conv=nn.Conv2d(6, 6, 3, padding=1),
        norm=nn.GroupNorm(1, 6),
        last=nn.Linear(18, WAYS),
    )


def sensor() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(3, 8, 5, padding=2), nn.GroupNorm(4, 8), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(8, 8, 3), nn.LeakyReLU(0.1), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        nn.Linear(8, WAYS),
    )


def means() -> nn.Module:
    return Function(lambda x, conv, last: last(conv(x).mean((2, 3))), conv=nn.Conv2d(1, 4, 3), last=nn.Linear(4, WAYS))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, WAYS, bias=False))


@pytest.mark.parametrize(
    ("build", "shape"),
    [(blocks, (2, 12, 12)), (residual, (2, 6, 6)), (sensor, (3, 20)), (means, (1, 6, 6)), (mlp, (7,))],
)
def test_a_traced_module_computes_what_the_module_computes(
    build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    module = build()
    graph = trace(module, torch.zeros(1, *shape))
    assert graph.output_shape == (WAYS,)
    x = torch.randn(4, *shape)
    logits = Network(graph).forward(weight_tensors(graph), x.reshape(4, *graph.input_shape))
    torch.testing.assert_close(logits, module.eval()(x), rtol=1e-5, atol=1e-6)


def test_layers_and_weights_are_called_as_the_modules_are() -> None:
    graph = trace(residual(), torch.zeros(1, 2, 6, 6), "mine")
    assert graph.name == "mine"
    assert [layer.name for layer in graph.layers] == ["stem", "conv", "norm", "last"]
    assert graph.layers[0].weight_names == ("stem.weight", "stem.bias")
    assert [layer.name for layer in trace(blocks(), torch.zeros(1, 2, 12, 12)).layers] == ["0", "1", "4", "7", "11"]


def test_a_block_that_is_used_twice_has_names_of_its_own() -> None:
    relu = nn.ReLU()
    network = nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 2, 3), relu, nn.Flatten(), nn.Linear(8, WAYS))
    names = [node.name for node in trace(network, torch.zeros(1, 1, 6, 6)).nodes]
    assert len(set(names)) == len(names) == 6


def test_the_module_stays_as_it_was() -> None:
    module = blocks().train()
    trace(module, torch.zeros(1, 2, 12, 12))
    assert module.training and module[9].training


def two_outputs(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


def depends_on_numbers(x: Tensor) -> Tensor:
    return 2 * x if x.sum() > 0 else x


SHARED = nn.Conv2d(1, 1, 3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)], "module '1': batch_norm is not supported; use GroupNorm"),
        ([nn.Softmax(1)], "module '0': softmax is not supported; leave it out"),
        ([nn.SiLU()], "module '0': silu is not supported; use Hardswish"),
        ([nn.GroupNorm(1, 1, affine=False)], "module '0': GroupNorm without scale and shift; use affine=True"),
        ([nn.AdaptiveAvgPool2d(2)], r"module '0': an output of \[2, 2\] is not supported; use pooling"),
        ([nn.ConvTranspose2d(1, 4, 3)], "module '0': conv_transpose2d is not supported; use Conv1d/2d"),
        ([nn.Linear(8, 3)], "module '0': it reads a map; put Flatten before it"),
        ([SHARED, SHARED], "'1.weight' is used twice; give each use a weight of its own"),
        ([Function(lambda x: x + 1)], "module '0': it adds a number"),
        ([Function(lambda x: x * x)], "module '0': mul is not supported"),
        ([Function(lambda x: F.avg_pool2d(x, 2, divisor_override=3))], "divisor_override is not supported"),
        ([Function(two_outputs)], "module 'network': has several outputs"),
        ([Function(depends_on_numbers)], "module 'network': cannot be traced"),
    ],
)
def test_what_cannot_be_traced(layers: list[nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        trace(nn.Sequential(*layers), torch.zeros(1, 1, 8, 8))
    assert "\n" not in str(caught.value)


def test_an_example_is_one_sample() -> None:
    with pytest.raises(ValueError, match="2 samples"):
        trace(mlp(), torch.zeros(2, 7))


def test_a_module_in_float64_is_refused() -> None:
    with pytest.raises(PmetaError, match="float64"):
        trace(mlp().double(), torch.zeros(1, 7, dtype=torch.float64))
