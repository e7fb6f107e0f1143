"""manifest.json of a generated project: what the host tool must know about the firmware, and nothing about the C."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pmeta.codegen.adaptation import LossHead
from pmeta.codegen.errors import DataError
from pmeta.codegen.files import read_file
from pmeta.codegen.numerics import VARIANTS, Numerics
from pmeta.codegen.support import SupportPlace

MANIFEST_SCHEMA = 3
MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True)
class LearnedTensor:
    """A weight that adaptation changes; its position in the manifest is its number on the link."""

    name: str  # as in model.onnx, for example "conv4.weight"
    layer: str
    shape: tuple[int, ...]
    steps: tuple[int, ...]  # the steps (1..K) at whose end it is updated

    @property
    def bytes(self) -> int:
        size = 4
        for dim in self.shape:
            size *= dim
        return size


@dataclass(frozen=True)
class StaticObject:
    """One static object in RAM that the plan predicts; the sum over all is the predicted RAM."""

    name: str
    part: str  # "model": lib/pmeta_model, on every board; "link" and "stack": bare-metal firmware
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What one generated project contains."""

    firmware_id: str  # 32 hex digits; the firmware answers the handshake with it
    model_sha256: str
    command: str  # the canonical pmeta-gen command: sorted options, no paths
    numerics: tuple[Numerics, ...]  # of each board: how its core computes
    input_shape: tuple[int, ...]  # (C, H, W)
    sample_bytes: int  # of one sample as it travels
    ways: int  # logits; with mean squared error outputs
    steps: int  # K
    boards: tuple[str, ...]
    tensors: tuple[LearnedTensor, ...]
    statics: tuple[StaticObject, ...]
    loss: LossHead = "softmax_cross_entropy"
    support: SupportPlace = "stream"
    support_samples: int = 0  # most that RAM keeps; those in flash
    support_sha256: str = ""  # of what lies in flash (pmeta.codegen.support)

    @property
    def support_flash_bytes(self) -> int:
        """Of the support set, where it lies in flash."""
        target = 4 * self.ways if self.loss == "mean_squared_error" else 4
        return self.support_samples * (self.sample_bytes + target) if self.support == "flash" else 0

    def ram(self, *parts: str) -> int:
        """Predicted bytes of RAM of the given parts: ("model",), or ("model", "link", "stack") for a whole firmware."""
        return sum(static.bytes for static in self.statics if static.part in parts)

    def to_json(self) -> str:
        fields = {"schema": MANIFEST_SCHEMA, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Manifest:
        """The inverse of `to_json`; raises DataError, never anything else, for a damaged file."""
        try:
            fields: dict[str, Any] = json.loads(text)
            if fields.pop("schema") != MANIFEST_SCHEMA:
                raise DataError("was made by another version of pmeta-gen", where, "generate the project again")
            tensors = tuple(_tensor(entry) for entry in _list(fields.pop("tensors")))
            statics = tuple(StaticObject(**entry) for entry in _list(fields.pop("statics")))
            for key in ("input_shape", "boards", "numerics"):
                fields[key] = tuple(_list(fields[key]))
            manifest = cls(tensors=tensors, statics=statics, **fields)
            _check(manifest)
        except KeyError as error:
            raise DataError(f"is damaged ({error} is missing)", where, "generate the project again") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"is damaged ({error})", where, "generate the project again") from error
        return manifest

    @classmethod
    def load(cls, path: Path) -> Manifest:
        try:
            data = read_file(path, MAX_FILE_BYTES)
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
            raise DataError(what, str(path), "pass the folder pmeta-gen wrote") from error
        return cls.from_json(data, str(path))


def firmware_id(library: Mapping[str, str | bytes]) -> str:
    """32 hex digits that name what the firmware computes, from the library's sources; the same for every board."""
    digest = hashlib.sha256(str(MANIFEST_SCHEMA).encode())
    for name, content in sorted(library.items()):
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content if isinstance(content, bytes) else content.encode())
    return digest.hexdigest()[:32]


def _check(manifest: Manifest) -> None:
    """ValueError unless every field is what its annotation says, and possible."""
    texts = [manifest.firmware_id, manifest.model_sha256, manifest.command, *manifest.boards]
    numbers = [*manifest.input_shape, manifest.sample_bytes, manifest.ways, manifest.steps]
    if manifest.loss not in get_args(LossHead):
        raise ValueError(f"{manifest.loss!r} is no loss head")
    if len(manifest.numerics) != len(manifest.boards) or not set(manifest.numerics) <= set(VARIANTS):
        raise ValueError(f"{manifest.numerics!r} are no numerics of {len(manifest.boards)} boards")
    if manifest.support not in get_args(SupportPlace):
        raise ValueError(f"{manifest.support!r} is no place of a support set")
    numbers.append(manifest.support_samples + 1)  # may be 0
    texts.append(manifest.support_sha256)
    for tensor in manifest.tensors:
        texts += [tensor.name, tensor.layer]
        numbers += [*tensor.shape, *tensor.steps]
    for static in manifest.statics:
        texts += [static.name, static.part]
        numbers.append(static.bytes + 1)  # may be 0
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is not text")
    for number in numbers:
        if type(number) is not int or not 1 <= number < 1 << 32:
            raise ValueError(f"{number!r} is not a possible number")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def _tensor(entry: Mapping[str, Any]) -> LearnedTensor:
    fields = {**entry, "shape": tuple(_list(entry["shape"])), "steps": tuple(_list(entry["steps"]))}
    return LearnedTensor(**fields)
