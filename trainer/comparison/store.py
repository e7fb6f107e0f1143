"""Figures that are known already: one small JSON file each, named by all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmeta.codegen.files import read_file, replacement

MAX_FILE_BYTES = 64 << 20  # accuracies of three million tasks


@dataclass(frozen=True)
class Store:
    """A folder of JSON files; damaged ones count as missing."""

    folder: Path

    def get(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The value of `key`, None if there is none."""
        try:
            content = json.loads(read_file(self._path(key), MAX_FILE_BYTES))
            found = content["value"] if content["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        """Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacement(self._path(key)) as temporary:
            temporary.write_text(json.dumps({"key": key, "value": value}) + "\n", encoding="utf-8")

    def _path(self, key: Mapping[str, Any]) -> Path:
        text = json.dumps(key, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
