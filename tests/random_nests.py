"""Random nests with their arrays, for `fuzz_schedules`: products, convolutions, several sums, rows
like a softmax's, copies that turn; with axes in memory in any order, and padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from nncompiler.ir.kernel import Fold, For, Kernel, Let, Store
from nncompiler.ir.scalar import Affine, Expr, Iota, Load, Ref, apply, const
from nncompiler.ir.types import F32, F64, I32, DType
from tests.nest_harness import at, axes, kernel, load

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 48, 64, 65)

Arrays = dict[str, np.ndarray]


class Maker:
    """Arrays of one dtype, with their axes in memory in any order."""

    def __init__(self, r: Random) -> None:
        self.r = r
        self.dtype: DType = r.choice((F32, F32, F64))
        self.arrays: Arrays = {}
        self.values = np.random.default_rng(r.randrange(2**32))

    def size(self, most: int = 65) -> int:
        return self.r.choice([n for n in SIZES if n <= most])

    def array(self, name: str, *shape: int) -> np.ndarray:
        """A new array; one in three is not in row-major order, one in four has padded rows."""
        order = list(range(len(shape)))
        if self.r.random() < 0.33:
            self.r.shuffle(order)
        wide = [shape[n] for n in order]
        if wide and self.r.random() < 0.25:
            wide[-1] += self.r.choice((1, 3, 16))
        found = self.values.standard_normal(wide).astype(self.dtype.numpy)
        found = found[(..., slice(shape[order[-1]]))] if wide else found
        self.arrays[name] = found.transpose(np.argsort(order)) if wide else found
        return self.arrays[name]

    def load(self, name: str, *index: object, **fields: object) -> Load:
        return load(name, self.arrays[name], *index, **fields)

    def ref(self, name: str) -> Ref:
        return Ref(name, self.dtype)

    def fold(self, name: str, loops: tuple, term: Expr, **fields: object) -> Fold:
        return Fold((name,), "sum", loops, (term,), **fields)

    def epilogue(self, sums: Expr, names: Sequence[str], sizes: Sequence[int]) -> tuple:
        """Statements that use the sums of a point: a store, with a bias or an update in place."""
        self.array("y", *sizes)
        place, number = at(*names), const(0.5, self.dtype)
        match self.r.randrange(5):
            case 0 | 1:
                return (Store("y", place, sums),)
            case 2:
                self.array("bias", sizes[-1])
                z = Let("z", apply("add", sums, self.load("bias", names[-1])))
                return z, Store("y", place, apply("max", self.ref("z"), const(0, self.dtype)))
            case 3:
                old = self.load("y", *names)
                return (Store("y", place, apply("sub", old, apply("mul", number, sums))),)
            case _:
                self.array("m", *sizes)
                moved = apply("add", apply("mul", self.load("m", *names), number), sums)
                v = self.ref("v")
                step = apply("div", v, apply("add", apply("abs", v), number))
                step = apply("mul", apply("tanh", step), number)
                new = apply("sub", self.load("y", *names), step)
                return Let("v", moved), Store("m", place, v), Store("y", place, new)


def product(m: Maker) -> Kernel:
    """``y[n,i,j] = sum k, l { a * b }``, with more or fewer axes in each factor."""
    sizes = {"i": m.size(), "j": m.size(), "k": m.size()}
    shared = m.r.random() < 0.3
    if shared or m.r.random() < 0.2:
        sizes["n"] = m.size(4)
    if m.r.random() < 0.4:
        sizes["l"] = m.size(6)
    names = [x for x in "nij" if x in sizes]
    left = [x for x in "nikl" if x in sizes]
    right = [x for x in ("nkjl" if shared else "kjl") if x in sizes]
    m.array("a", *(sizes[x] for x in left))
    m.array("b", *(sizes[x] for x in right))
    term = [m.load("a", *left), m.load("b", *right)]
    m.r.shuffle(term)
    summed = [x for x in "kl" if x in sizes]
    m.r.shuffle(summed)
    within = ()
    if m.r.random() < 0.15 and sizes["k"] == sizes["i"]:
        within = (Affine.axis("i") + Affine.axis("k") * -1,)
        m.arrays["a"][...] *= np.tri(sizes["i"], dtype=m.dtype.numpy) if left == ["i", "k"] else 1
        within = within if left == ["i", "k"] else ()
    fold = m.fold("acc", axes(**{x: sizes[x] for x in summed}), apply("mul", *term), within=within)
    rest = m.epilogue(m.ref("acc"), names, [sizes[x] for x in names])
    return kernel(For(axes(**{x: sizes[x] for x in names}), (fold, *rest)))


def two_products(m: Maker) -> Kernel:
    """``y[i,j] = sum k { x w } + sum l { h u }``"""
    i, j, k, n = m.size(40), m.size(40), m.size(20), m.size(20)
    for name, shape in {"x": (i, k), "w": (k, j), "h": (i, n), "u": (n, j)}.items():
        m.array(name, *shape)
    one = m.fold("p", axes(k=k), apply("mul", m.load("x", *"ik"), m.load("w", *"kj")))
    two = m.fold("q", axes(l=n), apply("mul", m.load("u", *"lj"), m.load("h", *"il")))
    rest = m.epilogue(apply("add", m.ref("p"), m.ref("q")), "ij", (i, j))
    return kernel(For(axes(i=i, j=j), (one, two, *rest)))


def convolution(m: Maker) -> Kernel:
    """Rows of images, padded by a guard or not; or the gradient of the weights."""
    n, w, c, o, k = m.size(3), m.size(24), m.size(20), m.size(33), m.r.choice((1, 2, 3))
    place = Affine.axis("w") + Affine.axis("k")
    fields: dict[str, object] = {}
    wide = w + k - 1
    if m.r.random() < 0.5:
        place, wide = place + -(k // 2), w
        inside = [apply("ge", Iota(place), const(0, I32)), apply("lt", Iota(place), const(w, I32))]
        fields = {"guard": apply("and", *inside), "fill": const(0, m.dtype)}
    m.array("x", n, wide, c)
    image = m.load("x", "n", place, "c", **fields)
    if m.r.random() < 0.4:
        m.array("d", n, w, o)
        sizes, summed = {"k": k, "c": c, "o": o}, {"n": n, "w": w}
        term = [image, m.load("d", *"nwo")]
    else:
        m.array("f", k, c, o)
        sizes, summed = {"n": n, "w": w, "o": o}, {"k": k, "c": c}
        term = [image, m.load("f", *"kco")]
    m.r.shuffle(term)
    fold = m.fold("acc", axes(**summed), apply("mul", *term))
    rest = m.epilogue(m.ref("acc"), [*sizes], [*sizes.values()])
    return kernel(For(axes(**sizes), (fold, *rest)))


def rows(m: Maker) -> Kernel:
    """A softmax, and sums of columns behind it where a coin says so."""
    i, j = m.size(), m.size()
    m.array("x", i, j)
    m.array("y", i, j)
    x = m.load("x", *"ij")
    power = apply("exp", apply("sub", x, m.ref("m")))
    inner = (
        Fold(("m",), "max", axes(j=j), (x,)),
        m.fold("s", axes(j=j), power),
        For(axes(j=j), (Store("y", at(*"ij"), apply("div", power, m.ref("s"))),)),
    )
    body: list = [For(axes(i=i), inner)]
    if m.r.random() < 0.5:
        m.array("z", j)
        total = m.fold("t", axes(k=i), m.load("x", "k", "j"))
        body.append(For(axes(j=j), (total, Store("z", at("j"), m.ref("t")))))
    return kernel(*body)


def turn(m: Maker) -> Kernel:
    """A copy with its axes in another order."""
    i, j, n = m.size(), m.size(), m.size(3)
    m.array("x", n, i, j)
    m.array("y", j, n, i)
    return kernel(For(axes(n=n, i=i, j=j), (Store("y", at(*"jni"), m.load("x", *"nij")),)))


NESTS: tuple[Callable[[Maker], Kernel], ...] = (
    product, product, product, two_products, convolution, convolution, rows, turn
)  # fmt: skip
