"""Comparisons and connectives, elementwise: their result is bool, and no gradient flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.op import Sample
from nncompiler.ir.ops.common import Definitions, constant_of, sample
from nncompiler.ir.ops.elementwise import PAIRS, Elementwise
from nncompiler.ir.types import BOOL, F32, I32, U8


class Logic(Elementwise):
    """Comparisons and connectives; their result is bool."""

    differentiable = False

    def samples(self) -> Sequence[Sample]:
        dtypes = [d for d in (F32, I32, BOOL, U8) if d.kind in self.kinds]
        found = [sample(*pair, dtype=dtypes[0]) for pair in PAIRS]
        return found + [sample((33,), (33,), dtype=d, low=0, high=3) for d in dtypes]


class Eq(Logic):
    name = "eq"
    kinds = frozenset({"float", "int", "uint", "bool"})

    def value(self, *inputs: Any) -> Any:
        return np.equal(*inputs)


class Ne(Logic):
    name = "ne"
    kinds = frozenset({"float", "int", "uint", "bool"})

    def value(self, *inputs: Any) -> Any:
        return np.not_equal(*inputs)


class Lt(Logic):
    name = "lt"

    def value(self, *inputs: Any) -> Any:
        return np.less(*inputs)


class Le(Logic):
    name = "le"

    def value(self, *inputs: Any) -> Any:
        return np.less_equal(*inputs)


class Gt(Logic):
    name = "gt"

    def value(self, *inputs: Any) -> Any:
        return np.greater(*inputs)


class Ge(Logic):
    name = "ge"

    def value(self, *inputs: Any) -> Any:
        return np.greater_equal(*inputs)


class And(Logic):
    name = "and"
    kinds = frozenset({"bool"})

    def value(self, *inputs: Any) -> Any:
        return np.logical_and(*inputs)

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        for x, y in (node.inputs, node.inputs[::-1]):
            known = constant_of(y, definitions)
            if known is not None:
                return x if known else y
        return None


class Or(Logic):
    name = "or"
    kinds = frozenset({"bool"})

    def value(self, *inputs: Any) -> Any:
        return np.logical_or(*inputs)

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        for x, y in (node.inputs, node.inputs[::-1]):
            known = constant_of(y, definitions)
            if known is not None:
                return y if known else x
        return None


class Not(Logic):
    name = "not"
    arity = 1
    kinds = frozenset({"bool"})

    def value(self, *inputs: Any) -> Any:
        return np.logical_not(*inputs)

    def samples(self) -> Sequence[Sample]:
        return [sample((n,), dtype=BOOL) for n in (0, 1, 17)]

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        inner = definitions.get(node.inputs[0])
        match inner:
            case Node(op="not"):
                return inner.inputs[0]
            case Node(op="eq"):
                return b.emit("ne", *inner.inputs)
            case Node(op="ne"):
                return b.emit("eq", *inner.inputs)
            case _:
                return None  # not (a < b) is not a >= b: nan
