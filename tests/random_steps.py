"""The steps of random graphs: each adds a node or a few, over values that there are.

Values keep a moderate size (every growth is damped), and decisions that rounding could flip
(comparisons, floor, argmax) are taken on exact values only: inputs and what data movement makes
of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from nncompiler.ir.graph import Builder, Value
from nncompiler.ir.ops.scan import emit_scan
from nncompiler.ir.types import I32, DType, TensorType, broadcast_shapes

SMOOTH = ("tanh", "sigmoid", "sin", "cos", "erf", "neg", "abs", "exp", "log", "sqrt", "rsqrt")
MAX_ELEMENTS = 6000


@dataclass(slots=True)
class Maker:
    random: random.Random
    dtype: DType
    b: Builder
    pool: list[Value] = field(default_factory=list)
    exact: set[Value] = field(default_factory=set)

    def pick(self, rank: int | None = None, exact: bool = False) -> Value | None:
        found = [
            v for v in self.pool
            if v.dtype == self.dtype and (rank is None or v.type.rank == rank)
            and (not exact or v in self.exact)
        ]  # fmt: skip
        return self.random.choice(found) if found else None

    def keep(self, value: Value, *sources: Value) -> None:
        """Add to the pool; data movement of exact values is exact when the sources are given."""
        if value.type.size <= MAX_ELEMENTS:
            self.pool.append(value)
            if sources and all(s in self.exact for s in sources):
                self.exact.add(value)

    def number(self, x: float) -> Value:
        return self.b.const(x, self.dtype)


def unary(m: Maker) -> None:
    x = m.pick()
    assert x is not None
    op = m.random.choice(SMOOTH)
    if op in ("log", "sqrt", "rsqrt"):
        x = m.b.emit("add", m.b.emit("mul", x, x), m.number(0.5))
    if op == "exp":
        x = m.b.emit("tanh", x)
    m.keep(m.b.emit(op, x))


def binary(m: Maker) -> None:
    x, y = m.pick(), m.pick()
    assert x is not None and y is not None
    if broadcast_shapes(x.shape, y.shape) is None:
        y = m.number(m.random.choice([0.5, -0.25, 1.5]))
    op = m.random.choice(["add", "sub", "mul", "max", "min", "div"])
    if op == "div":
        y = m.b.emit("add", m.b.emit("abs", y), m.number(1.0))
    if op == "mul":
        y = m.b.emit("tanh", y)
    m.keep(m.b.emit(op, x, y))


def reduction(m: Maker) -> None:
    x = m.pick()
    if x is None or not x.type.rank:
        return
    count = m.random.randint(1, x.type.rank)
    axes = tuple(sorted(m.random.sample(range(x.type.rank), count)))
    op = m.random.choice(["reduce_sum", "reduce_sum", "reduce_max", "reduce_min"])
    y = m.b.emit(op, x, axes=axes, keepdims=m.random.random() < 0.5)
    size = x.type.size // max(1, y.type.size)
    m.keep(m.b.emit("mul", y, m.number(1.0 / size)) if op == "reduce_sum" else y)


def product(m: Maker) -> None:
    """A contraction of two matrices with one extent in common, in one of the four orientations."""
    x = m.pick(2)
    if x is None:
        return
    k = m.random.choice([0, 1])
    partners = [
        (v, d)
        for v in m.pool
        if v.dtype == m.dtype and v.type.rank == 2
        for d in (0, 1)
        if v.shape[d] == x.shape[k]
    ]
    y, d = m.random.choice(partners)
    left = "i k" if k == 1 else "k i"
    right = "k j" if d == 0 else "j k"
    z = m.b.emit("contract", x, y, spec=f"i j k: {left}, {right} -> i j")
    m.keep(m.b.emit("mul", z, m.number(1.0 / x.shape[k])))


def movement(m: Maker) -> None:
    x = m.pick()
    assert x is not None
    kind = m.random.choice(["transpose", "reshape", "slice", "concat", "pad", "broadcast"])
    r = x.type.rank
    if kind == "transpose":
        m.keep(m.b.emit("transpose", x, perm=tuple(m.random.sample(range(r), r))), x)
    elif kind == "reshape":
        shapes = [(x.type.size,), (1, *x.shape), (*x.shape, 1), tuple(reversed(x.shape))]
        m.keep(m.b.emit("reshape", x, shape=m.random.choice(shapes)), x)
    elif kind == "slice" and r and all(x.shape):
        start = tuple(m.random.randrange(n) for n in x.shape)
        stop = tuple(m.random.randint(s + 1, n) for s, n in zip(start, x.shape, strict=True))
        m.keep(
            m.b.emit(
                "slice",
                x,
                start=start,
                stop=stop,
                step=tuple(m.random.choice([1, 1, 2]) for _ in x.shape),
            ),
            x,
        )
    elif kind == "concat" and r:
        m.keep(m.b.emit("concat", x, x, axis=m.random.randrange(r)), x)
    elif kind == "pad" and r:
        low, high = (tuple(m.random.randint(0, 2) for _ in range(r)) for _ in range(2))
        m.keep(m.b.emit("pad", x, low=low, high=high, value=0.0))
    elif kind == "broadcast":
        m.keep(m.b.emit("broadcast", x, shape=(m.random.choice([2, 3]), *x.shape)), x)


def decision(m: Maker) -> None:
    """where over a comparison of exact values, or argmax and one-hot of them."""
    x, a = m.pick(exact=True), m.pick()
    assert a is not None
    if x is None:
        return
    if m.random.random() < 0.6 or not x.type.rank:
        condition = m.b.emit(m.random.choice(["lt", "ge", "gt"]), x, m.number(0.1))
        if broadcast_shapes(x.shape, a.shape) is not None:
            m.keep(m.b.emit("where", condition, a, m.number(0.25)))
        return
    axis = m.random.randrange(x.type.rank)
    best = m.b.emit("argmax", x, axes=(axis,), keepdims=False)
    m.keep(m.b.emit("one_hot", best, depth=x.shape[axis], dtype=m.dtype.name))


def gathering(m: Maker) -> None:
    x = m.pick()
    if x is None or not x.type.rank:
        return
    axis = m.random.randrange(x.type.rank)
    ramp = m.b.emit("iota", shape=(m.random.choice([1, 3, 5]),), dtype="i32")
    indices = m.b.emit("min", ramp, m.b.const(x.shape[axis] - 1, I32))
    m.keep(m.b.emit("gather", x, indices, axis=axis), x)


def embedding(m: Maker) -> None:
    """Rows of a table, most of them more than once and one out of range, times a matrix."""
    x = m.pick(2)
    if x is None or not x.type.size:
        return
    rows, width = x.shape
    looked = (m.random.choice([2, 3]), rows + m.random.choice([0, 1, 3]))
    if math.prod(looked) * max(width, rows) > MAX_ELEMENTS:
        return
    ramp = m.b.emit("iota", shape=(math.prod(looked),), dtype="i32")
    low = m.b.emit("sub", ramp, m.b.const(m.random.choice([0, 2, rows]), I32))
    indices = m.b.emit("reshape", low, shape=looked)
    others = [v for v in m.pool if v.dtype == m.dtype and v.type.rank == 2 and v.shape[1] == width]
    gathered = m.b.emit("gather", x, indices, axis=0)
    spec = "n t j k: n t k, j k -> n t j"
    z = m.b.emit("contract", gathered, m.random.choice(others), spec=spec)
    m.keep(m.b.emit("mul", z, m.number(1.0 / width)))


def pooling(m: Maker) -> None:
    """Windows along the last one or two axes, reduced by their maximum or sum."""
    x = m.pick()
    if x is None or not x.type.rank:
        return
    count = min(x.type.rank, m.random.choice([1, 2]))
    axes = tuple(range(x.type.rank - count, x.type.rank))
    size = tuple(min(x.shape[a], m.random.choice([1, 2, 3])) for a in axes)
    if 0 in size:
        return
    stride = tuple(m.random.choice([1, 2, 3]) for _ in axes)
    one = (1,) * count
    y = m.b.emit("window", x, axes=axes, size=size, stride=stride, dilation=one)
    inner = tuple(range(x.type.rank, x.type.rank + count))
    op = m.random.choice(["reduce_max", "reduce_sum"])
    m.keep(m.b.emit(op, m.b.emit("tanh", y), axes=inner, keepdims=False))


def convolution(m: Maker) -> None:
    """A one-dimensional convolution of a matrix's rows by the first elements of another's."""
    x, w = m.pick(2), m.pick(2)
    if x is None or w is None or not x.type.size or not w.type.size:
        return
    k = min(w.shape[1], x.shape[1], 4)
    stride, pad = m.random.choice([1, 1, 2, 3]), m.random.choice([0, 1])
    if x.shape[1] + 2 * pad < k:
        return
    filters = m.b.emit("slice", w, start=(0, 0), stop=(w.shape[0], k), step=(1, 1))
    out = (x.shape[1] + 2 * pad - k) // stride + 1
    place = f"{stride}*h+r-{pad}" if pad else f"{stride}*h+r"
    place = place.removeprefix("1*")
    z = m.b.emit("contract", x, filters, spec=f"n o h={out} r: n {place}, o r -> n o h")
    m.keep(m.b.emit("mul", z, m.number(1.0 / k)))


def recurrence(m: Maker) -> None:
    """A scan with one carry along an axis: h = tanh(x + h * w), stacked."""
    x = m.pick()
    if x is None or x.type.rank < 2 or not x.type.size:
        return
    axis = m.random.randrange(x.type.rank)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    body = Builder("body")
    z, h = (body.operand(n, TensorType(m.dtype, shape)) for n in ("z", "h"))
    w = body.operand("w", TensorType(m.dtype, ()))
    after = body.emit("tanh", body.emit("add", z, body.emit("mul", h, w)))
    f = body.finish([("h", after), ("y", after)])
    scalars = [v for v in m.pool if v.dtype == m.dtype and not v.shape]
    captured = m.random.choice(scalars) if scalars else m.number(0.5)
    start = m.b.full(0.25, TensorType(m.dtype, shape))
    reverse, stack = m.random.random() < 0.5, m.random.randrange(len(shape) + 1)
    extent = x.shape[axis]
    last, ys = emit_scan(m.b, f, [(x, axis)], [start], [captured], [stack], extent, reverse)
    m.keep(last)
    m.keep(ys)


STEPS: tuple[tuple[int, Callable[[Maker], None]], ...] = (
    (5, unary), (6, binary), (4, reduction), (3, product), (4, movement), (2, decision),
    (1, gathering), (1, embedding), (1, pooling), (1, convolution), (1, recurrence),
)  # fmt: skip
