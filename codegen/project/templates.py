"""The templates and plain C files under firmware_templates, found wherever the package is installed."""

from __future__ import annotations

from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined

from pmeta.codegen.project.resources import firmware_templates


def template_text(path: str) -> str:
    """A file of firmware_templates, by its path with forward slashes."""
    return (firmware_templates() / path).read_text(encoding="utf-8")


def files_in(folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Name -> text of the files of one folder, sorted by name."""
    entries = sorted((firmware_templates() / folder).iterdir())
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
