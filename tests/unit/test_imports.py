"""Imports: always through `pmeta.`, and without torch where the base install has none."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SOURCE_FOLDERS = ("benchmarks", "codegen", "docs", "examples", "host", "scripts", "tests", "trainer")
UNPREFIXED = {"codegen", "firmware_templates", "host", "trainer"}  # from the root these would load a second copy

# Imports every module of a package while the blocked ones cannot be imported.
IMPORT_ALL = """
import importlib, pkgutil, sys
package_name, *blocked = sys.argv[1:]
sys.modules.update(dict.fromkeys(blocked))
for name in blocked:
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    sys.exit(f"{name} is not blocked")
package = importlib.import_module(package_name)
modules = [module.name for module in pkgutil.walk_packages(package.__path__, package_name + ".")]
for name in modules:
    importlib.import_module(name)
print(len(modules))
"""


def imported_roots(source: str) -> set[str]:
    """Top-level names of all absolute imports, nested ones too."""
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            roots.add(node.module.split(".")[0])
    return roots


def test_imported_roots_sees_every_form() -> None:
    source = "import trainer\ndef f():\n    from codegen.graph import Graph\nimport pmeta.host\nfrom . import host\n"
    assert imported_roots(source) == {"trainer", "codegen", "pmeta"}


def test_every_import_of_the_project_is_prefixed() -> None:
    files = [path for folder in SOURCE_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert ROOT / "codegen" / "errors.py" in files
    wrong = {}
    for path in files:
        found = imported_roots(path.read_text(encoding="utf-8")) & UNPREFIXED
        if found:
            wrong[str(path.relative_to(ROOT))] = sorted(found)
    assert not wrong


@pytest.mark.parametrize(("package", "blocked"), [("pmeta.codegen", ("torch", "serial")), ("pmeta.host", ("torch",))])
def test_package_imports_without(package: str, blocked: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", IMPORT_ALL, package, *blocked]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 5
