"""Kernels under clang, whose warnings are not GCC's: the native board is built with whichever there is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pmeta.codegen.boards import native_flags
from pmeta.codegen.plan.plan import make_plan
from tests.compiled import write_library
from tests.models import random_4conv

pytestmark = pytest.mark.differential


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang on this machine")
def test_a_whole_library_compiles_without_warnings(tmp_path: Path) -> None:
    sources = write_library(make_plan(random_4conv(1, width=8, steps=2, size=(1, 16, 16))), tmp_path)
    files = [path.name for path in sources if path.suffix == ".c"]
    done = subprocess.run(
        ["clang", *native_flags(), "-c", *files], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
