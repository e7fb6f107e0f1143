"""The networks that a configuration can ask for: [network] has the name of one, and its options."""

from __future__ import annotations

import importlib
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pmeta.codegen import networks
from pmeta.codegen.bring_your_own import with_new_head
from pmeta.codegen.errors import ConfigError, UnsupportedError
from pmeta.codegen.graph import Graph, Shape
from pmeta.codegen.modelfile import load_graph
from pmeta.trainer.network_variants import Normalization, Pooling
from pmeta.trainer.settings import variant

if TYPE_CHECKING:
    from torch import nn

MOST_CHANNELS = 4096
MOST_BLOCKS = 16
Head = Literal["keep", "new"]


@dataclass(frozen=True)
class Architecture(ABC):
    """How to make a network. The fields of a subclass are its options; it checks their values when it is made."""

    name: ClassVar[str]

    normalization: Normalization = "group"  # "batch": of a micro-batch; for the trainer alone
    pooling: Pooling = "max"  # "average": in place of every max-pooling

    @abstractmethod
    def graph(self, input_shape: Shape, ways: int, rng: np.random.Generator) -> Graph:
        """The network for samples of `input_shape`, its weights drawn from `rng` or its own.

        Raises ConfigError, ModelError or UnsupportedError where it does not fit the data.
        """


@dataclass(frozen=True)
class FourConv(Architecture):
    """The paper's 4Conv: blocks of conv 3×3 → GroupNorm → ReLU → max-pool, and a linear layer."""

    name: ClassVar[str] = "4conv"

    width: int = 16  # channels of every convolution
    groups: int = 4  # of the group normalizations; divides width
    blocks: int = 4

    def __post_init__(self) -> None:
        _check_range("blocks", self.blocks, MOST_BLOCKS)
        _check_groups("width", (self.width,), self.groups)

    def graph(self, input_shape: Shape, ways: int, rng: np.random.Generator) -> Graph:
        return networks.four_conv(input_shape, ways, self.width, self.groups, rng, self.blocks)


@dataclass(frozen=True)
class ResNet12(Architecture):
    """Residual blocks of three convolutions beside a shortcut, then the mean over the map and a linear layer."""

    name: ClassVar[str] = "resnet12"

    channels: tuple[int, ...] = networks.RESNET12_CHANNELS  # of each block
    groups: int = 8

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= MOST_BLOCKS:
            raise ValueError(f"channels has {len(self.channels)} numbers, but must have 1 to {MOST_BLOCKS}")
        _check_groups("channels", self.channels, self.groups)

    def graph(self, input_shape: Shape, ways: int, rng: np.random.Generator) -> Graph:
        return networks.resnet12(input_shape, ways, self.channels, self.groups, rng)


@dataclass(frozen=True)
class Mlp(Architecture):
    """Linear layers with a ReLU between them; pictures and series are flattened before."""

    name: ClassVar[str] = "mlp"

    hidden: tuple[int, ...] = (100, 100)  # outputs of each layer but the last

    def __post_init__(self) -> None:
        for size in self.hidden:
            _check_range("hidden", size, MOST_CHANNELS)

    def graph(self, input_shape: Shape, ways: int, rng: np.random.Generator) -> Graph:
        return networks.mlp(as_row(input_shape), self.hidden, ways, rng)


@dataclass(frozen=True)
class Conv1d(Architecture):
    """For samples (C, L) of sensors: blocks of 1-D conv → GroupNorm → ReLU → max-pool, the mean, a linear layer."""

    name: ClassVar[str] = "conv1d"

    width: int = 32
    groups: int = 8
    blocks: int = 3
    kernel: int = 5  # moments

    def __post_init__(self) -> None:
        _check_range("blocks", self.blocks, MOST_BLOCKS)
        _check_range("kernel", self.kernel, MOST_CHANNELS)
        _check_groups("width", (self.width,), self.groups)

    def graph(self, input_shape: Shape, ways: int, rng: np.random.Generator) -> Graph:
        shape = as_row(input_shape)
        if len(shape) != 3 or shape[1] != 1:
            what = f"network.name is 'conv1d', but the samples have the shape {input_shape}"
            raise ConfigError(what, "configuration", "it is for samples (C, L); use another network")
        return networks.conv1d(shape, ways, self.width, self.groups, rng, self.blocks, self.kernel)


