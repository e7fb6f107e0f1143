"""Short names that tell things apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pmeta.trainer.datasets.base import Dataset


def short_labels(names: Sequence[str]) -> list[str]:
    """As many of the last parts of each name, between slashes, as tell all of them apart."""
    parts = [name.split("/") for name in names]
    for count in range(1, max(map(len, parts), default=0)):
        labels = ["/".join(some[-count:]) for some in parts]
        if len(set(labels)) == len(set(names)):
            return labels
    return list(names)


def same_place(one: Dataset, other: Dataset) -> bool:
    """Whether both are one data set, perhaps with other options."""
    return (one.name, _place(one)) == (other.name, _place(other))


def data_labels(data_sets: Iterable[Dataset]) -> dict[Dataset, str]:
    """Their names; those of one name in several places, such as folders of pictures, have the end of their path too."""
    found = list(data_sets)
    by_name: dict[str, dict[str, None]] = {}  # places, in order
    for data in found:
        by_name.setdefault(data.name, {})[_place(data)] = None
    labels = {
        (name, place): f"{name} {end}" if len(places) > 1 else name
        for name, places in by_name.items()
        for place, end in zip(places, short_labels(list(places)), strict=True)
    }
    return {data: labels[data.name, _place(data)] for data in found}


def _place(data: Dataset) -> str:
    """Empty if it is nowhere."""
    found = data.find() or data.path
    return "" if found is None else found.resolve().as_posix()
