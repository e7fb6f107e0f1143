"""All data sets by name, and a data set from its name and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pmeta.trainer.datasets.animal_mnist import AnimalMnist
from pmeta.trainer.datasets.base import Dataset
from pmeta.trainer.datasets.cub import Cub
from pmeta.trainer.datasets.emoji import Emoji
from pmeta.trainer.datasets.fashion_mnist import FashionMnist
from pmeta.trainer.datasets.folder import Folder
from pmeta.trainer.datasets.icons import Icons
from pmeta.trainer.datasets.mini_imagenet import MiniImageNet
from pmeta.trainer.datasets.npz import Npz
from pmeta.trainer.datasets.omniglot import Omniglot
from pmeta.trainer.datasets.smartwatch import Smartwatch
from pmeta.trainer.datasets.tiered_imagenet import TieredImageNet
from pmeta.trainer.settings import variant

_CLASSES: tuple[type[Dataset], ...] = (
    Icons,
    Emoji,
    Omniglot,
    MiniImageNet,
    TieredImageNet,
    Cub,
    FashionMnist,
    AnimalMnist,
    Folder,
    Npz,
    Smartwatch,
)
DATASETS: dict[str, type[Dataset]] = {cls.name: cls for cls in _CLASSES}


def dataset(options: Mapping[str, Any], where: str, prefix: str = "data.") -> Dataset:
    """The data set that `options` describes: its `name`, and values for its fields. Raises ConfigError.

    where: the source of the options, for errors. prefix: of their dotted names there.
    """
    made: Dataset = variant(DATASETS, Icons.name, options, where, prefix)
    return made


def options_of(data: Dataset) -> dict[str, Any]:
    """What `dataset` makes `data` from, but for its place, which is another on every machine."""
    plain = {"name": data.name} | vars(data)
    del plain["path"]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