@dataclass(frozen=True)
class OnnxFile(Architecture):
    """A network that another program, or pmeta, has written; training begins with its weights."""

    name: ClassVar[str] = "onnx"

    path: Path | None = None
    head: Head = "keep"  # "new": another last layer, of zeros, for the classes of a task

    def __post_init__(self) -> None:
        if self.path is None:
            raise ValueError("path is missing: name an ONNX file")

    def graph(self, input_shape: Shape, ways: int, rng: np.random.Generator) -> Graph:
        assert self.path is not None
        return _fitted(load_graph(self.path), input_shape, ways, self.head, str(self.path))


@dataclass(frozen=True)
class Module(Architecture):
    """What a function of the user's own returns, a torch.nn.Module: `build(input_shape, ways)`.

    This imports and runs that code. The model that training writes has the network, not the code.
    """

    name: ClassVar[str] = "module"

    module: str = ""  # "package.module:build", found on the Python path
    head: Head = "keep"

    def __post_init__(self) -> None:
        place, colon, function = self.module.partition(":")
        if not colon or not all(part.isidentifier() for part in (*place.split("."), function)):
            raise ValueError(f'module is {self.module!r}, but must be written as "package.module:function"')

    def graph(self, input_shape: Shape, ways: int, rng: np.random.Generator) -> Graph:
        import torch

        from pmeta.trainer.tracing import trace

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            built = self._build(input_shape, ways)
            graph = trace(built, torch.zeros(1, *input_shape), self.module.replace(":", "."))
        return _fitted(graph, input_shape, ways, self.head, self.module)

    def _build(self, input_shape: Shape, ways: int) -> nn.Module:
        place, function = self.module.split(":")
        try:
            build = getattr(importlib.import_module(place), function)
        except (ImportError, AttributeError) as error:
            todo = f"put {place}.py on the Python path (PYTHONPATH), and a function {function} into it"
            raise ConfigError(f"'network.module' cannot be imported ({error})", "configuration", todo) from error
        except Exception as error:
            raise _users_error(error, f"{place}.py") from error
        try:
            built: nn.Module = build(input_shape, ways)
        except Exception as error:
            raise _users_error(error, self.module) from error
        return built


def _users_error(error: Exception, where: str) -> ConfigError:
    """What the code of 'network.module' raised, and on which line."""
    *_, last = traceback.extract_tb(error.__traceback__)
    what = f"raises {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
    return ConfigError(what, where, "correct it; it is called with (shape of a sample, ways)")


ARCHITECTURES: dict[str, type[Architecture]] = {
    cls.name: cls for cls in (FourConv, ResNet12, Mlp, Conv1d, OnnxFile, Module)
}


def architecture(options: Mapping[str, Any], where: str) -> Architecture:
    """The network that the table [network] describes. Raises ConfigError; where: the table's source."""
    made: Architecture = variant(ARCHITECTURES, FourConv.name, options, where, "network.")
    return made


def options_of(network: Architecture) -> dict[str, Any]:
    """What `architecture` makes `network` from, as plain JSON values."""
    plain: dict[str, Any] = {"name": network.name}
    for key, value in vars(network).items():
        plain[key] = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return plain


def as_row(shape: Shape) -> Shape:
    """(C, 1, L) for samples (C, L), which are maps of one row; others as they are."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def _fitted(graph: Graph, input_shape: Shape, ways: int, head: Head, where: str) -> Graph:
    """`graph` for tasks of so many classes; refused where it takes other samples or gives other outputs."""
    if head == "new":
        graph = with_new_head(graph, ways)
    if graph.input_shape not in (input_shape, as_row(input_shape)):
        what = f"takes samples of shape {graph.input_shape}, the data have {input_shape}"
        raise UnsupportedError(what, where, "use a network that is made for such samples")
    if graph.output_shape != (ways,):
        todo = 'let its last layer be linear, with so many outputs, or add head = "new"'
        raise UnsupportedError(f"gives outputs of shape {graph.output_shape}, a task has {ways} classes", where, todo)
    return graph


def _check_range(name: str, value: int, largest: int) -> None:
    if not 1 <= value <= largest:
        raise ValueError(f"{name} is {value}, but must be 1 to {largest:,}")


def _check_groups(name: str, channels: tuple[int, ...], groups: int) -> None:
    for width in channels:
        _check_range(name, width, MOST_CHANNELS)
        if groups < 1 or width % groups:
            raise ValueError(f"groups is {groups}, but must be a divisor of {name} = {width}")
