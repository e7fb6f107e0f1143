"""Files of parameters: for what the trainer can do and the device cannot; evaluation of them and of models alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from pmeta.codegen.errors import ConfigError, DataError, UnsupportedError  # noqa: E402
from pmeta.codegen.modelfile import save_model  # noqa: E402
from pmeta.codegen.plan.plan import make_plan  # noqa: E402
from pmeta.trainer.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from pmeta.trainer.config import config_from_dict  # noqa: E402
from pmeta.trainer.datasets.base import ClassSamples  # noqa: E402
from pmeta.trainer.evaluation import evaluate  # noqa: E402
from pmeta.trainer.export import check_exportable  # noqa: E402
from pmeta.trainer.lasso import ram_shares  # noqa: E402
from pmeta.trainer.network_variants import varied  # noqa: E402
from pmeta.trainer.tasks import fixed_tasks  # noqa: E402
from pmeta.trainer.trained import Trained, load_trained  # noqa: E402
from pmeta.trainer.training import Training  # noqa: E402
from tests.models import random_4conv  # noqa: E402

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")

BATCH = {"network": {"normalization": "batch"}}
SPARSE_INPUT = {"method": {"sparsify": "input"}}
SPARSE_GRADIENT = {"method": {"sparsify": "output_gradient", "attention": "backward"}}
AVERAGE = {"network": {"pooling": "average"}}


def samples(seed: int) -> ClassSamples:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (8, 1, 1, 16, 16)) // 2 + rng.integers(0, 128, (8, 6, 1, 16, 16))
    labels = np.arange(8, dtype=np.int64).repeat(6)
    return ClassSamples(pixels.reshape(-1, 1, 16, 16).astype(np.uint8), labels, tuple("abcdefgh"))


def training(run_dir: Path, changes: dict[str, dict[str, Any]]) -> Training:
    table: dict[str, dict[str, Any]] = {
        "task": {"ways": 3, "shots": 2, "queries": 2},
        "network": {"width": 4, "groups": 2, "blocks": 2},
        "method": {"name": "p-meta-3.2+3.3", "steps": 2, "alpha": 0.2, "penalty": 0},
        "training": {"iterations": 2, "tasks_per_batch": 2, "validate_every": 2, "validation_tasks": 2},
    }
    config = config_from_dict({key: value | changes.get(key, {}) for key, value in table.items()}, "test")
    return Training(config, samples(0), samples(1), run_dir, CPU)


def same(a: Trained, b: Trained) -> bool:
    tasks = fixed_tasks(samples(2), 3, 2, 2, 4, seed=0)
    results = [evaluate(t.inner, t.meta, tasks, t.encoding, size, CPU) for t in (a, b) for size in (1, 6)]
    return results[:2] == results[2:]


@pytest.mark.parametrize("changes", [BATCH, SPARSE_INPUT, SPARSE_GRADIENT, AVERAGE, {}], ids=str)
def test_a_file_of_parameters_adapts_as_what_was_trained(changes: dict[str, Any], tmp_path: Path) -> None:
    run = training(tmp_path, changes)
    run.finish()
    run.save_best(tmp_path / "model.pt")
    loaded = load_trained(tmp_path / "model.pt", CPU)
    original = Trained(run._learner.inner, run._best["meta"], 2, 1, run._encoding, {})
    assert same(loaded, original)
    assert (loaded.ways, loaded.shots, loaded.sample_batch, loaded.encoding) == (3, 2, 1, run._encoding)
    assert loaded.record["config"] == run.config.as_dict()


@pytest.mark.parametrize("changes", [AVERAGE, {}, {"method": {"name": "p-meta-3.2+alpha-ch"}}], ids=str)
def test_both_files_say_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    run = training(tmp_path, changes)
    save_model(run.run(), tmp_path / "model.onnx")
    run.save_best(tmp_path / "model.pt")
    assert same(*(load_trained(tmp_path / f"model.{suffix}", CPU) for suffix in ("onnx", "pt")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (BATCH, "'network.normalization' is 'batch', which the device does not know; train for evaluation alone"),
        (SPARSE_INPUT, "'method.sparsify' is 'input', which the device does not know; train for evaluation alone"),
        (SPARSE_GRADIENT, "'method.sparsify' is 'output_gradient', which"),
    ],
    ids=str,
)
def test_what_the_device_does_not_know_is_not_exported(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    run = training(tmp_path, changes)
    with pytest.raises(ConfigError, match=words):
        check_exportable(run.config)
    run.finish()
    with pytest.raises(ConfigError, match=words):
        run.best_model()


def test_batch_normalization_has_neither_file_nor_plan(tmp_path: Path) -> None:
    """Wherever such a graph comes from."""
    model = random_4conv(0, width=4)
    batch = type(model)(varied(model.graph, "batch", "max"), model.adaptation)
    for use in (lambda: save_model(batch, tmp_path / "model.onnx"), lambda: make_plan(batch)):
        with pytest.raises(UnsupportedError, match="batch statistics cannot run on the device"):
            use()
    with pytest.raises(ConfigError, match="is 'ram', but batch statistics cannot run"):
        ram_shares(batch)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_to_resume_is_no_model(tmp_path: Path) -> None:
    training(tmp_path, {}).finish()
    with pytest.raises(DataError, match=r"checkpoint\.pt: is a checkpoint to resume, no trained model"):
        load_trained(tmp_path / "checkpoint.pt", CPU)


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": {"method": {"name": "x"}}},
        {"encoding": {"kind": "x", "scale": [], "offset": []}},
        {"input_shape": [1, 20, 20]},
        {"meta": {}},
        {"record": 3},
    ],
    ids=str,
)
def test_damage_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    run = training(tmp_path, BATCH)
    run.finish()
    run.save_best(tmp_path / "model.pt")
    content = load_checkpoint(tmp_path / "model.pt")["parameters"] | change
    save_checkpoint(tmp_path / "model.pt", {"parameters": content})
    with pytest.raises(DataError, match=r"model\.pt: is damaged"):
        load_trained(tmp_path / "model.pt", CPU)


def test_the_file_holds_the_best_not_the_last(tmp_path: Path) -> None:
    run = training(tmp_path, {})
    run.finish()
    run._best["meta"] = tree_map(lambda t: t + 1, run._best["meta"])
    run.save_best(tmp_path / "model.pt")
    for mine, best in zip(tree_leaves(load_trained(tmp_path / "model.pt", CPU).meta), tree_leaves(run._best["meta"]),
                          strict=True):  # fmt: skip
        assert torch.equal(mine, best)
