"""How PyTorch's threads wait: said before PyTorch is loaded, unless the environment says it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit
pytest.importorskip("torch")

PROGRAM = """
import json, os, sys
from pmeta.trainer import threads
from pmeta.trainer.commands import common

spin_briefly = threads.spin_briefly
loaded = []
common.spin_briefly = lambda: (loaded.append("torch" in sys.modules), spin_briefly())
common.torch_device(common.Device.CPU)
print(json.dumps([loaded, os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")]))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("passive", "1000")),
        ({"OMP_WAIT_POLICY": "active"}, ("active", None)),
        ({"GOMP_SPINCOUNT": "7"}, ("passive", "7")),
    ],
)
def test_threads_spin_briefly_unless_the_environment_says_otherwise(
    given: dict[str, str], expected: tuple[str, str | None]
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[False], *expected]
