"""Dead code elimination: nodes whose results nobody needs disappear.

    %0: f32[4] = exp %x                %1: f32[4] = neg %x
    %1: f32[4] = neg %x       ──▶      return y=%1
    return y=%1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nncompiler.ir.graph import Function, Value


@dataclass(frozen=True, slots=True)
class DeadCode:
    """Keep only nodes a result depends on. Parameters stay: they are the interface."""

    name: ClassVar[str] = "dce"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        needed: set[Value] = {value for _, value in function.results}
        kept = []
        for node in reversed(function.nodes):
            if any(v in needed for v in node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        return function if len(kept) == len(function.nodes) else function.with_nodes(reversed(kept))
