"""Smartwatch (Burns et al., 2018, arXiv:1802.01489): ten people doing seven shoulder exercises with a watch.

Read from the file `seglearn/data/watch_dataset.npy` of the PyPI package seglearn 1.2.5, whose code is neither needed
nor imported: 140 recordings of about 20 repetitions, of each person, arm and exercise one; acceleration (g) and rate of
turn (rad/s) along three axes at 50 Hz.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.codegen.files import read_file
from pmeta.trainer.datasets.base import ONLY_QUERY, ONLY_SUPPORT, ClassSamples, Dataset, Split
from pmeta.trainer.datasets.pickles import loads_pickle

SHA256: Final = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
PEOPLE: Final = 10
FOLDS: Final = 5  # of two people each
STEPS_PER_UNIT: Final = (32.0, 32.0, 32.0, 16.0, 16.0, 16.0)  # of a byte, by channel: ±4 g, ±8 rad/s
ZERO: Final = 128  # the byte of 0
GAP: Final = 50  # moments between what is learned from and what is judged by: a second
_IN_PACKAGE: Final = "seglearn/data/watch_dataset.npy"
_PACKAGES: Final = ("seglearn-*.whl", "seglearn-*.tar.gz", "watch_dataset.npy")
_MAX_BYTES: Final = 64 << 20

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Recording:
    """One exercise of one person, the watch on one arm."""

    moments: Bytes  # (6, T)
    exercise: int
    person: int  # 1 .. 10
    side: int  # 1: right, 0: left


@dataclass(frozen=True)
class Smartwatch(Dataset):
    """Windows of recordings, (6, 1, window) bytes. A task is one person with the watch on one arm.

    Labels are the exercises in the file's order, so a network may know them before it adapts to a person. Support
    windows are from the first half of a recording, query windows from the second, after a gap of a second.
    """

    name: ClassVar[str] = "smartwatch"
    title: ClassVar[str] = "7 shoulder exercises of 10 people, a smartwatch's acceleration and rate of turn at 50 Hz"
    how_to_get: ClassVar[str] = (
        "pip install --no-deps seglearn==1.2.5, or put its wheel or .tar.gz (pip download --no-deps seglearn==1.2.5) "
        "into data/smartwatch"
    )
    licence: ClassVar[str] = "BSD-3-Clause (the package's; it names none of the data's own and asks to cite the paper)"
    split_options: ClassVar[tuple[str, ...]] = ("fold",)

    fold: int = 0  # whose recordings are for testing: people 2·fold + 1 and 2·fold + 2; the next two validate
    window: int = 128  # moments of a sample: 2.56 s
    hop: int = 16  # moments between the beginnings of windows

    def __post_init__(self) -> None:
        for name, value, lowest, highest in (("fold", self.fold, 0, FOLDS - 1), ("window", self.window, 1, 400),
                                             ("hop", self.hop, 1, 400)):  # fmt: skip
            if not lowest <= value <= highest:
                raise ValueError(f"{name} is {value}, but must be {lowest} to {highest}")

    def places(self) -> Iterator[Path]:
        """The .npy file, the wheel or .tar.gz, or a folder with one of them; at last the installed package."""
        yield from super().places()
        if self.path is None:
            try:
                yield Path(str(distribution("seglearn").locate_file(_IN_PACKAGE)))
            except PackageNotFoundError:
                return

    def load(self, split: Split) -> ClassSamples:
        """(N, 6, 1, window): 7 exercises of each arm, called "PEN, person 3, left"."""
        place = self.located()
        exercises, recordings = _recordings(_content(place, self.how_to_get), str(place))
        mine = [recording for recording in recordings if self.split_of(recording.person) == split]
        mine.sort(key=lambda recording: (recording.person, recording.side, recording.exercise))
        windows = [_windows(recording.moments, self.window, self.hop) for recording in mine]
        return ClassSamples(
            samples=np.concatenate([samples for samples, _ in windows]),
            labels=np.repeat(np.arange(len(mine)), [len(samples) for samples, _ in windows]).astype(np.int64),
            class_names=tuple(f"{exercises[r.exercise]}, person {r.person}, {['left', 'right'][r.side]}" for r in mine),
            domains=tuple(2 * recording.person + recording.side for recording in mine),
            roles=np.concatenate([roles for _, roles in windows]),
            fixed_order=True,
        )

    def split_of(self, person: int) -> Split:
        """The split that a person (1 .. 10) is in."""
        after_test = ((person - 1) // 2 - self.fold) % FOLDS
        return "test" if after_test == 0 else "val" if after_test == 1 else "train"


def _windows(moments: Bytes, length: int, hop: int) -> tuple[Bytes, Bytes]:
    """(windows (N, 6, 1, length), roles (N,)) of one recording: of its first half, and of what follows the gap."""
    half = moments.shape[1] // 2
    parts = []
    for part, role in ((moments[:, :half], ONLY_SUPPORT), (moments[:, half + GAP :], ONLY_QUERY)):
        views = np.lib.stride_tricks.sliding_window_view(part, length, axis=1)[:, ::hop]  # (6, N, length)
        parts.append((views.transpose(1, 0, 2)[:, :, None], np.full(views.shape[1], role, np.uint8)))
    samples, roles = zip(*parts, strict=True)
    return np.concatenate(samples), np.concatenate(roles)


# --- the file ------------------------------------------------------------------------------------------------


def _content(place: Path, how_to_get: str) -> bytes:
    """The bytes of the .npy file, wherever it is; they must be those of seglearn 1.2.5."""
    if place.is_dir():
        found = [path for pattern in _PACKAGES for path in sorted(place.glob(pattern))]
        if not found:
            raise DataError("has none of the data set's files", str(place), how_to_get)
        place = found[0]
    try:
        content = _read(place)
    except (OSError, KeyError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError,
            zlib.error) as error:  # fmt: skip
        raise DataError("cannot be read", str(place), how_to_get) from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError("is not the file of seglearn 1.2.5", str(place), how_to_get)
    return content


def _read(place: Path) -> bytes:
    if place.suffix == ".whl":
        with zipfile.ZipFile(place) as wheel:
            return _limited(wheel.open(_IN_PACKAGE))
    if place.name.endswith(".tar.gz"):
        with tarfile.open(place, "r:gz") as archive:
            member = archive.extractfile(f"{place.name.removesuffix('.tar.gz')}/{_IN_PACKAGE}")
            if member is None:
                raise KeyError(_IN_PACKAGE)
            return _limited(member)
    return read_file(place, _MAX_BYTES)


def _limited(stream: Any) -> bytes:
    content: bytes = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError("too large")
    return content


def _recordings(content: bytes, where: str) -> tuple[tuple[str, ...], list[Recording]]:
    """(names of the exercises, all recordings) of a .npy file with one pickled dictionary."""
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    table: Mapping[str, Any] = loads_pickle(content[stream.tell() :], where).item()
    columns = (table["X"], table["y"], table["subject"], table["side"])
    recordings = [
        Recording(_in_bytes(moments), int(exercise), int(person), int(side))
        for moments, exercise, person, side in zip(*columns, strict=True)
    ]
    return tuple(table["y_labels"]), recordings


def _in_bytes(moments: NDArray[np.float64]) -> Bytes:
    """(T, 6) in units → (6, T) as an 8-bit sensor would tell it; what lies outside its range is at its end."""
    steps = np.round(moments * np.array(STEPS_PER_UNIT)) + ZERO
    in_range: Bytes = steps.clip(0, 255).astype(np.uint8)
    return in_range.T
