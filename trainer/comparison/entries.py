"""What is compared: configurations, each with its run directory, and models that are finished already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.modelfile import load_model
from pmeta.trainer.config import METHODS, Config, config_from_dict, load_config
from pmeta.trainer.datasets.base import Dataset
from pmeta.trainer.datasets.registry import dataset

CONFIGS = Path(__file__).parents[1] / "configs"
BASE = "base.toml"  # what the configurations of a folder share, none itself
MODEL_FILE = "model.onnx"  # in a run directory, when its training is finished
MODEL_SUFFIX = ".onnx"


@dataclass(frozen=True)
class Entry:
    """One model of the comparison."""

    name: str  # of its configuration: several entries of one name are trainings with other seeds
    model_path: Path  # where it is when it is finished
    data: Dataset  # what it was or will be trained on
    seed: int | None  # of its training; None: the record does not say
    config: Config | None = None  # None: finished elsewhere
    run_dir: Path | None = None  # of its training

    @property
    def title(self) -> str:
        """One line for people."""
        return self.name if self.run_dir is None or self.run_dir.name == Path(self.name).name else str(self.run_dir)


def entries_of(
    arguments: Sequence[Path], runs: Path, seeds: Sequence[int] = (), iterations: int | None = None
) -> tuple[Entry, ...]:
    """The entries that command line arguments name: configurations, folders of them, and finished models.

    runs: the folder of all run directories. seeds: train each configuration with each; none: with its own.
    iterations: instead of the configurations'. Raises PmetaError.
    """
    files = [file for argument in arguments for file in _files(argument)]
    entries = [entry for file in files for entry in _entries(file, runs, seeds, iterations)]
    by_path: dict[Path, Entry] = {}
    for entry in entries:
        if entry.model_path in by_path:
            what = f"'{entry.name}' is given twice"
            raise ConfigError(what, str(entry.model_path), "give each configuration once, and name them differently")
        by_path[entry.model_path] = entry
    return tuple(entries)


def checked_model(entry: Entry) -> Model:
    """The finished model of `entry`; raises ConfigError if it was trained with another configuration."""
    model = load_model(entry.model_path)
    if entry.config is None:
        return model
    try:
        trained = config_from_dict(model.adaptation.training.get("config", {}), str(entry.model_path))
        same = trained.as_dict() == entry.config.as_dict()
    except ConfigError:  # of another version
        same = False
    if not same:
        todo = "remove it to train again, choose another --runs, or compare the model itself"
        raise ConfigError(f"is not what '{entry.name}' says now", str(entry.model_path), todo)
    return model


def _files(argument: Path) -> Iterator[Path]:
    """Itself, the shipped configuration of that name, or the configurations of a folder in the order of METHODS."""
    shipped = CONFIGS / argument
    path = shipped if not argument.exists() and shipped.exists() else argument
    if not path.is_dir():
        yield path
        return
    found = sorted(file for file in path.glob("*.toml") if file.name != BASE)
    if not found:
        raise ConfigError("holds no configurations", str(argument), "name a folder with .toml files")
    order = list(METHODS)
    yield from sorted(found, key=lambda file: order.index(file.stem) if file.stem in order else len(order))


def _entries(file: Path, runs: Path, seeds: Sequence[int], iterations: int | None) -> Iterator[Entry]:
    if file.suffix == MODEL_SUFFIX:
        yield _finished(file)
        return
    config = load_config(file)
    name = _name(file)
    for seed in seeds or (config.training.seed,):
        training = replace(config.training, seed=seed, iterations=iterations or config.training.iterations)
        run_dir = runs / (name if seed == config.training.seed else f"{name}-seed-{seed}")
        changed = config_from_dict(replace(config, training=training).as_dict(), "command line")
        changed = replace(changed, data=config.data)  # with its path
        yield Entry(name, run_dir / MODEL_FILE, config.data, seed, changed, run_dir)


def _name(file: Path) -> str:
    """Below the shipped configurations or the working directory: its path there, else its own name; no suffix."""
    full = file.resolve()
    for folder in (CONFIGS.resolve(), Path.cwd().resolve()):
        if full.is_relative_to(folder):
            return full.relative_to(folder).with_suffix("").as_posix()
    return file.stem


def _finished(file: Path) -> Entry:
    record = load_model(file).adaptation.training
    config: Mapping[str, Any] = record.get("config", {})
    if not config:
        raise ConfigError("was not trained by pmeta-train", str(file), "compare models that were")
    data = dataset(config.get("data", {}), str(file))
    return Entry(file.stem if file.name != MODEL_FILE else file.parent.name, file, data, record.get("seed"))
