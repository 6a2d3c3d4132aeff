"""Random bits: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

Counter based: element `e` of a tensor is word ``e % 4`` of the block with counter
(e // 4, 0, draw, stream) and the seed as key. So a draw depends on nothing but the seed, the draw
number, the stream and the element's row-major number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nncompiler.ir.graph import Node
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import Operator, Sample, expect, expect_inputs, index_expr
from nncompiler.ir.ops.common import integer
from nncompiler.ir.ops.shape import linear_index
from nncompiler.ir.scalar import Affine, Expr, Index, apply, cast, const
from nncompiler.ir.types import U32, Array, TensorType

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox4x32(counter: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The block function on 32-bit words held in uint64: counter [..., 4], key [2]."""
    mask = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (counter[..., w].astype(np.uint64) for w in range(4))
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(ROUNDS):
        p0, p1 = np.uint64(MULTIPLIERS[0]) * c0, np.uint64(MULTIPLIERS[1]) * c2
        high0, high1, low0, low1 = p0 >> np.uint64(32), p1 >> np.uint64(32), p0 & mask, p1 & mask
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + WEYL[0]) % 2**32, (k1 + WEYL[1]) % 2**32
    return np.stack([c0, c1, c2, c3], axis=-1)


class Philox(Operator):
    """``philox {shape, stream} %seed, %draw``: random bits from u32[2] and a draw number u32[]."""

    name = "philox"
    differentiable = False
    generates = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 2)
        found = tuple(v.type for v in node.inputs)
        wanted = (TensorType(U32, (2,)), TensorType(U32))
        expect(
            found == wanted,
            f"'philox' expected u32[2] and u32[], but found {found[0]} and {found[1]}",
        )
        stream = integer(node, "stream")
        expect(0 <= stream < 2**32, f"'philox' expected a stream of 32 bits, but found {stream}")
        return (TensorType(U32, node.ints("shape")),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        seed, draw = inputs
        shape = node.ints("shape")
        size = int(np.prod(shape, dtype=np.int64))
        counter = np.zeros(((size + 3) // 4, 4), np.uint64)
        counter[:, 0] = np.arange(len(counter))
        counter[:, 2], counter[:, 3] = int(draw[()]), integer(node, "stream")
        words = philox4x32(counter, seed.astype(np.uint64))
        return words.reshape(-1)[:size].reshape(shape).astype(np.uint32)

    def samples(self) -> Sequence[Sample]:
        types = (TensorType(U32, (2,)), TensorType(U32))
        shapes: list[tuple[int, ...]] = [(), (0,), (1,), (3,), (17,), (3, 5), (33,)]
        return [
            Sample(types, (("shape", s), ("stream", 7 * n)), 0, 2**32 - 1)
            for n, s in enumerate(shapes)
        ]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        element = cast(index_expr(linear_index(index, node.ints("shape"))), U32)
        words: list[Expr] = [
            apply("shr", element, const(2, U32)),
            const(0, U32),
            ctx.read(1, ()),
            const(integer(node, "stream"), U32),
        ]
        keys = [ctx.read(0, (Affine((), k),)) for k in range(2)]
        for n in range(ROUNDS):
            key = [apply("add", keys[k], const(n * WEYL[k] % 2**32, U32)) for k in range(2)]
            words = [ctx.let(w) for w in _round(words, key)]
        word = apply("and", element, const(3, U32))
        found = words[3]
        for w in (2, 1, 0):
            found = apply("select", apply("eq", word, const(w, U32)), words[w], found)
        return found


def _round(words: Sequence[Expr], key: Sequence[Expr]) -> list[Expr]:
    """One round of the bijection."""
    m0, m1 = (const(m, U32) for m in MULTIPLIERS)
    return [
        apply("xor", apply("xor", apply("mulhi", m1, words[2]), words[1]), key[0]),
        apply("mul", m1, words[2]),
        apply("xor", apply("xor", apply("mulhi", m0, words[0]), words[3]), key[1]),
        apply("mul", m0, words[0]),
    ]
