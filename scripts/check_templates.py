"""Lints firmware_templates/: every Jinja2 template parses, and nothing but C, linker scripts and templates is there.

python scripts/check_templates.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent.parent / "firmware_templates"
ALLOWED = {".c", ".h", ".ld", ".j2", ".json", ".md"}


def problems(folder: Path) -> list[str]:
    """One line for each file that should not be as it is."""
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix not in ALLOWED:
            found.append(f"{path}: a {path.suffix or 'nameless'} file; only {', '.join(sorted(ALLOWED))} belong here")
        elif path.suffix == ".j2":
            try:
                environment.parse(path.read_text(encoding="utf-8"), filename=str(path))
            except jinja2.TemplateSyntaxError as error:
                found.append(f"{path}:{error.lineno}: {error.message}")
    return found


if __name__ == "__main__":
    lines = problems(TEMPLATES)
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
