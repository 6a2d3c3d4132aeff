"""Blocks of random graphs as networks have them, with the extents that some passes ask for.

Each is drawn apart from the seed, so that graphs without it stay as they are when one is added.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from nncompiler.ir.graph import Builder, Value
from nncompiler.ir.ops.scan import emit_scan
from nncompiler.ir.types import I32, TensorType
from tests.random_steps import Maker


@dataclass(slots=True)
class Block:
    """A block under construction; `weights` are those of its parameters made so far."""

    m: Maker
    random: random.Random
    prefix: str
    weights: list[Value]

    def input(self, name: str, *shape: int) -> Value:
        return self.m.b.param("input", f"{self.prefix}{name}", TensorType(self.m.dtype, shape))

    def weight(self, name: str, *shape: int) -> Value:
        w = self.m.b.param("param", f"{self.prefix}{name}", TensorType(self.m.dtype, shape))
        self.weights.append(w)
        return w

    def contract(self, x: Value, w: Value, spec: str, terms: int) -> Value:
        """A sum of so many products, of the size of its factors."""
        z = self.m.b.emit("contract", x, w, spec=spec)
        return self.m.b.emit("mul", z, self.m.number(terms**-0.5))

    def window(self, x: Value, name: str, filters: int, size: list[int], pad: str) -> Value:
        """A convolution of 3 x 3."""
        channels = x.shape[1]
        w = self.weight(name, filters, channels, 3, 3)
        spec = (
            f"n o h={size[0]} w={size[1]} c r s: "
            f"n c h+r{pad} w+s{pad}, o c r s -> n o h w"
        )
        return self.m.b.emit("tanh", self.contract(x, w, spec, 9 * channels))


def windows(b: Block) -> None:
    """Two convolutions of 3 x 3 in a row, most of an even number of rows and columns."""
    rng = b.random
    few = rng.random() < 0.5
    batch = rng.choice((1, 1, 2, 3) if few else (2, 8, 9, 17))
    channels = [rng.choice((1, 3, 8, 15, 17))]
    channels += [rng.choice((8, 16) if few else (2, 3, 8, 17)) for _ in range(2)]
    size = [rng.choice((2, 2, 4, 4, 6, 8, 5)) for _ in range(2)]
    x = b.input("image", batch, channels[0], size[0] + 2, size[1] + 2)
    for k, filters in enumerate(channels[1:]):
        y = b.window(x, f"window{k}", filters, size, "-1" if k else "")
        x = b.m.b.emit("add", x, y) if x.type == y.type else y
        b.m.keep(x)


def channels(b: Block) -> None:
    """Convolutions of 3 x 3 with channels enough that gradients of their weights are transformed;
    a pooling behind them that often leaves rows or columns out."""
    rng, emit = b.random, b.m.b.emit
    batch, size = rng.choice((8, 8, 9, 16)), [rng.choice((4, 4, 5, 6)) for _ in range(2)]
    x = b.input("picture", batch, rng.choice((3, 24, 25)), *size)
    for k in range(2):
        x = b.window(x, f"filters{k}", rng.choice((24, 24, 32, 33)), size, "-1")
        if rng.random() < 0.5:
            x = emit("add", x, b.weight(f"shift{k}", x.shape[1], 1, 1))
    square, stride = rng.choice((2, 2, 3)), rng.choice((2, 2, 3))
    one = {"size": (square,) * 2, "stride": (stride,) * 2, "dilation": (1, 1)}
    y = emit("window", x, axes=(2, 3), **one)
    b.m.keep(emit(rng.choice(("reduce_max", "reduce_sum")), y, axes=(4, 5), keepdims=False))


def gates(b: Block) -> None:
    """A long short-term memory: slices of one product, in a loop."""
    rng = b.random
    batch, time = rng.choice((1, 1, 1, 2, 8)), rng.choice((2, 3, 5))
    units = rng.choice((5, 8, 16, 24, 33))
    axis, reverse = rng.choice((0, 1)), rng.random() < 0.25
    steps = b.input("steps", *((time, batch) if axis == 0 else (batch, time)), 4 * units)
    w = b.weight("gates", units, 4 * units)
    body, part = Builder("body"), TensorType(b.m.dtype, (batch, units))
    z = body.operand("z", TensorType(b.m.dtype, (batch, 4 * units)))
    h, c = body.operand("h", part), body.operand("c", part)
    wh = body.operand("w", w.type)
    product = body.emit("contract", h, wh, spec="i j k: i k, k j -> i j")
    z = body.emit("add", z, body.emit("mul", product, body.const(units**-0.5, b.m.dtype)))
    cut = [
        body.emit("slice", z, start=(0, n * units), stop=(batch, (n + 1) * units), step=(1, 1))
        for n in range(4)
    ]
    i, f, o = (body.emit("sigmoid", x) for x in cut[:3])
    new = body.emit("mul", i, body.emit("tanh", cut[3]))
    new = body.emit("add", body.emit("mul", f, c), new)
    out = body.emit("mul", o, body.emit("tanh", new))
    loop = body.finish([("h", out), ("c", new), ("y", out)])
    start = [b.m.b.full(x, part) for x in (0.0, 0.25)]
    found = emit_scan(b.m.b, loop, [(steps, axis)], start, [w], [axis], time, reverse)
    for value in rng.sample(found, 3):
        b.m.keep(value)


def causal(b: Block) -> None:
    """Attention that does not look ahead."""
    rng, emit = b.random, b.m.b.emit
    batch, heads = rng.choice((1, 2)), rng.choice((1, 2, 3))
    time, depth = rng.choice((5, 16, 17, 33, 40)), rng.choice((3, 8, 16))
    x = b.input("text", batch, heads, time, depth)
    q, k, v = (
        b.contract(x, b.weight(f"{n}", depth, depth), "n h t j i: n h t i, i j -> n h t j", depth)
        for n in ("query", "key", "value")
    )
    scores = b.contract(q, k, "n h i j d: n h i d, n h j d -> n h i j", depth)
    ramp = emit("iota", shape=(time,), dtype="i32")
    ahead = emit("sub", ramp, b.m.b.const(rng.choice((0, 0, 0, 2)), I32))
    seen = emit("ge", emit("reshape", ramp, shape=(time, 1)), ahead)
    scores = emit("where", seen, scores, b.m.number(float("-inf")))
    top = emit("stop_gradient", emit("reduce_max", scores, axes=(3,), keepdims=True))
    raised = emit("exp", emit("sub", scores, top))
    share = emit("div", raised, emit("reduce_sum", raised, axes=(3,), keepdims=True))
    b.m.keep(emit("contract", share, v, spec="n h i d j: n h i j, n h j d -> n h i d"))


def few(b: Block) -> None:
    """Two dense layers for rows or sequences, at times of an even size, the second of a few units:
    lanes of its gradients run along its rows."""
    rng = b.random
    shape = rng.choice(((2,), (16,), (33,), (64,), (8, 16), (9, 17)))
    wide, inputs, units = (rng.choice(x) for x in ((48, 64, 84), (5, 16, 24), (2, 3, 5, 10, 12)))
    x, rows = b.input("rows", *shape, inputs), "b i"[: 2 * len(shape) - 1]
    for k, n in enumerate((wide, units)):
        depth = x.shape[-1]
        spec = f"{rows} j k: {rows} k, k j -> {rows} j"
        x = b.contract(x, b.weight(f"dense{k}", depth, n), spec, depth)
        x = b.m.b.emit("tanh", b.m.b.emit("add", x, b.weight(f"bias{k}", n)))
        if rng.random() < 0.5:
            x = b.m.b.emit("mul", _even(b, x), b.weight(f"gain{k}", n))
        b.m.keep(x)


def _even(b: Block, x: Value) -> Value:
    """Rows divided by their length."""
    emit, last = b.m.b.emit, (x.type.rank - 1,)
    square = emit("reduce_sum", emit("mul", x, x), axes=last, keepdims=True)
    length = emit("sqrt", emit("add", square, b.m.number(1.0)))
    return emit("div", x, length)


BLOCKS: tuple[tuple[float, Callable[[Block], None]], ...] = (
    (0.2, windows), (0.05, channels), (0.08, gates), (0.08, causal), (0.08, few),
)  # fmt: skip


def blocks(m: Maker, seed: int, prefix: str) -> list[Value]:
    """Adds those blocks that are drawn, and gives their weights."""
    weights = list[Value]()
    for often, block in BLOCKS:
        rng = random.Random(f"{block.__name__} {seed}")
        if rng.random() <= often:
            block(Block(m, rng, prefix, weights))
    return weights
