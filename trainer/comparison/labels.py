"""Short names that tell things apart."""

from __future__ import annotations

from collections.abc import Sequence


def short_labels(names: Sequence[str]) -> list[str]:
    """As many of the last parts of each name, between slashes, as tell all of them apart."""
    parts = [name.split("/") for name in names]
    for count in range(1, max(map(len, parts), default=0)):
        labels = ["/".join(some[-count:]) for some in parts]
        if len(set(labels)) == len(set(names)):
            return labels
    return list(names)
