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
        same: dict[Value, Value] = {}
        nodes = []
        for node in function.nodes:
            inputs = tuple(same.get(v, v) for v in node.inputs)
            attrs = tuple((k, repr(v)) for k, v in node.attrs)
            key = (node.op, inputs, attrs, tuple(v.type for v in node.outputs))
            if node.body is None and key in known:
                same.update(zip(node.outputs, known[key], strict=True))
                continue
            known[key] = node.outputs
            nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
        if not same:
            return function
        results = tuple((name, same.get(v, v)) for name, v in function.results)
        return replace(function, nodes=tuple(nodes), results=results)
