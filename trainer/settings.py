"""Frozen dataclasses from TOML tables: every key and type checked, errors name the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pmeta.codegen.errors import ConfigError


def section(cls: type[Any], table: Mapping[str, Any], where: str, prefix: str) -> Any:
    """An instance of the dataclass `cls` from a TOML table; `prefix` is the table's dotted name.

    Raises ConfigError for unknown keys and values of another type.
    """
    types = get_type_hints(cls)
    known = [item.name for item in fields(cls)]
    values = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if key not in known:
            raise ConfigError(f"unknown key '{name}'", where, nearest(key, known, prefix))
        if is_dataclass(types[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"'{name}' must be a table", where, f"write it as [{name}]")
            values[key] = section(types[key], value, where, f"{name}.")
        else:
            values[key] = _value(types[key], value, where, name)
    return cls(**values)


def variant(kinds: Mapping[str, type[Any]], default: str, table: Mapping[str, Any], where: str, prefix: str) -> Any:
    """An instance of one of several dataclasses, which the table's `name` chooses; the other keys are its fields.

    kinds: by name. A dataclass refuses values with ValueError: "size is 0, but must be ...". Raises ConfigError.
    """
    name = table.get("name", default)
    if name not in kinds:
        raise ConfigError(f"unknown {prefix}name {name!r}", where, nearest(str(name), sorted(kinds), ""))
    try:
        return section(kinds[name], {key: value for key, value in table.items() if key != "name"}, where, prefix)
    except ValueError as error:  # of the dataclass's own checks
        raise ConfigError(f"{prefix}{error}", where, "correct it") from error


def nearest(key: str, known: list[str], prefix: str) -> str:
    """What to do about an unknown key."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean '{prefix}{close[0]}'?" if close else f"use one of {', '.join(known)}"


def _value(kind: Any, value: Any, where: str, name: str) -> Any:
    """`value` as `kind`: bool, int, float, str, Path, one of some words, an optional one of these, or a tuple."""
    if get_origin(kind) is tuple:
        return _values(get_args(kind)[0], value, where, name)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"'{name}' is {value!r}", where, f"use one of {', '.join(get_args(kind))}")
        return value
    alternatives = [option for option in get_args(kind) if option is not type(None)]
    if alternatives:
        return None if value is None else _value(alternatives[0], value, where, name)
    if kind is Path:
        return Path(_value(str, value, where, name)).expanduser()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"'{name}' is {value!r}, expected {'an' if kind is int else 'a'} {kind.__name__}", where, "correct it"
        )
    return value


def _values(kind: type, value: Any, where: str, name: str) -> tuple[Any, ...]:
    """A tuple from a list; where numbers are expected, one number alone will do."""
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list | tuple):
        example = '["conv1", "norm1"]' if kind is str else "[1, 2]"
        raise ConfigError(f"'{name}' must be a list", where, f"write it as {example}")
    return tuple(_value(kind, item, where, f"{name}[{position}]") for position, item in enumerate(value))
