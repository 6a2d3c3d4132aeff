"""What elementwise operators have in common: result[i] = primitive(a[i], b[i], …), with NumPy
broadcasting.

Each is the scalar primitive of the same name; gradients, simplifications and references are its
own. Operands have one dtype. See `arithmetic`, `logic` and `unary`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from nncompiler.errors import UserError
from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import DimMap, Sample, broadcast_dims, broadcast_index, expect, expect_inputs
from nncompiler.ir.ops.common import Alongside, Definitions, fit, producer, sample
from nncompiler.ir.scalar import PRIMITIVES, Expr, Index, apply
from nncompiler.ir.types import F64, I32, Array, DType, TensorType, broadcast_shapes

PAIRS = (
    ((0,), (0,)), ((1,), (1,)), ((3,), ()), ((17,), (17,)), ((2, 33), (33,)), ((15, 1), (1, 16)),
    ((3, 1, 31), (2, 1)),
)  # fmt: skip


class Elementwise(Alongside):
    """The common part. Subclasses give `value`, their meaning on NumPy arrays, and `rule`, their
    own simplifications.
    """

    arity: ClassVar[int] = 2
    kinds: ClassVar[frozenset[str]] = frozenset({"float", "int", "uint"})

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, self.arity)
        dtype = common_dtype(node, node.inputs)
        expect(dtype.kind in self.kinds, f"'{node.op}' does not take {dtype} operands")
        return (TensorType(PRIMITIVES[self.name].result or dtype, common_shape(node)),)

    @abstractmethod
    def value(self, *inputs: Any) -> Any:
        """The meaning, on NumPy arrays."""

    def reference(self, node: Node, *inputs: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(self.value(*inputs), self.infer(node)[0].dtype.numpy)

    def samples(self) -> Sequence[Sample]:
        found = [sample(*pair) for pair in PAIRS] + [sample((5,), (3, 5), dtype=F64)]
        if "int" in self.kinds:
            found.append(sample((7,), (7,), dtype=I32, low=-5, high=5))
        return found

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        return apply(self.name, *read_all(node, index, ctx))

    def dims(self, node: Node) -> DimMap:
        return elementwise_dims(node)

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        """A simpler value, perhaps of a shape that still has to be broadcast to the result's."""
        return None

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        found = self.rule(b, node, definitions)
        if found is None:
            return without_broadcasts(b, node, definitions)
        return fit(b, found, node.output.type)


def common_dtype(node: Node, operands: Sequence[Value]) -> DType:
    first = operands[0].dtype
    for v in operands:
        if v.dtype != first:
            raise _unfit(node, "operands of one dtype", operands)
    return first


def common_shape(node: Node) -> tuple[int, ...]:
    shape: tuple[int, ...] = ()
    for v in node.inputs:
        joined = broadcast_shapes(shape, v.shape)
        if joined is None:
            raise _unfit(node, "shapes that broadcast", node.inputs)
        shape = joined
    return shape


def _unfit(node: Node, expected: str, operands: Sequence[Value]) -> UserError:
    found = " and ".join(str(v.type) for v in operands)
    return UserError("NN0310", f"'{node.op}' expected {expected}, but found {found}")


def read_all(node: Node, index: tuple[Index, ...], ctx: Lowering) -> list[Expr]:
    return [ctx.read(k, broadcast_index(index, v.shape)) for k, v in enumerate(node.inputs)]


def elementwise_dims(node: Node) -> DimMap:
    return _dims(tuple([v.type.shape for v in node.inputs]), node.output.type.shape)


@lru_cache(4096)
def _dims(shapes: tuple[tuple[int, ...], ...], out: tuple[int, ...]) -> DimMap:
    return tuple(d for k, shape in enumerate(shapes) for d in broadcast_dims(shape, out, k))


def without_broadcasts(b: Builder, node: Node, definitions: Definitions) -> Value | None:
    """The same without the explicit broadcasts that its own broadcasting makes needless."""
    inputs, shape = list(node.inputs), node.output.shape
    for k, v in enumerate(node.inputs):
        if source := producer(v, "broadcast", definitions):
            shorter = [*inputs[:k], source.inputs[0], *inputs[k + 1 :]]
            if common_shape(Node(node.op, tuple(shorter), ())) == shape:
                inputs = shorter
    return b.emit(node.op, *inputs) if inputs != list(node.inputs) else None
