"""The training curve: as lines of JSON that any script reads, and as TensorBoard events where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from pmeta.codegen.errors import DataError


class Logbook:
    """Appends {"iteration": i, name: value, ...} to `curve.jsonl` in `run_dir`, and the same to TensorBoard.

    What an interrupted run wrote beyond `iteration`, the one it resumes from, is dropped. Raises DataError if what is
    there is damaged.
    """

    def __init__(self, run_dir: Path, iteration: int) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / "curve.jsonl"
        kept = [line for line in _lines(path) if _iteration(line, path) <= iteration]
        path.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self._tensorboard = _tensorboard(run_dir, iteration)

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def write(self, iteration: int, values: dict[str, float]) -> None:
        print(json.dumps({"iteration": iteration, **values}), file=self._file, flush=True)
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, iteration)


def _lines(path: Path) -> list[str]:
    """Complete lines: one that was cut off by a crash is dropped."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _damaged("is damaged", path) from error
    return [line.rstrip("\n") for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def _iteration(line: str, path: Path) -> float:
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise _damaged(f"has a damaged line: {line[:40]}", path) from error


def _damaged(what: str, path: Path) -> DataError:
    return DataError(what, str(path), "correct or remove the file: it is for people, no training needs it")


def _tensorboard(run_dir: Path, iteration: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run_dir), purge_step=iteration + 1)
