"""The project's rule: every kernel has its differential test, named after its header."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels import functions_in, headers

pytestmark = pytest.mark.differential

PART_OF_ANOTHER = {"pmeta_write_row"}  # of pmeta_convert_rows


@pytest.mark.parametrize("header", sorted(header for header in headers() if functions_in(header)))
def test_it_is_tested(header: str) -> None:
    name = header.removeprefix("pmeta_").removesuffix(".h")
    test = (Path(__file__).parent / f"test_{name}.py").read_text(encoding="utf-8")
    functions = set(functions_in(header)) - PART_OF_ANOTHER
    assert not {function for function in functions if f'"{function}"' not in test}
