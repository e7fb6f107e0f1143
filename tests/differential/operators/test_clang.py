"""Kernels under clang, whose warnings are not GCC's: the native board is built with whichever there is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plan import adapting
from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import native_flags
from pmeta.codegen.networks import conv1d
from pmeta.codegen.operators import Window
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.storage import Storage
from tests.compiled import write_library
from tests.models import Chain, random_4conv, with_storage

pytestmark = pytest.mark.differential


def strided() -> Model:
    """Convolutions with strides, one of them depthwise."""
    chain = Chain(np.random.default_rng(0), (3, 16, 16))
    chain.add_conv(8, Window((3, 3), stride=(2, 2), pad_before=(1, 1), pad_after=(1, 1)), bias=False)
    chain.add_conv(8, Window((3, 5), stride=(2, 1), pad_before=(1, 2), pad_after=(1, 2)), bias=False, groups=8)
    chain.add_flatten()
    chain.add_gemm(5, bias=True)
    return adapting(chain.graph("strided"), None, 2)


NETWORKS: Mapping[str, Callable[[], Model]] = {
    "4conv": lambda: random_4conv(1, width=8, steps=2, size=(1, 16, 16)),
    "4conv in float16": lambda: with_storage(random_4conv(1, steps=2, size=(1, 16, 16)), Storage("float16", "float16")),
    "series": lambda: adapting(conv1d((6, 1, 128), width=32, rng=np.random.default_rng(0), blocks=2), None, 2),
    "series, wide kernel": lambda: adapting(conv1d((6, 1, 128), width=8, blocks=2, kernel=7), None, 2),
    "strides": strided,
}


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang on this machine")
@pytest.mark.parametrize("flags", [(), ("-DPMETA_SCALAR",)], ids=["vectors", "scalar"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_whole_library_compiles_without_warnings(tmp_path: Path, network: str, flags: tuple[str, ...]) -> None:
    sources = write_library(make_plan(NETWORKS[network]()), tmp_path)
    files = [path.name for path in sources if path.suffix == ".c"]
    done = subprocess.run(
        ["clang", *native_flags(), *flags, "-c", *files], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
