"""Elements that nobody reads are not computed: the rows and columns at the end of an image that
no window of a pooling, or of a convolution with a stride, comes to.

    %0: f32[8,13] = contract %x, %w {n h=13 r: n h+r, r -> n h}
    %1: f32[8,13] = max %0, 0.0
    %2: f32[8,6,2] = window %1 {axes=[1], size=[2], stride=[2]}
      ──▶
    %0: f32[8,12] = contract %x, %w {n h=12 r: n h+r, r -> n h}
    %1: f32[8,12] = max %0, 0.0
    %2: f32[8,6,2] = window %1 {axes=[1], size=[2], stride=[2]}

What is left of a value begins at its first element. Before differentiation this spares the
gradients of those elements too, which are zero.
"""

from __future__ import annotations

from typing import ClassVar

from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.op import Shapes, lookup
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Narrow:
    """Each operator says what of its operands a part of its result is made of."""

    name: ClassVar[str] = "narrow"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        read = _read(function)
        made = {v.name: v.shape for n in function.nodes for v in n.outputs}
        less = {name: shape for name, shape in read.items() if made.get(name, shape) != shape}
        return _rebuilt(function, less) if less else function


def _read(function: Function) -> dict[str, tuple[int, ...]]:
    """By name, the shape that holds all elements of a value that somebody reads."""
    found = {value.name: value.shape for _, value in function.results}
    for node in reversed(function.nodes):
        for value, shape in zip(node.inputs, _reach(node, found), strict=True):
            before = found.get(value.name)
            found[value.name] = shape if before is None else tuple(map(max, before, shape))
    return found


def _reach(node: Node, found: dict[str, tuple[int, ...]]) -> Shapes:
    """What a node reads of its operands for what is read of its results, all of them where it
    cannot make less or nobody reads any: then this is set right in `found`."""
    first, op = node.outputs[0], lookup(node.op)
    shape = found.get(first.name)
    if shape is not None and (shape != first.shape or op.skips):
        reach = op.reach(node, shape)
        if reach is not None:
            return reach
    found.update([(v.name, v.shape) for v in node.outputs])
    return tuple([v.shape for v in node.inputs])


def _rebuilt(function: Function, less: dict[str, tuple[int, ...]]) -> Function:
    """The function with so much less of some values."""
    b, new = Builder(function.name), dict[str, Value]()
    for p in function.params:
        new[p.value.name] = b.param(p.kind, p.value.name, p.value.type)
    for node in function.nodes:
        inputs = [new[v.name] for v in node.inputs]
        name = node.outputs[0].name
        if name in less:
            with b.at(node.span):
                new[name] = lookup(node.op).narrowed(b, node, inputs, less[name])
        else:
            copies = b.copy(node, inputs)
            new.update((v.name, c) for v, c in zip(node.outputs, copies, strict=True))
    return b.finish([(result, new[v.name]) for result, v in function.results])
