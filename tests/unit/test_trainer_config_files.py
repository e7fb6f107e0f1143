"""Configurations that extend others, and the shipped ones: each loads, says everything, and trains."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pmeta.codegen.errors import ConfigError
from pmeta.codegen.modelfile import load_model
from pmeta.trainer.config import Config, config_from_dict, load_config
from pmeta.trainer.config_file import CONFIGS, MOST_FILES, config_path, merged

pytestmark = pytest.mark.unit

SHIPPED = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.toml"))


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)


# --- extends -------------------------------------------------------------------------------------------------


def test_a_file_says_what_differs(tmp_path: Path) -> None:
    write(
        tmp_path,
        base="[task]\nways = 7\nshots = 2\n[method]\nname = 'maml'\nalpha = 0.3",
        middle="extends = 'base.toml'\n[task]\nshots = 3",
        mine="extends = 'middle.toml'\n[method]\nname = 'anil'\n[training]\nseed = 5",
    )
    config = load_config(tmp_path / "mine.toml")
    assert (config.task.ways, config.task.shots, config.training.seed) == (7, 3, 5)
    assert (config.method.name, config.method.alpha, config.method.layers) == ("anil", 0.3, "last")
    assert "extends" not in json.dumps(config.as_dict())


def test_the_file_beside_comes_before_the_shipped_one(tmp_path: Path) -> None:
    write(tmp_path, mine="extends = 'icons-quick.toml'")
    assert load_config(tmp_path / "mine.toml") == load_config(CONFIGS / "icons-quick.toml")
    write(tmp_path, **{"icons-quick": "[task]\nways = 9"})
    assert load_config(tmp_path / "mine.toml").task.ways == 9


def test_folders(tmp_path: Path) -> None:
    """A path is relative to the file that names it, not to where the command runs."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "base.toml").write_text("extends = 'a/other.toml'")
    (tmp_path / "a" / "other.toml").write_text("[task]\nways = 8")
    (tmp_path / "a" / "b" / "mine.toml").write_text("extends = '../../base.toml'")
    assert load_config(tmp_path / "a" / "b" / "mine.toml").task.ways == 8


@pytest.mark.parametrize("table", ["data", "network"])
def test_another_name_starts_anew(table: str) -> None:
    base = {table: {"name": "a", "width": 3, "path": "/x"}, "task": {"ways": 4}}
    assert merged(base, {table: {"name": "b", "size": 1}}) == {table: {"name": "b", "size": 1}, "task": {"ways": 4}}
    assert merged(base, {table: {"width": 5}})[table] == {"name": "a", "width": 5, "path": "/x"}
    assert merged(base, {table: {"name": "a", "width": 5}})[table] == {"name": "a", "width": 5, "path": "/x"}


@pytest.mark.parametrize(
    ("files", "where", "words"),
    [
        ({"mine": "extends = 'mine.toml'"}, "mine", "extends itself"),
        ({"mine": "extends = 'a.toml'", "a": "extends = 'mine.toml'"}, "mine", "extends itself"),
        ({"mine": "extends = 'nowhere.toml'"}, "nowhere", "is neither a file nor"),
        ({"mine": "extends = 3"}, "mine", "'extends' is 3, expected a str"),
        ({"mine": "extends = 'a.toml'", "a": "[task]\nway = 3"}, "a", "unknown key 'task.way'"),
        ({"mine": "extends = 'a.toml'\n[task]\nways = 1", "a": ""}, "mine", "'task.ways' is 1"),
        ({"mine": "extends = 'a.toml'\ntask = 3", "a": "[task]\nways = 3"}, "mine", "'task' must be a table"),
        ({"mine": "[task]\nextends = 'a.toml'"}, "mine", "unknown key 'task.extends'"),
    ],
    ids=str,
)
def test_mistakes_name_their_file(files: dict[str, str], where: str, words: str, tmp_path: Path) -> None:
    write(tmp_path, **files)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "mine.toml")
    assert str(error.value).startswith(f"{tmp_path / where}.toml: ") and words in str(error.value)


