"""Facts about functions that several passes need. Nothing here changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.once import once
from nncompiler.ir.op import lookup
from nncompiler.ir.scalar import PRIMITIVES

UPDATE = "update."


@partial(once, most=64)  # each keeps a whole graph
def updates(function: Function) -> Mapping[Value, Value]:
    """New value -> the parameter it replaces, for results called `update.NAME` that can be
    written in place.

    Left out (to be copied at the end instead): a value that is itself a parameter, that updates
    two parameters or is another result too, and one whose write in place would have to come both
    before and after some reader.
    """
    params = {p.value.name: p.value for p in function.params}
    counts = Counter([value.name for _, value in function.results])
    order = _Order(function.nodes)
    found = {}
    for name, value in function.results:
        old = params.get(name.removeprefix(UPDATE)) if name.startswith(UPDATE) else None
        if old is None or counts[value.name] > 1 or value.name in params:
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
        # values by name, whose hash is there already
        self.maker = {v.name: k for k, n in enumerate(nodes) for v in n.outputs}
        self.readers: dict[str, set[int]] = {}
        self.after: list[set[int]] = []
        for k, node in enumerate(nodes):
            names = [v.name for v in node.inputs]
            self.after.append({self.maker[v] for v in names if v in self.maker})
            for v in names:
                self.readers.setdefault(v, set()).add(k)

    def overwrite(self, old: Value, new: Value) -> bool:
        """Order the readers of `old` before the maker of `new`; False, and no change, where that
        makes a circle."""
        k = self.maker[new.name]
        before = self.readers.get(old.name, set()) - {k}
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
