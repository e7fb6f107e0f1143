"""RAM as linked: what an ELF file or object files really occupy, to compare with what the plan predicted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from pmeta.codegen.errors import BuildError
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.project.c_source import arena_part_name

MODEL_LIBRARY = "pmeta_model"


@dataclass(frozen=True)
class RamCheck:
    """Predicted against linked bytes of RAM."""

    predicted: int
    linked: int
    region: str = "RAM"

    @property
    def equal(self) -> bool:
        return self.predicted == self.linked

    def __str__(self) -> str:
        verdict = "equal" if self.equal else f"DIFFER by {self.linked - self.predicted:+d} B"
        return f"{self.region}: predicted {self.predicted} B, linked {self.linked} B: {verdict}"


def linked_ram(elf: Path, ram_origin: int, ram_size: int) -> int:
    """Bytes from the start of RAM to the end of the last section placed in it: stack, .data, .bss and any padding."""
    end = ram_origin
    for section in _sections(elf):
        start: int = section["sh_addr"]
        if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and ram_origin <= start < ram_origin + ram_size:
            end = max(end, start + section["sh_size"])
    return end - ram_origin


def library_ram(objects: Iterable[Path]) -> int:
    """Bytes of .data and .bss in the object files; alignment between objects is the linker's and not counted."""
    wanted = SH_FLAGS.SHF_ALLOC | SH_FLAGS.SHF_WRITE
    return sum(
        section["sh_size"]
        for path in objects
        for section in _sections(path)
        if section["sh_flags"] & wanted == wanted and not section.name.startswith(".data.rel.ro")
    )


def check_firmware(manifest: Path, elf: Path, build: Mapping[str, Any]) -> tuple[RamCheck, ...]:
    """The whole firmware of a bare-metal board, one check per region of its RAM; `build` is the board file's.

    All lies in the first region (model, link, and the stack that the project reserves), but for the further parts of
    the arena: each in the next region, if there is one.
    """
    loaded = Manifest.load(manifest)
    sizes = {static.name: static.bytes for static in loaded.statics}
    checks, elsewhere = [], 0
    for number, region in enumerate(build["more_ram"], start=1):
        predicted = sizes.get(arena_part_name(number), 0)
        elsewhere += predicted
        if predicted:
            checks.append(RamCheck(predicted, linked_ram(elf, region["origin"], region["bytes"]), region["name"]))
    predicted = loaded.ram("model", "link") + build["stack_bytes"] - elsewhere
    return RamCheck(predicted, linked_ram(elf, build["ram_origin"], build["ram_bytes"])), *checks


def check_library(manifest: Path, build_folder: Path) -> RamCheck:
    """lib/pmeta_model alone, from the object files below PlatformIO's build folder of one environment."""
    objects = sorted(build_folder.glob(f"lib*/{MODEL_LIBRARY}/**/*.o"))
    if not objects:
        raise BuildError("has no compiled lib/pmeta_model", str(build_folder), "build the project first")
    return RamCheck(Manifest.load(manifest).ram("model"), library_ram(objects))


def _sections(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as stream:
            yield from ELFFile(stream).iter_sections()
    except (OSError, ELFError) as error:
        raise BuildError(f"is not a readable ELF file ({error})", str(path), "build it again") from error
