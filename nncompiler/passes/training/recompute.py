"""Recomputation: loops whose gradient keeps the carries alone and computes the rest again (Chen et
al. 2016), for less memory and more arithmetic. It says so where autodiff will look.

    %3, %4 = scan %xs, %h0, %w {…}   ──▶   %3, %4 = scan %xs, %h0, %w {…, recompute=true}
"""

from __future__ import annotations

from typing import ClassVar

from nncompiler.ir.graph import Function, Node
from nncompiler.ir.op import lookup
from nncompiler.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class Recompute:
    """Mark every loop; to be run before differentiation."""

    name: ClassVar[str] = "recompute"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        nodes = tuple(_marked(n) for n in function.nodes)
        if all(a is b for a, b in zip(nodes, function.nodes, strict=True)):
            return function
        return function.with_nodes(nodes)


def _marked(node: Node) -> Node:
    if not lookup(node.op).loops or ("recompute", True) in node.attrs:
        return node
    attrs = {**dict(node.attrs), "recompute": True}
    return replace(node, attrs=tuple(sorted(attrs.items())))
