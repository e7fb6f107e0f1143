"""Settings of all tests, and what several of them start from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Tests run side by side, one thread each; more of them only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, and no verdict about time: the machine may be busy.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

ROOT = Path(__file__).resolve().parents[1]
PLATFORMIO_SECONDS = 300.0  # for anything that takes some seconds on a quiet machine


@pytest.fixture(scope="session")
def platformio(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs PlatformIO in a project folder, with a core folder of its own that needs no network."""
    core = tmp_path_factory.mktemp("platformio")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "platformio_home.py"), str(core)], check=True)
    settings = {"ENABLE_TELEMETRY": "no", "CHECK_PLATFORMIO_INTERVAL": "99999"}
    environment = os.environ | {f"PLATFORMIO_SETTING_{key}": value for key, value in settings.items()}
    environment["PLATFORMIO_CORE_DIR"] = str(core)

    def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "platformio", *arguments]
        return subprocess.run(
            command,
            cwd=folder,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLATFORMIO_SECONDS,
            check=False,
        )

    return run
