"""Where the C sources and templates lie, in a checkout and in an installed package alike."""

from __future__ import annotations

import importlib
from pathlib import Path


def firmware_templates() -> Path:
    """The folder firmware_templates/. It holds no Python, so it is a namespace package: importlib.resources has no
    single folder for one, its `__path__` has."""
    package = importlib.import_module("pmeta.firmware_templates")
    return next(folder for folder in map(Path, package.__path__) if folder.is_dir())
