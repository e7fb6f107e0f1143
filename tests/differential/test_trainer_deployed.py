"""`pmeta-train evaluate --deployed`: the same tasks through the generated C and through PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pmeta.codegen.errors import BuildError  # noqa: E402
from pmeta.codegen.modelfile import load_model  # noqa: E402
from pmeta.trainer.datasets.icons import load_icons  # noqa: E402
from pmeta.trainer.deployed import build_library, evaluate_deployed  # noqa: E402
from pmeta.trainer.tasks import fixed_tasks  # noqa: E402

pytestmark = pytest.mark.differential

MODEL = Path(__file__).parents[2] / "models" / "icons-4conv-5way.onnx"


def test_c_and_pytorch_classify_alike(tmp_path: Path) -> None:
    model = load_model(MODEL)
    tasks = fixed_tasks(load_icons("test"), model.adaptation.ways, 1, 3, 4, 1)
    result = evaluate_deployed(model, tasks, tmp_path, workers=1)
    assert (result.tasks, result.queries_in_all) == (4, 60)
    assert result.after > 0.4 > result.before  # it learned, and it did not know before
    assert result.queries_that_differ <= 1  # float32 in another order: a tie may fall the other way
    assert result.difference == pytest.approx(result.after - result.torch_after)


def test_what_differs_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a PyTorch that always answers class 0."""
    model = load_model(MODEL)
    tasks = fixed_tasks(load_icons("test"), model.adaptation.ways, 1, 2, 1, 1)
    constant = torch.eye(5)[0].expand(1, 10, 5)
    monkeypatch.setattr("pmeta.trainer.deployed.query_logits", lambda *_: (constant, constant))
    result = evaluate_deployed(model, tasks, tmp_path, workers=1)
    assert result.torch_after == pytest.approx(0.2)
    assert result.tasks_that_differ == 1
    assert result.queries_that_differ >= round(10 * abs(result.difference)) > 0


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BuildError, match="no C compiler was found"):
        build_library(load_model(MODEL), tmp_path)


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(BuildError, match="the C compiler failed"):
        build_library(load_model(MODEL), tmp_path)
    assert np.size(list(tmp_path.glob("*.so"))) == 0
