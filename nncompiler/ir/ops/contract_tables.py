"""Contractions of rows that are gathered from a table, done with the table where it has fewer.

    gather(E, i) W       =  gather(E W, i)              embeddings that enter a dense layer
    gather(E, i)' D      =  E' scatter_add(D, i)        the gradient of that layer's weights
    scatter_add(D W, i)  =  scatter_add(D, i) W         the gradient of the table

The first adds the same products in the same order. The others add what belongs to a row first, so
results are equal up to rounding; a row of E that is never asked for must be finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.ops.common import Definitions, integer, producer
from nncompiler.ir.ops.contract_spec import ContractSpec, make_spec, parse_spec
from nncompiler.ir.scalar import Affine

#: Multiply-adds saved for each element that is scattered: scattering takes about as long as some.
_WORTH = 16


def contracted_table(
    b: Builder, node: Node, spec: ContractSpec, definitions: Definitions
) -> Value | None:
    """A contraction with gathered rows by one with their table, or None."""
    for k, v in enumerate(node.inputs):
        found = producer(v, "gather", definitions)
        if found and _fewer(found.inputs[0].shape[integer(found, "axis")], found.inputs[1]):
            better = _with_table(b, node, spec, k, found)
            if better is not None:
                return better
    return None


def constant_table(
    b: Builder, node: Node, spec: ContractSpec, definitions: Definitions, constants: set[Value]
) -> Value | None:
    """A contraction of gathered rows and constants by one of constants with their table, or None;
    whatever number of rows it has.
    """
    for k, v in enumerate(node.inputs):
        others = (*node.inputs[:k], *node.inputs[k + 1 :])
        found = producer(v, "gather", definitions)
        if found and constants.issuperset((found.inputs[0], *others)):
            return _with_table(b, node, spec, k, found)
    return None


def _with_table(
    b: Builder, node: Node, spec: ContractSpec, k: int, gather: Node
) -> Value | None:
    (table, indices), axis = gather.inputs, integer(gather, "axis")
    names = tuple(form.single for form in spec.operands[k][axis : axis + indices.type.rank])
    row = _fresh(spec)
    own = _as_row(spec.operands[k], names, row)
    others = [m for m, dims in enumerate(spec.operands) if m != k and _has(dims, names)]
    if own is None:
        return None
    inputs, maps = list(node.inputs), list(spec.operands)
    inputs[k], maps[k] = table, own[1]
    if not others:
        output = _as_row(tuple(map(Affine.axis, spec.output)), names, row)
        if output is None:
            return None
        short = make_spec(tuple(maps), [str(form.single) for form in output[1]], spec.stated)
        rows = b.emit("contract", *inputs, spec=str(short))
        return b.emit("gather", rows, indices, axis=output[0])
    if len(others) > 1 or any(a in spec.output for a in names):
        return None
    m, parts = others[0], _as_row(spec.operands[others[0]], names, row)
    if parts is None or _width(node, spec, m) < _WORTH:
        return None
    inputs[m] = b.emit(
        "scatter_add", inputs[m], indices, axis=parts[0], extent=table.shape[axis]
    )
    maps[m] = parts[1]
    return b.emit("contract", *inputs, spec=str(make_spec(tuple(maps), spec.output, spec.stated)))


def scattered_first(b: Builder, node: Node, definitions: Definitions) -> Value | None:
    """A `scatter_add` of products by products of what was scattered, or None."""
    product, indices = producer(node.inputs[0], "contract", definitions), node.inputs[1]
    axis, extent = integer(node, "axis"), integer(node, "extent")
    if product is None or not _fewer(extent, indices):
        return None
    spec = parse_spec(str(product.attr("spec")))
    names: tuple[str | None, ...] = spec.output[axis : axis + indices.type.rank]
    row, with_rows = _fresh(spec), [m for m, dims in enumerate(spec.operands) if _has(dims, names)]
    if len(with_rows) != 1 or _width(product, spec, with_rows[0]) < _WORTH:
        return None
    m = with_rows[0]
    parts = _as_row(spec.operands[m], names, row)
    if parts is None:
        return None
    inputs, maps = list(product.inputs), list(spec.operands)
    inputs[m] = b.emit("scatter_add", inputs[m], indices, axis=parts[0], extent=extent)
    maps[m] = parts[1]
    output = [*spec.output[:axis], row, *spec.output[axis + len(names) :]]
    return b.emit("contract", *inputs, spec=str(make_spec(tuple(maps), output, spec.stated)))


def _fewer(rows: int, indices: Value) -> bool:
    return indices.type.rank > 0 and 2 * rows <= indices.type.size


def _fresh(spec: ContractSpec) -> str:
    name = "row"
    while name in spec.axes:
        name += "_"
    return name


def _has(dims: Sequence[Affine], names: Sequence[str | None]) -> bool:
    return any(a in names for form in dims for a in form.axes)


def _as_row(
    dims: tuple[Affine, ...], names: tuple[str | None, ...], row: str
) -> tuple[int, tuple[Affine, ...]] | None:
    """Where `names` stand side by side, and the dimensions with `row` in their place; None where
    they do not, or stand elsewhere too."""
    singles = [form.single for form in dims]
    if None in names or names[0] not in singles:
        return None
    start = singles.index(names[0])
    before, behind = dims[:start], dims[start + len(names) :]
    if tuple(singles[start : start + len(names)]) != names or _has((*before, *behind), names):
        return None
    return start, (*before, Affine.axis(row), *behind)


def _width(node: Node, spec: ContractSpec, m: int) -> int:
    """How many results each element of operand `m` enters."""
    within = {a for form in spec.operands[m] for a in form.axes}
    sizes = zip(spec.output, node.output.shape, strict=True)
    return math.prod(n for a, n in sizes if a not in within)
