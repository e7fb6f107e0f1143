"""C identifiers for what the model file names."""

from __future__ import annotations

import re

from pmeta.codegen.graph import Graph


def identifier(name: str) -> str:
    """`name` as (part of) a C identifier; different names may collide, see `Names`."""
    return re.sub(r"[^0-9A-Za-z_]", "_", name)


class Names:
    """C identifiers for the graph's names: readable, unique, harmless whatever the model file says."""

    def __init__(self, graph: Graph) -> None:
        self._by_name: dict[str, str] = {}
        taken: set[str] = set()
        for name in [node.name for node in graph.nodes] + sorted(graph.weights):
            base = identifier(name)[:40]
            if not base or not base[0].isalpha():
                base = "n_" + base
            unique, number = base, 2
            while unique in taken:
                unique, number = f"{base}_{number}", number + 1
            taken.add(unique)
            self._by_name[name] = unique

    def __getitem__(self, name: str) -> str:
        return self._by_name[name]
