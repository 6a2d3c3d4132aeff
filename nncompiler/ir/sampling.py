"""Random arguments for a function: floats in a moderate range, indices within their bounds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.types import Array


def random_arguments(
    function: Function, seed: int = 0, low: float = -1.0, high: float = 1.0
) -> dict[str, Array]:
    """An array per parameter, by name; the same for the same seed. Optimizer slots are drawn
    non-negative.

    i32 values that are used as indices, directly or through data movement, are drawn below the
    smallest bound.
    """
    generator = np.random.default_rng(seed)
    bounds = index_bounds(function)
    found: dict[str, Array] = {}
    for p in function.params:
        v = p.value
        dtype = v.dtype.numpy
        if v.dtype.is_float:
            start = 0.0 if p.kind in ("slot", "header") else low
            found[v.name] = generator.uniform(start, high, v.shape).astype(dtype)
        elif v.dtype.kind == "bool":
            found[v.name] = generator.integers(0, 2, v.shape).astype(dtype)
        else:
            found[v.name] = generator.integers(0, bounds.get(v, 7), v.shape).astype(dtype)
    return found


def index_bounds(function: Function) -> dict[Value, int]:
    """For every value of the function used as an index, in the bodies of its nodes too: the
    smallest extent it indexes, traced back through data movement."""
    makers = function.definitions()
    found: dict[Value, int] = {}
    for node in function.nodes:
        for value, extent in _indices(node):
            found[value] = min(extent, found.get(value, extent))
            while (
                (maker := makers.get(value)) is not None
                and lookup(maker.op).cheap
                and maker.inputs
            ):
                value = maker.inputs[0]
                found[value] = min(extent, found.get(value, extent))
    return found


def _indices(node: Node) -> Iterator[tuple[Value, int]]:
    """Operands that a node uses as indices, and what they index. What a loop carries changes, so
    nothing is told of it."""
    for k, extent in lookup(node.op).index_bounds(node):
        yield node.inputs[k], extent
    if node.body is not None:
        carried = range(0)
        if lookup(node.op).loops:
            sequences, carries = len(node.ints("axes")), node.attr("carries")
            assert isinstance(carries, int)
            carried = range(sequences, sequences + carries)
        inner = index_bounds(node.body)
        for k, (param, value) in enumerate(zip(node.body.params, node.inputs, strict=True)):
            if param.value in inner and k not in carried:
                yield value, inner[param.value]
