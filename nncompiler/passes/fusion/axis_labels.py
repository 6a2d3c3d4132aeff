"""Which dimensions run together: union-find over their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

#: Dimensions that run together share a number; those of extent 1 have none.
Labels: TypeAlias = "tuple[int | None, ...]"


class AxisLabels:
    """The axes of values, whose dimensions are numbered in `dims`."""

    def __init__(self, dims: Mapping[str, Labels]) -> None:
        self.dims = dims
        self.parent: dict[int, int] = {}
        self.known: dict[str, tuple[int, ...]] = {}

    def joined(self, other: AxisLabels) -> AxisLabels:
        """What runs together in either."""
        large, small = self, other
        if len(large.parent) < len(small.parent):
            large, small = small, large
        found = AxisLabels(self.dims)
        found.parent.update(large.parent)
        for a, b in small.parent.items():
            found.tie(a, b)
        return found

    def tie(self, a: int, b: int) -> None:
        parent = self.parent
        while a in parent:  # written out, here and in `axes`: nothing in fusion runs more often
            a = parent[a]
        while b in parent:
            b = parent[b]
        if a < b:  # what came first leads: trees stay flat
            parent[b] = a
        elif b < a:
            parent[a] = b

    def root(self, x: int) -> int:
        parent = self.parent
        while x in parent:
            x = parent[x]
        return x

    def axes(self, value: str) -> tuple[int, ...]:
        """Of dimensions whose extent is not 1; to be asked when all ties are there."""
        found = self.known.get(value)
        if found is None:
            parent, axes = self.parent, []
            for x in self.dims[value]:
                if x is not None:
                    while x in parent:
                        x = parent[x]
                    axes.append(x)
            found = self.known[value] = tuple(axes)
        return found
