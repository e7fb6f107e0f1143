"""Configuration files: TOML, and `extends = "other.toml"` for what a file says beside another one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmeta.codegen.errors import ConfigError
from pmeta.codegen.files import read_file

CONFIGS = Path(__file__).parent / "configs"  # the shipped ones
EXTENDS = "extends"
MOST_FILES = 8  # that extend one another
MAX_FILE_BYTES = 1 << 20
NAMED = ("data", "network")  # tables whose keys depend on their `name`


def config_path(path: Path) -> Path:
    """`path`, or the shipped configuration of that name, with or without its .toml, where there is no such file."""
    if path.exists() or path.is_absolute():
        return path
    shipped = (CONFIGS / path, CONFIGS / f"{path}.toml")
    return next((candidate for candidate in shipped if candidate.exists()), path)


def read_chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The file and those that it extends, by turns: (path, its own table without `extends`), the last one first.

    The file that is extended is found beside the one that names it, or is a shipped one. Raises ConfigError.
    """
    chain: list[tuple[Path, dict[str, Any]]] = []
    seen: set[Path] = set()
    following: Path | None = path
    while following is not None:
        resolved = following.resolve()
        if resolved in seen or len(seen) == MOST_FILES:
            what = "extends itself" if resolved in seen else f"extends more than {MOST_FILES - 1} files, one by one"
            raise ConfigError(what, str(path), f"change its '{EXTENDS}'")
        seen.add(resolved)
        table = _toml(following)
        chain.insert(0, (following, table))
        following = _extended(table.pop(EXTENDS, None), following)
    return chain


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of `base` with the keys of `own`. A [data] or [network] of another name starts anew."""
    result = dict(base)
    for key, value in own.items():
        inherited = base.get(key)
        if isinstance(value, Mapping) and isinstance(inherited, Mapping):
            renamed = key in NAMED and value.get("name", inherited.get("name")) != inherited.get("name")
            result[key] = value if renamed else {**inherited, **value}
        else:
            result[key] = value
    return result


def _extended(name: Any, by: Path) -> Path | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise ConfigError(f"'{EXTENDS}' is {name!r}, expected a str", str(by), 'write it as "other.toml"')
    beside = by.parent / name
    return beside if beside.exists() or not (CONFIGS / name).exists() else CONFIGS / name


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path, MAX_FILE_BYTES).decode())
    except FileNotFoundError as error:
        shipped = sorted(f"{entry.name}/" if entry.is_dir() else entry.stem for entry in CONFIGS.iterdir())
        todo = f"check the path; shipped are {', '.join(shipped)}"
        raise ConfigError("is neither a file nor a shipped configuration", str(path), todo) from error
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    except RecursionError as error:
        raise ConfigError("is not valid TOML (nested too deeply)", str(path), "correct it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid TOML ({error})", str(path), "correct that line") from error