@pytest.mark.parametrize("files", [MOST_FILES, MOST_FILES + 1])
def test_the_depth_is_bounded(files: int, tmp_path: Path) -> None:
    write(tmp_path, f0="[task]\nways = 6", **{f"f{n}": f"extends = 'f{n - 1}.toml'" for n in range(1, files)})
    last = tmp_path / f"f{files - 1}.toml"
    if files == MOST_FILES:
        assert load_config(last).task.ways == 6
        return
    with pytest.raises(ConfigError, match="extends more than 7 files"):
        load_config(last)


def test_a_shipped_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_path(Path("icons-quick.toml")) == CONFIGS / "icons-quick.toml"
    assert config_path(Path("paper/table5/max-group.toml")).is_file()
    write(tmp_path, **{"icons-quick": ""})
    assert config_path(Path("icons-quick.toml")) == Path("icons-quick.toml")


# --- the shipped ones ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED, ids=str)
def test_a_shipped_configuration_says_everything(name: Path) -> None:
    config = load_config(CONFIGS / name)
    plain = config.as_dict()
    assert "extends" not in plain and config_from_dict(plain, "again") == config
    assert None not in (config.method.layers, config.method.learn_alpha, config.method.penalty, config.method.attention)


@pytest.mark.parametrize("name", SHIPPED, ids=str)
def test_a_shipped_configuration_trains(name: Path) -> None:
    """One outer step of a small network on a small task. What is the same when it is small runs once."""
    pytest.importorskip("torch")
    loss = first_loss(json.dumps(small(load_config(CONFIGS / name))))
    assert 0 < loss < 10


def small(config: Config) -> dict[str, Any]:
    """As plain values: narrow layers, few samples."""
    plain = replace(config, data=Config().data).as_dict()
    narrow = {"width": 4, "groups": 2, "channels": [4, 4], "hidden": [4]}
    plain["network"] |= {key: value for key, value in narrow.items() if key in plain["network"]}
    plain["task"] = {"ways": 3, "shots": 1, "queries": 1}
    plain["training"] |= {"tasks_per_batch": 1, "seed": 0, "iterations": 10, "validate_every": 1, "checkpoint_every": 1}
    plain["training"] |= {"validation_tasks": 1, "learning_rate": 1e-3, "final_learning_rate": 0}
    plain["method"] |= {"steps": 1}
    plain["input"], plain["device"] = {"scale": [], "offset": []}, {"sample_batch": 1}
    return plain


@functools.cache
def first_loss(settings: str) -> float:
    import torch

    from pmeta.trainer.meta_learner import MetaLearner
    from pmeta.trainer.objective import TaskBatch

    config = config_from_dict(json.loads(settings), "small")
    shape = (3, 1, 32) if config.network.name == "conv1d" else (3, 16, 16)
    learner = MetaLearner(config, shape, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(1, 3, *shape, generator=generator) for _ in range(2))
    labels = torch.eye(3)[None]
    return learner.step(TaskBatch(support, labels, query, labels), 0).loss


def test_a_shipped_one_needs_no_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("icons-quick", "icons-quick.toml", "icons/5way-1shot/anil"):
        assert config_path(Path(name)) == CONFIGS / f"{name.removesuffix('.toml')}.toml"
    (tmp_path / "icons-quick").touch()
    assert config_path(Path("icons-quick")) == Path("icons-quick")


@pytest.mark.parametrize("name", ["icons-4conv-5way", "omniglot-20way-1shot"])
def test_a_shipped_model_was_trained_by_its_configuration(name: str) -> None:
    trained_by = load_model(CONFIGS.parents[1] / "models" / f"{name}.onnx").adaptation.training["config"]
    shipped = load_config(CONFIGS / f"{name}.toml")
    assert config_from_dict(trained_by, name) == shipped
    assert trained_by.keys() == shipped.as_dict().keys()
