"""A table of what weights files hold of a model, and of the memory it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nncompiler.runtime.manifest import describe

if TYPE_CHECKING:
    from nncompiler.runtime.model import Model


class Tensor(NamedTuple):
    """A line of the table."""

    name: str
    type: str
    elements: int
    bytes: int


def summary(model: Model, sizes: str) -> str:
    """The table, under a line with the batch `sizes` that are compiled."""
    m = model.manifest
    parameters, states = (
        [Tensor(e.name, describe(e.dtype, e.shape), model.parameters[e.name].size, e.bytes)
         for e in m.parameters if e.kind == kind]
        for kind in ("param", "state")
    )  # fmt: skip
    return "\n".join([
        f"{model.name}, batch {sizes}", "", tensors(parameters, states), "",
        f"state  {m.state_bytes:_} B ({m.infer_bytes:_} B of it for inference)",
        f"arena  {model.bindings.arena.size:_} B",
    ])  # fmt: skip


def tensors(parameters: Sequence[Tensor], states: Sequence[Tensor]) -> str:
    """Names, types and sizes: what is trained, and below it what the model itself keeps."""
    rows = _group("parameter", parameters)
    if states:
        rows += [("", "", "", ""), *_group("state", states)]
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}".rstrip()
        for a, b, c, d in rows
    )


def _group(head: str, found: Sequence[Tensor]) -> list[tuple[str, str, str, str]]:
    total = Tensor("total", "", sum(t.elements for t in found), sum(t.bytes for t in found))
    rows = [(t.name, t.type, f"{t.elements:_}", f"{t.bytes:_}") for t in (*found, total)]
    return [(head, "type", "elements", "bytes"), *rows]
