"""What pmeta-gen shows while it works: bars on a terminal, on standard error, and nothing elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pmeta.codegen.cli import app
from pmeta.codegen.errors import FitError
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.progress import StageBars
from pmeta.codegen.project.generate import generate
from tests.models import random_4conv

pytestmark = pytest.mark.unit


def shown(terminal: bool, hidden: bool) -> str:
    output = io.StringIO()
    with StageBars(Console(file=output, force_terminal=terminal, width=80), hidden) as bars:
        bars.show("planning", 0, 14)
        bars.show("planning", 14, 14)
    return output.getvalue()


def test_bars_are_for_terminals() -> None:
    assert "planning" in shown(terminal=True, hidden=False)
    assert shown(terminal=False, hidden=False) == shown(terminal=True, hidden=True) == ""


def test_every_stage_is_told_from_its_start_to_its_end(tmp_path: Path) -> None:
    save_model(random_4conv(1, width=4), tmp_path / "model.onnx")
    told: dict[str, list[tuple[int, int]]] = {}
    generate(tmp_path / "model.onnx", ["native"], None, lambda stage, *part: told.setdefault(stage, []).append(part))
    assert set(told) == {"planning", "writing"}
    for parts in told.values():
        total = parts[0][1]
        assert parts == [(done, total) for done in range(total + 1)]


def test_a_model_too_large_for_its_board_tells_of_the_search(tmp_path: Path) -> None:
    save_model(random_4conv(1, width=32), tmp_path / "model.onnx")
    told = set()
    with pytest.raises(FitError):
        generate(tmp_path / "model.onnx", ["netduinoplus2"], None, lambda stage, *_: told.add(stage))
    assert told == {"planning", "what would fit"}


def test_json_is_all_that_is_printed(tmp_path: Path) -> None:
    save_model(random_4conv(1, width=4), tmp_path / "model.onnx")
    arguments = [str(tmp_path / "model.onnx"), "--board", "native", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*arguments, "--json"]).stderr == ""
