"""Training configurations: frozen dataclasses, made from tables whose every key is checked.

A key that does not exist, has the wrong type or an impossible value is a ConfigError that names the file and the
key. What the method leaves open is filled in from `METHODS`, so the resolved configuration, the one that is stored
with checkpoints and models, says everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pmeta.codegen.adaptation import MAX_STEPS
from pmeta.codegen.errors import ConfigError
from pmeta.trainer import architectures
from pmeta.trainer.architectures import Architecture, FourConv
from pmeta.trainer.config_file import merged, read_chain
from pmeta.trainer.datasets import registry
from pmeta.trainer.datasets.base import Dataset
from pmeta.trainer.datasets.icons import Icons
from pmeta.trainer.methods import METHODS, MethodConfig, resolved
from pmeta.trainer.settings import nearest, section

# Far above what is of use; a slip of the keyboard must not ask for all memory there is.
LARGEST = {
    "task.shots": 10_000,
    "task.queries": 10_000,
    "method.steps": MAX_STEPS,
    "training.iterations": 10**9,
    "training.tasks_per_batch": 1000,
    "training.validate_every": 10**9,
    "training.validation_tasks": 10_000,
    "training.checkpoint_every": 10**9,
    "training.multi_step_iterations": 10**9,
    "training.first_order_iterations": 10**9,
    "augmentation.shift": 1000,
    "device.sample_batch": 1_000_000,
}
MAY_BE_ZERO = ("training.multi_step_iterations", "training.first_order_iterations", "augmentation.shift")


@dataclass(frozen=True)
class TaskConfig:
    """One few-shot task."""

    ways: int = 5  # classes per task
    shots: int = 5  # support samples per class
    queries: int = 15  # query samples per class
    same_family: float = 0.0  # share of training tasks whose classes are all alike: of one alphabet of Omniglot


@dataclass(frozen=True)
class TrainingConfig:
    """The outer loop."""

    seed: int = 1
    iterations: int = 3000
    tasks_per_batch: int = 4
    learning_rate: float = 1e-3  # Adam; falls to `final_learning_rate` along a cosine
    final_learning_rate: float = 1e-5
    alpha_learning_rate: float | None = None  # of the step sizes; None: learning_rate
    weight_decay: float = 0.0  # of the network's weights and attention, beside Adam's step (AdamW)
    clip_norm: float = 10.0  # largest norm of the meta-gradient of the query loss; 0: no limit
    multi_step_iterations: int = 0  # iterations during which the losses after all steps count (MAML++)
    first_order_iterations: int = 0  # first-order iterations at the start (MAML++'s derivative-order annealing)
    validate_every: int = 250
    validation_tasks: int = 100
    checkpoint_every: int = 250
    batching: Literal["auto", "vmap", "loop"] = "auto"  # all tasks at once or one by one; auto: vmap on a GPU
    convolution: str = "auto"  # direct, matmul; auto: direct on a CPU, matmul on a GPU
    precision: Literal["float32", "tf32"] = "float32"  # of the operands of products in the outer step, on a GPU
    compile: bool = False  # a task's loss, inner loop and all, with torch.compile; tasks one by one
    cuda_graph: bool = True  # on a CUDA GPU: replay each iteration as one graph


@dataclass(frozen=True)
class AugmentationConfig:
    """Of training tasks only; the same transformation for support and query of a class, shifts per sample."""

    shift: int = 0  # largest shift in pixels, each axis; edges are repeated
    angle: float = 0.0  # largest turn of a sample, degrees
    zoom: float = 0.0  # largest change of a sample's size: 0.1 is from 0.9 to 1.1, each axis
    shear: float = 0.0  # largest slant of a sample: 0.1 moves a row by a tenth of its distance from the middle
    bend: float = 0.0  # elastic: largest displacement of a lattice's points, pixels; a little more between them
    rotate_classes: bool = False  # a class turned by 90, 180 or 270 degrees is a new class
    flip_classes: bool = False  # a mirrored class is a new class
    class_angle: float = 0.0  # a class turned, resized and slanted as a whole by up to so much is a new class
    class_zoom: float = 0.0
    class_shear: float = 0.0
    class_bend: float = 0.0
    negate_channels: bool = False  # a class with the signs of some channels changed is a new class (255 − u)


@dataclass(frozen=True)
class InputConfig:
    """uint8 samples u become x = u·scale + offset, float32; one number for all channels or one for each.

    Empty: what brings the training samples to mean 0 and deviation 1, channel by channel.
    """

    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()


@dataclass(frozen=True)
class DeviceConfig:
    """What validation, evaluation and the exported model assume of the device."""

    sample_batch: int = 1  # samples per micro-batch


@dataclass(frozen=True)
class Config:
    """A whole training configuration; `load_config` reads and resolves it."""

    data: Dataset = field(default_factory=Icons)
    task: TaskConfig = field(default_factory=TaskConfig)
    network: Architecture = field(default_factory=FourConv)
    method: MethodConfig = field(default_factory=MethodConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    input: InputConfig = field(default_factory=InputConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; `config_from_dict` reads it back."""
        plain = asdict(self)
        plain["data"] = registry.options_of(self.data)
        plain["network"] = architectures.options_of(self.network)
        plain["input"] = {key: list(value) for key, value in plain["input"].items()}
        plain["method"]["frozen_layers"] = list(self.method.frozen_layers)
        return plain


