"""The variants of docs/numerics.md, by name. A core computes as one of them; the simulator as any."""

from __future__ import annotations

from typing import Literal

from pmeta.codegen.errors import ConfigError

Numerics = Literal["binary32-strict/1", "binary32-helium/1"]

STRICT: Numerics = "binary32-strict/1"
HELIUM: Numerics = "binary32-helium/1"

# A variant's place is its number: PMETA_NUMERICS in pmeta_numerics.h, and what a device says in the handshake.
VARIANTS: tuple[Numerics, ...] = (STRICT, HELIUM)


def variant_called(name: str) -> Numerics:
    """The variant of that name; raises ConfigError, which lists those there are."""
    for variant in VARIANTS:
        if variant == name:
            return variant
    raise ConfigError(f"no variant is called {name!r}", "--numerics", f"choose one of: {', '.join(VARIANTS)}")
