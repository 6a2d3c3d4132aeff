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
        tried: frozenset[str] = frozenset()
        for _ in range(self.rounds):
            walk = _Walk(function, tried)
            after = walk.run()
            if not walk.changed:
                break
            function, tried = after, frozenset(walk.kept)
        return function


class _Walk:
    """One walk. The nodes that make the values `tried` did not become better in the walk before:
    they are looked at again only behind something that does now.
    """

    def __init__(self, function: Function, tried: frozenset[str]) -> None:
        self.function, self.tried = function, tried
        self.b = Builder(function.name)
        self.mapping: dict[str, Value] = {}  # by name, whose hash is there already
        self.definitions: dict[Value, Node] = {}
        self.behind: set[str] = set()  # values that have become better, and what follows from them
        self.kept: list[str] = []
        self.changed = False

    def run(self) -> Function:
        b, mapping, seen = self.b, self.mapping, 0
        for p in self.function.params:
            mapping[p.value.name] = b.param(p.kind, p.value.name, p.value.type)
        for node in self.function.nodes:
            self.visit(node)
            for made in b.nodes[seen:]:
                for v in made.outputs:
                    self.definitions[v] = made
            seen = len(b.nodes)
        return b.finish([(name, mapping[v.name]) for name, v in self.function.results])

    def visit(self, node: Node) -> None:
        b, mapping = self.b, self.mapping
        if node.op == "constant":
            b.span = None  # equal constants of all lines are one
            mapping[node.output.name] = _constant(b, node)
            return
        b.span = node.span
        names = [v.name for v in node.inputs]
        inputs = [mapping[n] for n in names]
        moved = not self.behind.isdisjoint(names)
        better = None
        if node.body is None and (moved or node.outputs[0].name not in self.tried):
            better = _better(b, node, inputs, self.definitions)
        if better is not None:
            self.changed = True
            self.behind.add(node.output.name)
            mapping[node.output.name] = better
            return
        for old, new in zip(node.outputs, b.copy(node, inputs), strict=True):
            mapping[old.name] = new
            self.kept.append(new.name)
            if moved:
                self.behind.add(old.name)


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
