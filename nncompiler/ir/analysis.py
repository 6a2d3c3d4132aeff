"""Facts about functions that several passes need. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.scalar import PRIMITIVES

UPDATE = "update."


def updates(function: Function) -> dict[Value, Value]:
    """New value -> the parameter it replaces, for results called `update.NAME` that can be
    written in place.

    Left out (to be copied at the end instead): a value that is itself a parameter, that updates
    two parameters or is another result too, and one whose write in place would have to come both
    before and after some reader.
    """
    params = {p.value.name: p.value for p in function.params}
    counts: dict[Value, int] = {}
    for _, value in function.results:
        counts[value] = counts.get(value, 0) + 1
    order = _Order(function.nodes)
    found = {}
    for name, value in function.results:
        old = params.get(name.removeprefix(UPDATE)) if name.startswith(UPDATE) else None
        if old is None or counts[value] > 1 or value.name in params:
            continue
        if order.overwrite(old, value):
            found[value] = old
    return found


def generated(nodes: Sequence[Node]) -> set[Value]:
    """Values that follow from a few numbers (random draws, constants, counts) by plain arithmetic,
    such as a mask: computing them again costs no more than keeping them."""
    found: set[Value] = set()
    for node in nodes:
        operator, primitive = lookup(node.op), PRIMITIVES.get(node.op)
        plain = operator.kind == "map" and not (primitive and primitive.transcendental)
        derived = (
            all(v in found or not v.shape for v in node.inputs)
            and any(v in found for v in node.inputs)
            and bool(node.outputs[0].shape)
        )
        if operator.generates or not node.inputs or (plain and derived):
            found.update(node.outputs)
    return found


class _Order:
    """What every node must follow: the makers of its inputs, and the readers of what it
    overwrites."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.maker = {v: k for k, n in enumerate(nodes) for v in n.outputs}
        self.readers: dict[Value, set[int]] = {}
        self.after: list[set[int]] = []
        for k, node in enumerate(nodes):
            self.after.append({self.maker[v] for v in node.inputs if v in self.maker})
            for v in node.inputs:
                self.readers.setdefault(v, set()).add(k)

    def overwrite(self, old: Value, new: Value) -> bool:
        """Order the readers of `old` before the maker of `new`; False, and no change, where that
        makes a circle."""
        k = self.maker[new]
        before = self.readers.get(old, set()) - {k}
        if any(self._follows(r, k) for r in before):
            return False
        self.after[k] |= before
        return True

    def _follows(self, node: int, goal: int) -> bool:
        queue, seen = [node], set[int]()
        while queue:
            n = queue.pop()
            if n == goal:
                return True
            if n not in seen:
                seen.add(n)
                queue.extend(self.after[n])
        return False
