"""The reverse sweep: from cotangents of some values to those of others, through a list of nodes.

Each operator gives its own gradient rule; this walks the nodes backwards, adds up what several
readers contribute, and undoes broadcasting, once for every operator. `passes.training.autodiff`
uses it on functions, `scan` on its body.
"""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.op import lookup


def backpropagate(
    b: Builder, nodes: Sequence[Node], seeds: dict[Value, Value], wanted: Sequence[Value]
) -> dict[Value, Value]:
    """The sweep: from cotangents of some values to those of `wanted` (and of everything
    between)."""
    active = _depends_on(nodes, wanted)
    sums: dict[Value, Value] = dict(seeds)
    for node in reversed(nodes):
        operator = lookup(node.op)
        if not operator.differentiable or not any(v in active for v in node.inputs):
            continue
        given = tuple(sums.get(v) for v in node.outputs)
        if all(g is None for g in given):
            continue
        with b.at(node.span):
            start = len(b.nodes)
            found = operator.gradient(b, node, given)
            wanted_here = [
                (v, c) for v, c in zip(node.inputs, found, strict=True) if c and v in active
            ]
            _prune(b, start, {c for _, c in wanted_here})
            for value, cotangent in wanted_here:
                cotangent = unbroadcast(b, cotangent, value)
                sums[value] = b.emit("add", sums[value], cotangent) if value in sums else cotangent
    return sums


def _depends_on(nodes: Sequence[Node], wanted: Sequence[Value]) -> set[Value]:
    """Float values through which a derivative with respect to `wanted` can flow."""
    active = set(wanted)
    for node in nodes:
        if lookup(node.op).differentiable and any(v in active for v in node.inputs):
            active.update(v for v in node.outputs if v.dtype.is_float)
    return active


def _prune(b: Builder, start: int, needed: set[Value]) -> None:
    """Drop what a gradient rule emitted for operands whose cotangent nobody asked for."""
    kept: list[Node] = []
    for node in reversed(b.nodes[start:]):
        # constants are shared by the whole builder, so they stay
        if node.op == "constant" or any(v in needed for v in node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    b.nodes[start:] = reversed(kept)


def unbroadcast(b: Builder, cotangent: Value, value: Value) -> Value:
    """Sum a cotangent over the axes along which `value` was broadcast, and give it the value's
    shape."""
    if cotangent.shape == value.shape:
        return cotangent
    lead = len(cotangent.shape) - len(value.shape)
    if lead < 0:
        return b.emit("broadcast", cotangent, shape=value.shape)
    stretched = tuple(range(lead)) + tuple(
        d + lead for d, n in enumerate(value.shape) if n == 1 and cotangent.shape[d + lead] != 1
    )
    if stretched:
        cotangent = b.emit("reduce_sum", cotangent, axes=stretched, keepdims=False)
    if cotangent.shape != value.shape:
        missing_only = cotangent.type.size == value.type.size
        cotangent = b.emit(
            "reshape" if missing_only else "broadcast", cotangent, shape=value.shape
        )
    return cotangent
