"""The templates and plain C files under firmware_templates, found wherever the package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined

# The same place relative to this file in a checkout (codegen/project) and installed (pmeta/codegen/project).
TEMPLATE_ROOT = Path(__file__).resolve().parents[2] / "firmware_templates"


def template_text(path: str) -> str:
    """A file of firmware_templates, by its path with forward slashes."""
    return (TEMPLATE_ROOT / path).read_text(encoding="utf-8")


def files_in(folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Name -> text of the files of one folder, sorted by name."""
    entries = sorted((TEMPLATE_ROOT / folder).iterdir())
    return {entry.name: entry.read_text(encoding="utf-8") for entry in entries if entry.name.endswith(suffixes)}


def render(path: str, autoescape: bool = False, **values: Any) -> str:
    """Render a template. Templates decide nothing: whatever is missing is an error."""
    environment = Environment(
        loader=BaseLoader(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
    )
    return environment.from_string(template_text(path)).render(**values)
