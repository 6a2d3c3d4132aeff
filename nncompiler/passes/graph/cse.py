"""Common subexpression elimination: equal operators on equal inputs are computed once.

%0: f32[4] = exp %x                %0: f32[4] = exp %x
%1: f32[4] = exp %x       ──▶      %2: f32[4] = add %0, %0
%2: f32[4] = add %0, %1
"""

from __future__ import annotations

from typing import ClassVar

from nncompiler.ir.graph import Function, Value
from nncompiler.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class CommonSubexpressions:
    """Value numbering over the whole function; nodes that own a region are left alone."""

    name: ClassVar[str] = "cse"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        known: dict[object, tuple[Value, ...]] = {}
        same: dict[str, Value] = {}  # by name, whose hash is there already
        nodes = []
        for node in function.nodes:
            names = [v.name for v in node.inputs]
            if not same.keys().isdisjoint(names):
                inputs = tuple([same.get(v.name, v) for v in node.inputs])
                node = replace(node, inputs=inputs)
                names = [v.name for v in inputs]
            if node.body is None:
                # 0.0 and -0.0 are equal, and so are 1 and 1.0, but not as text
                key = (node.op, *names, repr(node.attrs))
                if (first := known.setdefault(key, node.outputs)) is not node.outputs:
                    same.update(zip([v.name for v in node.outputs], first, strict=True))
                    continue
            nodes.append(node)
        if not same:
            return function
        results = tuple((name, same.get(v.name, v)) for name, v in function.results)
        return replace(function, nodes=tuple(nodes), results=results)
