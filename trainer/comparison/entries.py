"""What is compared: configurations, each with its run directory, and models that are finished already."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.graph import Shape
from pmeta.codegen.modelfile import load_model
from pmeta.trainer.config import Config, config_from_dict, load_config, not_exportable
from pmeta.trainer.config_file import CONFIGS, config_path
from pmeta.trainer.datasets.base import Dataset
from pmeta.trainer.datasets.registry import dataset
from pmeta.trainer.methods import METHODS

BASE = "base.toml"  # what the configurations of a folder share, none itself
MODEL_FILE = "model"  # in a run directory, when its training is finished
MODEL_SUFFIX, PARAMETERS_SUFFIX = ".onnx", ".pt"  # the latter for what the device does not know


@dataclass(frozen=True)
class Entry:
    """One model of the comparison."""

    name: str  # of its configuration: several entries of one name are trainings with other seeds
    model_path: Path  # where it is when it is finished
    data: Dataset  # what it was or will be trained on
    seed: int | None  # of its training; None: the record does not say
    config: Config | None = None  # None: finished elsewhere
    run_dir: Path | None = None  # of its training
    settings: str = ""  # of a model finished elsewhere: all that its training had, but for the seed

    @property
    def title(self) -> str:
        """One line for people."""
        return self.name if self.run_dir is None or self.run_dir.name == Path(self.name).name else str(self.run_dir)


@dataclass(frozen=True)
class FinishedModel:
    """What the comparison needs to know of a trained model."""

    ways: int
    shots: int
    input_shape: Shape
    record: Mapping[str, Any]  # of its training
    model: Model | None  # None: it is for evaluation alone, and has no costs

    @property
    def method(self) -> str:
        """As in configurations."""
        return str(self.record.get("config", {}).get("method", {}).get("name", "unknown"))


def entries_of(
    arguments: Sequence[Path],
    runs: Path,
    seeds: Sequence[int] = (),
    iterations: int | None = None,
    path: Path | None = None,
) -> tuple[Entry, ...]:
    """The entries that command line arguments name: configurations, folders of them, and finished models.

    runs: the folder of all run directories. seeds: train each configuration with each; none: with its own.
    iterations: instead of the configurations'. path: of the data of finished models, which do not know where they
    are. Raises PmetaError.
    """
    files = [file for argument in arguments for file in _files(argument)]
    entries = [entry for file in files for entry in _entries(file, runs, seeds, iterations)]
    if path is not None:
        entries = _with_data_at(path, entries)
    by_path: dict[Path, Entry] = {}
    for entry in entries:
        place = entry.model_path.resolve()
        if place in by_path:
            what = f"'{entry.name}' is given twice"
            raise ConfigError(what, str(entry.model_path), "give each configuration once, and name them differently")
        by_path[place] = entry
    return _named_apart(entries)


def checked_model(entry: Entry) -> FinishedModel:
    """The finished model of `entry`; raises ConfigError if it was trained with another configuration."""
    model = _load(entry.model_path)
    if entry.config is None:
        return model
    try:
        trained = config_from_dict(model.record.get("config", {}), str(entry.model_path))
        same = trained.as_dict() == entry.config.as_dict()
    except ConfigError:  # of another version
        same = False
    if not same:
        todo = "remove it to train again, choose another --runs, or compare the model itself"
        raise ConfigError(f"is not what '{entry.name}' says now", str(entry.model_path), todo)
    return model


def _files(argument: Path) -> Iterator[Path]:
    """Itself, the shipped configuration of that name, or the configurations of a folder in the order of METHODS."""
    path = config_path(argument)
    if not path.is_dir():
        yield path
        return
    found = sorted(file for file in path.glob("*.toml") if file.name != BASE)
    if not found:
        raise ConfigError("holds no configurations", str(argument), "name a folder with .toml files")
    order = list(METHODS)
    yield from sorted(found, key=lambda file: order.index(file.stem) if file.stem in order else len(order))


def _entries(file: Path, runs: Path, seeds: Sequence[int], iterations: int | None) -> Iterator[Entry]:
    if file.suffix in (MODEL_SUFFIX, PARAMETERS_SUFFIX):
        yield _finished(file)
        return
    config = load_config(file)
    name = _name(file)
    for seed in seeds or (config.training.seed,):
        training = replace(config.training, seed=seed, iterations=iterations or config.training.iterations)
        run_dir = runs / (name if seed == config.training.seed else f"{name}-seed-{seed}")
        changed = config_from_dict(replace(config, training=training).as_dict(), "command line")
        changed = replace(changed, data=config.data)  # with its path
        suffix = PARAMETERS_SUFFIX if not_exportable(changed) else MODEL_SUFFIX
        yield Entry(name, run_dir / f"{MODEL_FILE}{suffix}", config.data, seed, changed, run_dir)


def _name(file: Path) -> str:
    """Below the shipped configurations or the working directory: its path there, else its own name; no suffix."""
    full = file.resolve()
    for folder in (CONFIGS.resolve(), Path.cwd().resolve()):
        if full.is_relative_to(folder):
            return full.relative_to(folder).with_suffix("").as_posix()
    return file.stem


def _finished(file: Path) -> Entry:
    record = _load(file).record
    config: Mapping[str, Any] = record.get("config", {})
    if not config:
        raise ConfigError("was not trained by pmeta-train", str(file), "compare models that were")
    data = dataset(config.get("data", {}), str(file))
    name = file.resolve().parent.name if file.stem == MODEL_FILE else file.stem
    return Entry(name, file, data, record.get("seed"), settings=_settings(record))


def _with_data_at(path: Path, entries: Sequence[Entry]) -> list[Entry]:
    """The data of finished models, which must be of one data set, is at `path`; configurations have their own."""
    names = sorted({entry.data.name for entry in entries if entry.config is None})
    if not names:
        raise ConfigError("no finished model is given", "--path", "write the path of a configuration into its [data]")
    if len(names) > 1:
        what = f"the finished models were trained on {' and '.join(names)}"
        raise ConfigError(what, "--path", "compare those of each data set by themselves")
    return [entry if entry.config else replace(entry, data=replace(entry.data, path=path)) for entry in entries]


def _settings(record: Mapping[str, Any]) -> str:
    """Of a training, but for its seed."""
    config = dict(record["config"])
    training = {key: value for key, value in config.get("training", {}).items() if key != "seed"}
    return json.dumps([config | {"training": training}, record.get("data_sha256")], sort_keys=True)


def _named_apart(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Models finished elsewhere share a name if they are trainings of one configuration with other seeds.

    A file's name says nothing: all methods may be called `model` in folders of their own.
    """
    alike: dict[tuple[str, int], list[Entry]] = {}  # of the same seed, one in each
    seen: Counter[tuple[str, int | None]] = Counter()
    for entry in entries:
        if entry.config is None:
            alike.setdefault((entry.settings, seen[entry.settings, entry.seed]), []).append(entry)
            seen[entry.settings, entry.seed] += 1
    used = Counter([entry.name for entry in entries if entry.config is not None] + [e[0].name for e in alike.values()])
    names: dict[Path, str] = {}
    for same in alike.values():
        first = same[0]
        name = first.name if used[first.name] == 1 else first.model_path.as_posix()
        names |= {entry.model_path: name for entry in same}
    return tuple(replace(entry, name=names.get(entry.model_path, entry.name)) for entry in entries)


def _load(file: Path) -> FinishedModel:
    if file.suffix == PARAMETERS_SUFFIX:
        import torch

        from pmeta.trainer.trained import load_trained

        trained = load_trained(file, torch.device("cpu"))
        return FinishedModel(trained.ways, trained.shots, trained.inner.graph.input_shape, trained.record, None)
    model = load_model(file)
    adaptation = model.adaptation
    return FinishedModel(adaptation.ways, adaptation.shots, model.graph.input_shape, adaptation.training, model)
