"""Checkpoints: one file that a training continues from as if it had never stopped."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import check_regular, replacement

CHECKPOINT = "checkpoint.pt"  # in the run directory
FORMAT = 2
MAX_FILE_BYTES = 4 << 30


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values to `path` in one step: an interrupted write leaves the old file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(path) as temporary:
            torch.save({"format": FORMAT, **content}, temporary)
    except (OSError, RuntimeError) as error:  # RuntimeError: how torch reports a full disk
        reason = getattr(error, "strerror", None) or "no room, or not allowed"
        raise DataError(f"cannot be written ({reason})", str(path), "choose another --run-dir") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU; executes nothing from the file. Raises DataError."""
    if not path.exists():
        raise DataError("there is no checkpoint", str(path), "start without --resume")
    try:
        check_regular(path, MAX_FILE_BYTES)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise DataError("is not a checkpoint, or is damaged", str(path), "start the training again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError("is a checkpoint of another version", str(path), "start the training again")
    return content
