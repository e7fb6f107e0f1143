"""Reads icon sets from the npm package `@iconify/json`, unpacked or as the registry's .tgz."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console

from pmeta.codegen.errors import DataError, PmetaError
from pmeta.trainer.datasets.icons.render import Icon

PACKAGE: Final = "@iconify/json"
VERSION: Final = "2.2.535"
# Licences that let anyone redistribute changed drawings with attribution; no share-alike, no field-of-use limits.
LICENSES: Final = frozenset({"MIT", "Apache-2.0", "ISC", "CC0-1.0", "OFL-1.1", "CC-BY-3.0", "CC-BY-4.0"})
_EXCLUDED_CATEGORIES: Final = frozenset({"Logos", "Emoji"})

_ReadText = Callable[[str], str]  # path inside the package -> its text
_Wanted = Callable[[str, Mapping[str, Any]], bool]  # prefix of a set, its `info` record


@dataclass(frozen=True)
class IconSet:
    """One icon set: who made it, under which licence, and its icons."""

    prefix: str
    title: str
    author: str
    url: str
    license_spdx: str
    license_url: str
    names: Mapping[str, tuple[str, ...]]  # icon name -> its own name, then its aliases
    icons: Mapping[str, Icon]  # icon name -> drawing


def fetch_package(folder: Path) -> Path:
    """Downloads the package with npm into `folder` and returns the .tgz. Raises DataError if npm fails."""
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DataError(f"npm cannot fetch {PACKAGE}@{VERSION}", str(folder), "install npm or pass a path") from error
    return next(folder.glob("*.tgz"))


def build_from_package(package: Path | None, out: Path, build: Callable[[Path, Path, Console], None]) -> None:
    """Runs `build(package, out, console)` of a command line; without a package, fetches it. Errors are one line."""
    console = Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            build(package or fetch_package(Path(folder)), out, console)
    except PmetaError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(error.exit_code) from None


def read_icon_sets(path: Path, wanted: _Wanted) -> list[IconSet]:
    """Returns the sets of the package at `path` that are `wanted`, by prefix.

    Raises DataError if `path` is not the expected package in the expected version.
    """
    try:
        if path.is_dir():
            return _read_sets(lambda name: (path / name).read_text("utf-8"), path, wanted)
        with tarfile.open(path) as archive:
            return _read_sets(lambda name: _member_text(archive, name), path, wanted)
    except (OSError, EOFError, zlib.error, tarfile.TarError, KeyError, ValueError) as error:
        raise DataError("not a readable npm package", str(path), f"pass {PACKAGE} {VERSION}") from error


def _member_text(archive: tarfile.TarFile, name: str) -> str:
    member = archive.extractfile(f"package/{name}")
    if member is None:
        raise FileNotFoundError(name)
    return member.read().decode("utf-8")


def _read_sets(read: _ReadText, path: Path, wanted: _Wanted) -> list[IconSet]:
    package = json.loads(read("package.json"))
    found = f"{package['name']} {package['version']}"
    if found != f"{PACKAGE} {VERSION}":
        raise DataError(f"the package is {found}", str(path), f"pass {PACKAGE} {VERSION}")
    collections = json.loads(read("collections.json"))
    prefixes = sorted(prefix for prefix, info in collections.items() if wanted(prefix, info))
    return [_icon_set(json.loads(read(f"json/{prefix}.json"))) for prefix in prefixes]


def is_usable(info: Mapping[str, Any]) -> bool:
    """Whether a set's `info` record promises monochrome, brand-free icons under an allowed licence."""
    return (
        info.get("palette") is False
        and info["license"].get("spdx") in LICENSES
        and info.get("category") not in _EXCLUDED_CATEGORIES
    )


def _icon_set(record: Mapping[str, Any]) -> IconSet:
    info = record["info"]
    names: dict[str, list[str]] = {name: [name] for name in record["icons"]}
    for alias, entry in record.get("aliases", {}).items():
        changed = entry.keys() & {"hFlip", "vFlip", "rotate"}  # a turned icon is another drawing
        if not changed and entry["parent"] in names:
            names[entry["parent"]].append(alias)
    return IconSet(
        prefix=record["prefix"],
        title=info["name"],
        author=info["author"]["name"],
        url=info["author"].get("url", ""),
        license_spdx=info["license"]["spdx"],
        license_url=info["license"].get("url", ""),
        names={name: tuple(all_names) for name, all_names in names.items()},
        icons={name: _icon(record, entry) for name, entry in record["icons"].items() if _is_still(entry["body"])},
    )


def _is_still(body: str) -> bool:
    return "<animate" not in body and "<set " not in body  # the first frame of an animation is often blank


def _icon(record: Mapping[str, Any], entry: Mapping[str, Any]) -> Icon:
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}  # of the Iconify JSON format
    box = {key: float(entry.get(key, record.get(key, default))) for key, default in defaults.items()}
    return Icon(entry["body"], **box)
