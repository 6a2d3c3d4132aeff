"""A table of a model's parameters and of the memory it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncompiler.runtime.manifest import describe

if TYPE_CHECKING:
    from nncompiler.runtime.model import Model


def summary(model: Model, sizes: str) -> str:
    """The table, under a line with the batch `sizes` that are compiled."""
    tensors, views = model.manifest.parameters, model.parameters
    rows = [("parameter", "type", "elements", "bytes")]
    for entry in tensors:
        kind = describe(entry.dtype, entry.shape)
        rows.append((entry.name, kind, f"{views[entry.name].size:_}", f"{entry.bytes:_}"))
    count, size = sum(view.size for view in views.values()), sum(e.bytes for e in tensors)
    rows.append(("total", "", f"{count:_}", f"{size:_}"))
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [f"{model.name}, batch {sizes}", ""]
    for a, b, c, d in rows:
        left = f"{a:<{wide[0]}}  {b:<{wide[1]}}"
        lines.append(f"{left}  {c:>{wide[2]}}  {d:>{wide[3]}}".rstrip())
    lines += [
        "", f"state  {model.manifest.state_bytes:_} B "
        f"({model.manifest.infer_bytes:_} B of it for inference)",
        f"arena  {model.bindings.arena.size:_} B",
    ]  # fmt: skip
    return "\n".join(lines)
