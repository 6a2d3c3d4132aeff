"""Algebraic simplification and constant folding, safe for IEEE arithmetic.

Each operator says itself how it simplifies (`Operator.simplify`); this pass applies that until
nothing changes, and folds operators whose inputs are all scalar constants by their own NumPy
reference.

    %0: f32[4] = mul %x, 1.0           %2: f32[4] = neg %x
    %1: f32[] = sqrt 4.0               %3: f32[4] = add %2, 2.0
    %2: f32[4] = neg %0       ──▶
    %3: f32[4] = add %2, %1
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.types import DTYPES
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Simplify:
    """Rewrite in one forward walk, repeated while it changes something, `rounds` times at most."""

    name: ClassVar[str] = "simplify"
    nested: ClassVar[bool] = True
    rounds: int = 8

    def run(self, function: Function) -> Function:
        for _ in range(self.rounds):
            after, changed = _walk(function)
            if not changed:
                break
            function = after
        return function


def _walk(function: Function) -> tuple[Function, bool]:
    b = Builder(function.name)
    mapping: dict[Value, Value] = {}
    for p in function.params:
        mapping[p.value] = b.param(p.kind, p.value.name, p.value.type)
    definitions: dict[Value, Node] = {}
    changed, seen = False, 0
    for node in function.nodes:
        inputs = [mapping[v] for v in node.inputs]
        constant = node.op == "constant"
        b.span = None if constant else node.span  # equal constants of all lines are one
        if constant:
            mapping[node.output] = _constant(b, node)
        else:
            better = None if node.body else _better(b, node, inputs, definitions)
            if better is not None:
                changed = True
                mapping[node.output] = better
            else:
                mapping.update(zip(node.outputs, b.copy(node, inputs), strict=True))
        for made in b.nodes[seen:]:
            for v in made.outputs:
                definitions[v] = made
        seen = len(b.nodes)
    results = [(name, mapping[v]) for name, v in function.results]
    return b.finish(results), changed


def _constant(b: Builder, node: Node) -> Value:
    value = node.attr("value")
    assert isinstance(value, (int, float))
    return b.const(value, DTYPES[str(node.attr("dtype"))])


def _better(
    b: Builder, node: Node, inputs: list[Value], definitions: dict[Value, Node]
) -> Value | None:
    probe = Node(node.op, tuple(inputs), node.outputs, node.attrs, node.body, node.span)
    found = _fold(b, probe, definitions)
    return lookup(node.op).simplify(b, probe, definitions) if found is None else found


def _fold(b: Builder, node: Node, definitions: dict[Value, Node]) -> Value | None:
    """The constant a node of scalar constants computes, or None where it is not one."""
    if not node.inputs or len(node.outputs) != 1 or node.output.shape:
        return None
    arrays = []
    for source in map(definitions.get, node.inputs):
        if source is None or source.op != "constant":
            return None
        arrays.append(np.asarray(source.attr("value"), DTYPES[str(source.attr("dtype"))].numpy))
    with np.errstate(all="ignore"):
        found = lookup(node.op).reference(node, *arrays)
    return b.const(np.asarray(found).item(), node.output.dtype)
