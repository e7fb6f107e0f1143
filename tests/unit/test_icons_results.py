"""The table of baselines is made from what the shipped model says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.icons_results import write_config
from pmeta.codegen.modelfile import load_model
from pmeta.trainer.architectures import FourConv
from pmeta.trainer.config import load_config

pytestmark = pytest.mark.unit

SHIPPED = Path(__file__).parents[2] / "models" / "icons-4conv-5way.onnx"


def test_the_baseline_has_the_task_and_network_of_the_shipped_model(tmp_path: Path) -> None:
    record = load_model(SHIPPED).adaptation.training["config"]
    config = load_config(write_config(record, tmp_path))
    assert config.network == FourConv(width=32, groups=8)
    assert (config.task.ways, config.task.shots, config.task.queries) == (5, 5, 5)
    assert config.augmentation.rotate_classes and config.augmentation.shift == 2
    assert (config.input.scale, config.input.offset) == ((0.01,), (-0.7,))