def not_exportable(config: Config) -> str:
    """What the trainer can do and the device cannot, the ablations of Tables 5 and 7; empty where there is nothing."""
    if config.method.sparsify != "gradient":
        return f"'method.sparsify' is '{config.method.sparsify}'"
    if config.network.normalization != "group":
        return f"'network.normalization' is '{config.network.normalization}'"
    return ""


def load_config(path: Path) -> Config:
    """Read, check and resolve a TOML configuration, and those that it extends; raises ConfigError."""
    table: dict[str, Any] = {}
    for part, own in read_chain(path):
        table = merged(table, own)
        config = config_from_dict(table, str(part))  # a mistake is reported for the file that it is in
    return config


def config_from_dict(table: Mapping[str, Any], where: str) -> Config:
    """Check and resolve a configuration given as nested dicts; `where` names its source in errors."""
    variants: Mapping[str, Callable[[Mapping[str, Any], str], object]] = {
        "data": registry.dataset,
        "network": architectures.architecture,
    }
    rest = {key: value for key, value in table.items() if key not in variants}
    config: Config = section(Config, rest, where, "")
    for key, make in variants.items():
        options = table.get(key, {})
        if not isinstance(options, Mapping):
            raise ConfigError(f"'{key}' must be a table", where, f"write it as [{key}]")
        made: Any = make(options, where)
        config = replace(config, **{key: made})
    if config.method.name not in METHODS:
        what = f"unknown method.name '{config.method.name}'"
        raise ConfigError(what, where, nearest(config.method.name, sorted(METHODS), ""))
    config = replace(config, method=resolved(config.method))
    _check(config, where)
    return config


def _check(config: Config, where: str) -> None:
    """Refuse impossible values, naming the key."""

    def require(key: str, holds: bool, rule: str) -> None:
        if not holds:
            section, name = key.split(".")
            value = getattr(getattr(config, section), name)
            raise ConfigError(f"'{key}' is {value!r}, but must be {rule}", where, "correct it")

    for key, largest in LARGEST.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        lowest = 0 if key in MAY_BE_ZERO else 1
        require(key, lowest <= value <= largest, f"{lowest} to {largest:,}")
    require("task.ways", 2 <= config.task.ways <= 256, "2 to 256")
    require("task.same_family", 0 <= config.task.same_family <= 1, "0 to 1")
    for key in ("method.rho_fw", "method.rho_bw"):
        require(key, 0 <= getattr(config.method, key[7:]) <= 999, "0 to 999 thousandths")
    require("method.alpha", 0 <= config.method.alpha <= 3e38, "0 to 3e38, as a float32")
    require("method.penalty", 0 <= (config.method.penalty or 0) < float("inf"), "zero or positive")
    require("method.penalty", bool(config.method.learn_alpha) or not config.method.penalty,
            "0 where method.learn_alpha is false")  # fmt: skip
    require("method.attention", config.method.layers != "last" or config.method.attention == "none",
            "none where only the last layer learns")  # fmt: skip
    require("training.seed", 0 <= config.training.seed < 2**63, "0 to 2^63 - 1")
    training = config.training
    require("training.learning_rate", 0 < training.learning_rate < float("inf"), "positive")
    require("training.final_learning_rate", 0 <= training.final_learning_rate <= training.learning_rate,
            "between 0 and training.learning_rate")  # fmt: skip
    require("training.alpha_learning_rate", training.alpha_learning_rate is None
            or 0 < training.alpha_learning_rate < float("inf"), "positive")  # fmt: skip
    require("training.weight_decay", 0 <= training.weight_decay * training.learning_rate < 1, "zero or positive")
    require("training.clip_norm", training.clip_norm >= 0, "zero or positive")
    require("training.batching", not (training.compile and training.batching == "vmap"), "loop with training.compile")
    require("training.convolution", training.convolution in ("auto", "direct", "matmul"), "auto, direct or matmul")
    for whose in ("", "class_"):
        angle, zoom, shear, bend = (getattr(config.augmentation, whose + w) for w in ("angle", "zoom", "shear", "bend"))
        require(f"augmentation.{whose}angle", 0 <= angle <= 180, "0 to 180 degrees")
        require(f"augmentation.{whose}zoom", 0 <= zoom <= 0.9, "0 to 0.9")
        require(f"augmentation.{whose}shear", 0 <= shear <= 1, "0 to 1")
        require(f"augmentation.{whose}bend", 0 <= bend <= 1000, "0 to 1,000 pixels")
    require("input.scale", all(1e-6 <= abs(scale) <= 1e6 for scale in config.input.scale), "1e-6 to 1e6 in size")
    require("input.offset", all(abs(offset) <= 1e6 for offset in config.input.offset), "at most 1e6 in size")
    require("input.offset", len(config.input.offset) == len(config.input.scale), "as many numbers as 'input.scale'")
