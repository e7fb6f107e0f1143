"""Writes the PlatformIO core folder that set-up and tests use: PlatformIO then downloads nothing by itself.

    python scripts/platformio_home.py FOLDER

PlatformIO Core fetches one package before it builds anything: SCons, its build tool. The scons of the Python
environment is the same program, so the folder gets a package that runs it. Your own projects need none of this.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from platformio.dependencies import get_core_dependencies

_RUN_SCONS = "import SCons.Script\n\nSCons.Script.main()\n"


def environment(folder: Path) -> dict[str, str]:
    """Environment variables that make PlatformIO use the folder, and ask nobody anything."""
    return {
        "PLATFORMIO_CORE_DIR": str(folder),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_SETTING_CHECK_PLATFORMIO_INTERVAL": "99999",
        "PLATFORMIO_NO_ANSI": "true",
    }


def write(folder: Path) -> None:
    """Creates or refreshes the folder; the package's version is the one PlatformIO asks for."""
    version = get_core_dependencies()["tool-scons"].lstrip("~")
    spec = {"owner": "platformio", "id": None, "name": "tool-scons", "requirements": None, "uri": None}
    package = folder / "packages" / "tool-scons"
    package.mkdir(parents=True, exist_ok=True)
    files = {
        "package.json": json.dumps({"name": "tool-scons", "version": version}),
        ".piopm": json.dumps({"type": "tool", "name": "tool-scons", "version": version, "spec": spec}),
        ".piokeep": "",
        "scons.py": _RUN_SCONS,
    }
    for name, text in files.items():
        (package / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/platformio_home.py FOLDER")
    write(Path(sys.argv[1]))
