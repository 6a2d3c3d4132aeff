"""What several families of operators share: constants, fitting shapes, conditions, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from nncompiler.ir.graph import Attr, Builder, Node, Value
from nncompiler.ir.op import Operator, Sample, Shapes, expect, index_expr
from nncompiler.ir.scalar import Expr, Index, apply, const
from nncompiler.ir.types import F32, I32, DType, TensorType

Grads: TypeAlias = "Sequence[Value | None]"
Cotangents: TypeAlias = "tuple[Value | None, ...]"
Definitions: TypeAlias = "dict[Value, Node]"


def only(cotangents: Cotangents) -> Value:
    """The cotangent of a single result (the sweep never asks without one)."""
    assert cotangents[0] is not None
    return cotangents[0]


def producer(value: Value, op: str, definitions: Definitions) -> Node | None:
    """The node that defines `value` if it applies `op`."""
    node = definitions.get(value)
    return node if node is not None and node.op == op else None


def constant_of(value: Value, definitions: Definitions) -> float | int | bool | None:
    """The number every element of `value` has, if it is a constant, perhaps broadcast."""
    node = definitions.get(value)
    while node is not None and node.op in ("broadcast", "reshape"):
        node = definitions.get(node.inputs[0])
    if node is None or node.op != "constant":
        return None
    found = node.attr("value")
    assert isinstance(found, (int, float))
    return found


def is_constant(value: Value, number: float, definitions: Definitions) -> bool:
    """Whether `value` is exactly `number`; 0.0 and -0.0 differ in floats."""
    found = constant_of(value, definitions)
    if found is None or found != number:
        return False
    return not value.dtype.is_float or repr(float(found)) == repr(float(number))


def fit(b: Builder, value: Value, type: TensorType) -> Value:
    """`value` broadcast to the shape of `type` where it is smaller."""
    return value if value.type == type else b.emit("broadcast", value, shape=type.shape)


def cut(b: Builder, value: Value, shape: tuple[int, ...]) -> Value:
    """The part of `shape` from the first element of `value` on."""
    if value.shape == shape:
        return value
    zeros, ones = (0,) * len(shape), (1,) * len(shape)
    return b.emit("slice", value, start=zeros, stop=shape, step=ones)


class Alongside(Operator):
    """The common part of operators whose `dims` say all: a part of the result is made of parts of
    the operands in the same way."""

    def reach(self, node: Node, shape: tuple[int, ...]) -> Shapes:
        found = [list(v.shape) for v in node.inputs]
        for k, d, o in self.dims(node):
            found[k][d] = shape[o]
        return tuple(map(tuple, found))

    def along(self, node: Node, axis: int) -> tuple[int | None, ...] | None:
        found: list[int | None] = [None] * len(node.inputs)
        for k, d, o in self.dims(node):
            if o == axis:
                found[k] = d
        rank = node.output.type.rank
        shorter = all(
            d is not None or v.type.rank < rank - axis
            for v, d in zip(node.inputs, found, strict=True)
        )
        return tuple(found) if shorter and not node.attrs else None

    def narrowed(
        self, b: Builder, node: Node, inputs: Sequence[Value], shape: tuple[int, ...]
    ) -> Value:
        parts = map(cut, [b] * len(inputs), inputs, self.reach(node, shape))
        return b.emit(node.op, *parts, **dict(node.attrs))  # type: ignore[arg-type]


def attribute(node: Node, name: str, default: Attr) -> Attr:
    """An attribute that may be left out."""
    return next((v for k, v in node.attrs if k == name), default)


def expect_axis(node: Node, axis: int, rank: int) -> None:
    expect(0 <= axis < rank, f"'{node.op}' expected an axis in 0..{rank - 1}, but found {axis}")


def integer(node: Node, name: str) -> int:
    """An attribute that must be an integer."""
    value = node.attr(name)
    expect(
        isinstance(value, int) and not isinstance(value, bool),
        f"'{node.op}' expected an integer for '{name}', but found {value!r}",
    )
    assert isinstance(value, int)
    return value


def sample(
    *shapes: tuple[int, ...],
    dtype: DType = F32,
    low: float = -2.0,
    high: float = 2.0,
    attrs: Mapping[str, Attr] | None = None,
) -> Sample:
    """A `Sample` whose inputs share one dtype."""
    types = tuple(TensorType(dtype, s) for s in shapes)
    return Sample(types, tuple(sorted((attrs or {}).items())), low, high)


def conjunction(conditions: Sequence[Expr]) -> Expr | None:
    """All of them; None when there are none."""
    total: Expr | None = None
    for c in conditions:
        total = c if total is None else apply("and", total, c)
    return total


def within(index: Index, low: int | None, high: int | None) -> list[Expr]:
    """The conditions of ``low <= index < high``, bounds of None left out."""
    i = index_expr(index)
    found: list[Expr] = [] if low is None else [apply("ge", i, const(low, I32))]
    return found if high is None else [*found, apply("lt", i, const(high, I32))]
