"""Facts about functions that several passes need. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterable

from nncompiler.ir.graph import Function, Node, Value

UPDATE = "update."


def updates(function: Function) -> dict[Value, Value]:
    """New value -> the parameter it replaces, for results called `update.NAME` that can be written in place.

    Left out (to be copied at the end instead): a value that is itself a parameter, that updates two parameters or is
    another result too, or that a later reader of the old value depends on.
    """
    params = {p.value.name: p.value for p in function.params}
    counts: dict[Value, int] = {}
    for _, value in function.results:
        counts[value] = counts.get(value, 0) + 1
    found = {}
    for name, value in function.results:
        old = params.get(name.removeprefix(UPDATE)) if name.startswith(UPDATE) else None
        if old is None or counts[value] > 1 or value.name in params:
            continue
        if not _read_after(function.nodes, old, value):
            found[value] = old
    return found


def _read_after(nodes: Iterable[Node], old: Value, new: Value) -> bool:
    """Whether some node that depends on `new` reads `old`."""
    after = {new}
    for node in nodes:
        if any(v in after for v in node.inputs):
            if old in node.inputs:
                return True
            after.update(node.outputs)
    return False
