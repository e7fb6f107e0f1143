"""scripts/demo.py: however a command ends, the demo ends with a line and stops the board."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.unit

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo.py"


@pytest.fixture
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (FileNotFoundError(2, "No such file or directory", "pio"), 7, "pio is not installed; run: make setup-demo"),
        (subprocess.CalledProcessError(3, ["pmeta-gen", "x"]), 1, "pmeta-gen x ended with exit code 3"),
    ],
    ids=["Ctrl-C", "no tool", "failure"],
)
def test_the_end(
    error: BaseException,
    exit_code: int,
    message: str,
    demo: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped: list[str] = []
    monkeypatch.setenv("PATH", os.environ["PATH"])  # the demo extends it

    def fails(*_command: str) -> None:
        raise error

    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "run", fails)
    monkeypatch.setattr(demo, "stop", stopped.append)
    monkeypatch.setattr(demo.console, "file", None)
    assert demo.main() == exit_code
    assert message in " ".join(capsys.readouterr().out.split())
    assert len(stopped) == 1
