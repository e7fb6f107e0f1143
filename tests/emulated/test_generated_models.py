"""Models of any shape on every emulated core: RAM as predicted, and the golden vectors' bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import BOARDS
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.project import constants
from pmeta.codegen.project.generate import generate, write_project
from tests.models import random_4conv, random_chain, regression

pytestmark = pytest.mark.emulated

EMULATED = sorted(name for name, board in BOARDS.items() if board.emulated)
MODELS = {
    "4conv": lambda: random_4conv(7, width=8, steps=2, rho=(300, 300)),
    "chain 3": lambda: random_chain(np.random.default_rng(3)),
    "chain 11": lambda: random_chain(np.random.default_rng(11)),
    "numbers": lambda: regression(random_4conv(8, width=4, steps=2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_core(name: str, platformio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Model = MODELS[name]()
    if name == "chain 3":  # as if its weights were many
        monkeypatch.setattr(constants, "TEXT_LIMIT", 0)
    save_model(model, tmp_path / "model.onnx")
    project = generate(tmp_path / "model.onnx", EMULATED)
    write_project(project, tmp_path / "project")
    for board in EMULATED:
        built = platformio(tmp_path / "project", "run", "-e", board)
        ram = project.manifest.ram("model", "link", "stack")
        assert f"RAM: predicted {ram} B, linked {ram} B: equal" in built.stdout, built.stdout
        tested = platformio(tmp_path / "project", "test", "-e", board)
        assert tested.returncode == 0, tested.stdout
