"""Sums of products through code generation, against NumPy."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import machine, select
from nncompiler.ir.kernel import Fold, For, Kernel, Let, Store
from nncompiler.ir.scalar import (
    Affine,
    Iota,
    Ref,
    apply,
    const,
)
from nncompiler.ir.types import F32, I32
from tests.codegen.nests import (
    DTYPE,
    SIZES,
    agrees,
    check_product,
    matrices,
    product,
    scheduled,
)
from tests.nest_harness import (
    at,
    axes,
    buffer,
    kernel,
    load,
    module_text,
    optimised,
    run,
)


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [*zip(SIZES, SIZES[3:] + SIZES[:3], SIZES[5:] + SIZES[:5], strict=True), (33, 100, 17)],
)
def test_product_of_awkward_sizes(rng, m, n, k):
    """Register tiles with remainders of rows and columns, in both forms."""
    a, b, c = matrices(rng, m, n, k, np.float32)
    check_product(
        product(
            a,
            b,
            strategy="contract",
            vector=("j",),
            register="i",
            tile=(6, 16),
            order=("j", "i", "k"),
        ),
        a,
        b,
        c,
    )
    a, b, c = matrices(rng, m, n, k, np.float32, b_turned=True)
    check_product(
        product(
            a,
            b,
            strategy="contract",
            vector=("k",),
            register="i",
            tile=(3, 4),
            order=("j", "i", "k"),
        ),
        a,
        b,
        c,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("a_turned", "b_turned", "c_turned"), [*itertools.product((False, True), repeat=3)]
)
def test_product_of_any_layout(rng, dtype, a_turned, b_turned, c_turned):
    """Every transposition, with the schedule that tiling chooses."""
    a, b, c = matrices(rng, 13, 21, 37, dtype, a_turned, b_turned)
    c = np.zeros(c.shape[::-1], dtype).T if c_turned else c
    nest = scheduled(product(a, b, dtype=DTYPE[dtype]), a=a, b=b, c=c)
    assert nest.schedule.strategy == "contract"
    check_product(nest, a, b, c)


@pytest.mark.parametrize("size", [(1, 100, 33), (100, 1, 33), (33, 100, 1), (1, 1, 100)])
def test_vectors_as_factors(rng, size):
    """Axes of extent one are no axes: matrix-vector, outer and inner products."""
    m, n, k = size
    a, b, c = matrices(rng, m, n, k, np.float32)
    names = {"i": m, "j": n, "k": k}
    index = {x: x if e > 1 else 0 for x, e in names.items()}
    term = apply("mul", load("a", a, index["i"], index["k"]), load("b", b, index["k"], index["j"]))
    loops = axes(**{x: names[x] for x in "ij" if names[x] > 1})
    fold = Fold(("acc",), "sum", axes(k=k) if k > 1 else (), (term,))
    body = (fold, Store("c", at(index["i"], index["j"]), Ref("acc", F32)))
    nest = kernel(For(loops, body)) if loops else kernel(*body)
    check_product(scheduled(nest, a=a, b=b, c=c), a, b, c)


def test_epilogue_with_optimizer_in_place(rng):
    """The weight gradient, momentum and update in one epilogue; W and m are read and written."""
    a, b, w = matrices(rng, 19, 37, 23, np.float32, a_turned=True)
    w = rng.standard_normal(w.shape).astype(np.float32)
    m = rng.standard_normal(w.shape).astype(np.float32)
    lr = np.array(0.1, np.float32)
    at_ij = at("i", "j")
    moment = apply("add", apply("mul", const(0.9, F32), load("m", m, "i", "j")), Ref("acc", F32))
    step = apply(
        "sub", load("w", w, "i", "j"), apply("mul", Ref("rate", F32), load("m", m, "i", "j"))
    )
    body = product(a, b, Store("m", at_ij, moment), Store("w", at_ij, step)).body
    nest = kernel(Let("rate", load("lr", lr)), *body)
    nest = scheduled(nest, a=a, b=b, m=m, w=w, lr=lr)
    assert nest.schedule.strategy == "contract"
    m1 = 0.9 * m + a.astype(np.float64) @ b
    w1 = w - 0.1 * m1
    run(nest, a=a, b=b, m=m, w=w, lr=lr)
    np.testing.assert_allclose(m, m1, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(w, w1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("m", "n"), [(9, 21), (13, 48), (7, 32), (1, 16), (40, 17)])
def test_epilogue_with_bias_activation_and_mask(rng, m, n):
    """A bias row, a transcendental, a comparison stored as bytes, and a per-row factor: in a loop
    over the rows of whole tiles, vector by vector in others."""
    a, b, c = matrices(rng, m, n, 12, np.float32)
    bias, row = (
        rng.standard_normal(n).astype(np.float32),
        rng.standard_normal(m).astype(np.float32),
    )
    mask = np.zeros((m, n), bool)
    z = Let(
        "z",
        apply(
            "mul", apply("add", Ref("acc", F32), load("bias", bias, "j")), load("row", row, "i")
        ),
    )
    nest = product(
        a,
        b,
        z,
        Store("c", at("i", "j"), apply("tanh", Ref("z", F32))),
        Store("mask", at("i", "j"), apply("gt", Ref("z", F32), const(0, F32))),
    )
    arrays = {"a": a, "b": b, "c": c, "bias": bias, "row": row, "mask": mask}
    agrees(scheduled(nest, **arrays), rtol=1e-5, **arrays)


def test_two_products_in_one_nest(rng):
    """Recurrent gates: x W + h U, both tiled, with panels of their own."""
    x, w, c = matrices(rng, 40, 35, 9, np.float32)
    h, u, _ = matrices(rng, 40, 35, 14, np.float32)
    one = Fold(
        ("p",), "sum", axes(k=9), (apply("mul", load("x", x, "i", "k"), load("w", w, "k", "j")),)
    )
    two = Fold(
        ("q",), "sum", axes(l=14), (apply("mul", load("u", u, "l", "j"), load("h", h, "i", "l")),)
    )
    total = Store("c", at("i", "j"), apply("add", Ref("p", F32), Ref("q", F32)))
    arrays = {"x": x, "w": w, "h": h, "u": u, "c": c}
    nest = scheduled(kernel(For(axes(i=40, j=35), (one, two, total))), **arrays)
    assert nest.schedule.strategy == "contract"
    run(nest, **arrays)
    np.testing.assert_allclose(c, x @ w + h @ u, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("slices", "loops"), [(1, 1), (4, 1), (6, 6)])
@pytest.mark.parametrize("n", [48, 67])
def test_products_of_one_row_abreast(rng, slices, loops, n):
    """Slices of one product share each step, as long as there are registers for their sums."""
    x = rng.standard_normal(96).astype(np.float32)
    w = rng.standard_normal((96, slices * n)).astype(np.float32)
    c = np.zeros(n, np.float32)
    sums = [
        Fold(
            (f"s{g}",), "sum", axes(k=96),
            (apply("mul", load("x", x, "k"), load("w", w, "k", Affine.axis("j") + g * n)),),
        )
        for g in range(slices)
    ]  # fmt: skip
    total = Ref("s0", F32)
    for g in range(1, slices):
        total = apply("sub", total, Ref(f"s{g}", F32))
    schedule = {"strategy": "contract", "vector": "j", "tile": (1, 24), "order": ("j", "k")}
    nest = kernel(For(axes(j=n), (*sums, Store("c", at("j"), total))), **schedule)
    run(nest, x=x, w=w, c=c)
    parts = (x @ w).reshape(slices, n)
    np.testing.assert_allclose(c, parts[0] - parts[1:].sum(axis=0), rtol=1e-4, atol=1e-4)
    table = {name: buffer(name, array) for name, array in {"x": x, "w": w, "c": c}.items()}
    text = emit_kernel(nest, table, select("x86-64-v3"), "kernel").text
    found = re.findall(r"icmp \w+ i64 [^,]+, 96$", text, re.M)
    assert n % 24 or len(found) == loops  # with a tile left over, its loops too


def convolution(x, w, y, guard: bool) -> Kernel:
    """3x3, NHWC; with `guard` the padding is a guarded load, else `x` carries a halo."""
    n, h, wd, o = y.shape
    c = x.shape[-1]
    row, column = Affine.axis("h") + Affine.axis("r"), Affine.axis("w") + Affine.axis("s")
    fields = {}
    if guard:
        row, column = row + -1, column + -1
        inside = [
            apply("ge", Iota(row), const(0, I32)),
            apply("lt", Iota(row), const(h, I32)),
            apply("ge", Iota(column), const(0, I32)),
            apply("lt", Iota(column), const(wd, I32)),
        ]
        condition = inside[0]
        for test in inside[1:]:
            condition = apply("and", condition, test)
        fields = {"guard": condition, "fill": const(0, F32)}
    term = apply(
        "mul", load("x", x, "n", row, column, "c", **fields), load("w", w, "r", "s", "c", "o")
    )
    fold = Fold(("acc",), "sum", axes(r=3, s=3, c=c), (term,))
    return kernel(
        For(axes(n=n, h=h, w=wd, o=o), (fold, Store("y", at("n", "h", "w", "o"), Ref("acc", F32))))
    )


@pytest.mark.parametrize("guard", [False, True])
def test_convolution_is_a_contraction(rng, guard):
    """Several reduction axes with accumulators live across them; padding by halo or by guard."""
    wide = rng.standard_normal((2, 7, 9, 3)).astype(np.float32)
    wide[:, (0, -1)] = wide[:, :, (0, -1)] = 0
    w = rng.standard_normal((3, 3, 3, 12)).astype(np.float32)
    y = np.zeros((2, 5, 7, 12), np.float32)
    x = np.ascontiguousarray(wide[:, 1:-1, 1:-1]) if guard else wide
    nest = scheduled(convolution(x, w, y, guard), x=x, w=w, y=y)
    assert nest.schedule.strategy == "contract"
    run(nest, x=x, w=w, y=y)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(1, 2))
    np.testing.assert_allclose(y, np.einsum("nhwcrs,rsco->nhwo", windows, w), rtol=1e-4, atol=1e-5)


def test_weights_beyond_the_first_cache_are_read_by_narrow_tiles():
    """Where columns come from the second-level cache, tiles have more rows and fewer of them."""
    x, w, y = (np.zeros(s, np.float32) for s in ((1, 8, 8, 64), (3, 3, 64, 64), (1, 8, 8, 64)))
    nest = scheduled(convolution(x, w, y, True), x=x, w=w, y=y)
    assert nest.schedule.vector == ("o",)
    assert nest.schedule.tile == (4, 16)


def test_gathered_rows_have_tiles_as_others(rng):
    """Where a row is, is known before its sums; where an element is, only in each step of them."""
    table, b, c = matrices(rng, 40, 128, 64, np.float32)
    rows = rng.permutation(40)[:24].astype(np.int32)
    places, c = rng.permutation(64).astype(np.int32), c[:24]
    nests = []
    for one, other in ((load("p", rows, "i"), "k"), ("i", load("p", places, "k"))):
        term = apply("mul", load("a", table, one, other), load("b", b, "k", "j"))
        fold = Fold(("acc",), "sum", axes(k=64), (term,))
        done = Store("c", at("i", "j"), Ref("acc", F32))
        nests.append(kernel(For(axes(i=24, j=128), (fold, done))))
    arrays = {"a": table, "b": b, "c": c}
    by_row, by_place = (
        scheduled(nest, p=p, **arrays) for nest, p in zip(nests, (rows, places), strict=True)
    )
    assert by_row.schedule.tile == (6, 16)
    assert by_place.schedule.tile is not None and by_place.schedule.tile[0] < 6
    for nest, p in ((by_row, rows), (by_place, places)):
        agrees(nest, p=p, **arrays)


@pytest.mark.parametrize("order", ["ij", "ji"])
def test_larger_factor_has_the_columns(order):
    """The rows' factor is read again for each tile of columns: the smaller one, where tiles are
    alike."""
    x, y, c = (np.zeros(s, np.float32) for s in ((12, 160, 32), (12, 80, 32), (12, 12)))
    image = load("x", x, "j", Affine.axis("l") * 2, "k")
    term = apply("mul", load("y", y, "i", "l", "k"), image)
    fold = Fold(("acc",), "sum", axes(l=80, k=32), (term,))
    loops = axes(**dict.fromkeys(order, 12))
    nest = kernel(For(loops, (fold, Store("c", at("i", "j"), Ref("acc", F32)))))
    found = scheduled(nest, x=x, y=y, c=c).schedule
    assert (found.vector, found.register) == (("k",), "i")


def test_batched_product(rng):
    """A batch axis in both factors goes outside the tiles."""
    a, b = (
        rng.standard_normal((3, 5, 8)).astype(np.float32),
        rng.standard_normal((3, 8, 18)).astype(np.float32),
    )
    c = np.zeros((3, 5, 18), np.float32)
    fold = Fold(
        ("acc",),
        "sum",
        axes(k=8),
        (apply("mul", load("a", a, "n", "i", "k"), load("b", b, "n", "k", "j")),),
    )
    nest = kernel(
        For(axes(n=3, i=5, j=18), (fold, Store("c", at("n", "i", "j"), Ref("acc", F32))))
    )
    nest = scheduled(nest, a=a, b=b, c=c)
    assert nest.schedule.strategy == "contract" and nest.schedule.order[0] == "n"
    run(nest, a=a, b=b, c=c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("windows_first", [False, True])
def test_sums_over_lanes_without_rows(rng, windows_first):
    """Each channel has a filter of its own, no axis is in the filters alone: the lanes sum, and
    the columns are places of the windows, whichever factor comes first.
    """
    x = rng.standard_normal((2, 3, 12)).astype(np.float32)
    w = rng.standard_normal((3, 9)).astype(np.float32)
    y = np.zeros((2, 3, 4), np.float32)
    factors = load("x", x, "n", "c", Affine.axis("i") + Affine.axis("k")), load("w", w, "c", "k")
    term = apply("mul", *(factors if windows_first else factors[::-1]))
    fold = Fold(("acc",), "sum", axes(k=9), (term,))
    body = (fold, Store("y", at("n", "c", "i"), Ref("acc", F32)))
    schedule = {"strategy": "contract", "vector": ("k",), "tile": (1, 3), "order": tuple("ncik")}
    run(kernel(For(axes(n=2, c=3, i=4), body), **schedule), x=x, w=w, y=y)
    windows = np.lib.stride_tricks.sliding_window_view(x, 9, axis=2)
    np.testing.assert_allclose(y, np.einsum("ncik,ck->nci", windows, w), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tile", "vector", "turned"),
    [((6, 16), "j", False), ((5, 16), "j", False), ((3, 4), "k", True)],
)
def test_accumulators_stay_in_registers(tile, vector, turned):
    """On AVX2 no vector register goes to the stack inside the reduction loop."""
    a, b, c = matrices(np.random.default_rng(0), 60, 48, 300, np.float32, b_turned=turned)
    nest = product(
        a, b, strategy="contract", vector=(vector,), register="i", tile=tile, order=("j", "i", "k")
    )
    target, fmas = select("x86-64-v3"), tile[0] * (tile[1] if turned else 2)
    code = emit_kernel(
        nest, {n: buffer(n, x) for n, x in (("a", a), ("b", b), ("c", c))}, target, "kernel"
    )
    text = machine(target).emit_assembly(optimised(module_text(code), target))
    blocks = re.split(r"\n\.LBB\S+:|\n\tj\w+\s", text)
    hot = [block for block in blocks if block.count("vfmadd") == fmas and "vhadd" not in block]
    assert hot
    # Spills have a fixed address; a packed panel is on the stack too, but read through an index.
    assert not any(re.search(r"\(%rsp\).*%ymm|%ymm.*\(%rsp\)", block) for block in hot)


def test_what_rows_share_is_read_in_vectors():
    """Three vectors of a bias, which every row of a tile adds, are never put together lane by
    lane: LLVM takes 48 lanes apart between blocks.
    """
    a, b, c = matrices(np.random.default_rng(0), 64, 96, 64, np.float32)
    bias = np.zeros(96, np.float32)
    z = Let("z", apply("add", Ref("acc", F32), load("bias", bias, "j")))
    nest = product(
        a, b, z, Store("c", at("i", "j"), apply("tanh", Ref("z", F32))),
        strategy="contract", vector=("j",), register="i", tile=(8, 48), order=("j", "i", "k"),
    )  # fmt: skip
    arrays, target = {"a": a, "b": b, "c": c, "bias": bias}, select("x86-64-v4")
    code = emit_kernel(nest, {n: buffer(n, x) for n, x in arrays.items()}, target, "kernel")
    text = machine(target).emit_assembly(optimised(module_text(code), target))
    assert "vfmadd" in text and "vinsert" not in text


TILED = {"strategy": "contract", "vector": ("j",), "register": "i", "tile": (6, 16)}


def tiled_text(*sizes, **schedule):
    """The code of a product of these sizes in tiles of 6 x 16."""
    a, b, c = matrices(np.random.default_rng(0), *sizes, np.float32)
    nest = product(a, b, **TILED, order=("j", "i", "k"), **schedule)
    buffers = {n: buffer(n, x) for n, x in (("a", a), ("b", b), ("c", c))}
    return emit_kernel(nest, buffers, select("x86-64-v3"), "kernel").text


@pytest.mark.parametrize(
    ("rows", "fmas"), [(6, [12]), (7, [6, 8]), (16, [10, 12]), (64, [10, 12]), (65, [10, 12])]
)
def test_rows_are_divided_evenly(rows, fmas):
    """No tile has fewer rows than it must: 16 are 6, 5 and 5, not 6, 6 and 4."""
    blocks = re.split(r"\n\w+:", tiled_text(rows, 16, 30))
    assert sorted(n for x in blocks if (n := x.count("@llvm.fma"))) == fmas


@pytest.mark.parametrize(("columns", "whole"), [(13, True), (30, True), (37, False), (7, False)])
def test_last_vector_begins_earlier(rng, columns, whole):
    """So that it is full and nothing is masked, where a tile has several vectors."""
    text = tiled_text(20, columns, 9)
    assert "llvm.masked.store" not in text
    assert ("llvm.masked" not in text) == whole
    a, b, c = matrices(rng, 20, columns, 9, np.float32)
    check_product(product(a, b, **TILED, order=("j", "i", "k")), a, b, c)


def test_columns_that_are_read_and_written_are_computed_once(rng):
    """What the epilogue adds to is not added to twice."""
    a, b, c = matrices(rng, 20, 13, 9, np.float32)
    before = rng.standard_normal(c.shape).astype(np.float32)
    more = Store("c", at("i", "j"), apply("add", load("c", c, "i", "j"), Ref("acc", F32)))
    nest = product(a, b, more, **TILED, order=("j", "i", "k"))
    c = before.copy()
    run(nest, a=a, b=b, c=c)
    np.testing.assert_allclose(c, before + a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("steps", "fmas"), [(84, 8), (86, 4), (83, 2), (20, 2)])
def test_few_accumulators_take_turns(rng, steps, fmas):
    """Steps of a sum do not wait for each other: where a tile has two vectors, four of them have
    accumulators of their own, or two, as their number allows.
    """
    blocks = re.split(r"\n\w+:", tiled_text(1, 16, steps))
    assert max(x.count("@llvm.fma") for x in blocks) == fmas
    a, b, c = matrices(rng, 1, 16, steps, np.float32)
    check_product(product(a, b, **TILED, order=("j", "i", "k")), a, b, c)


@pytest.mark.parametrize(("pack", "fmas"), [(0, [10, 48]), (16, [8, 48])])
def test_whole_tiles_are_unrolled(pack, fmas):
    """Four steps at a time, but one where the rows fill a panel."""
    blocks = re.split(r"\n\w+:", tiled_text(64, 16, 80, unroll=4, pack=pack))
    assert sorted(n for x in blocks if (n := x.count("@llvm.fma"))) == fmas


@pytest.mark.parametrize(("rows", "columns"), [(1, 16), (6, 16), (23, 50), (64, 33)])
@pytest.mark.parametrize("pack", [0, 16, 48])
def test_unrolled_sums_are_the_same(rng, rows, columns, pack):
    """Steps keep their order, so the bits do not depend on how many stand together."""
    a, b, c = matrices(rng, rows, columns, 60, np.float32)
    found = []
    for unroll in (1, 2, 3, 4):
        nest = product(a, b, **TILED, order=("j", "i", "k"), pack=pack, unroll=unroll)
        check_product(nest, a, b, c)
        found.append(c.tobytes())
    assert len(set(found)) == 1


def test_long_sums_of_much_work_are_unrolled(rng):
    """Not those whose steps are few, cannot be divided, or are soon done."""
    def chosen(m, n, k):
        a, b, c = matrices(rng, m, n, k, np.float32)
        return scheduled(product(a, b), a=a, b=b, c=c).schedule.unroll

    sizes = (64, 512, 784), (64, 512, 66), (64, 512, 65), (64, 512, 16), (16, 64, 64)
    assert [chosen(*s) for s in sizes] == [4, 3, 1, 1, 1]


@pytest.mark.parametrize(("channels", "unroll"), [(4, 1), (16, 4), (18, 3)])
def test_channels_inside_of_windows_are_unrolled(channels, unroll):
    """Few steps do where they are taken for each place in a window."""
    x = np.zeros((4, 18, 18, channels), np.float32)
    w, y = (np.zeros(s, np.float32) for s in ((16, 3, 3, channels), (4, 16, 16, 16)))
    found = scheduled(convolution(x, w, y, guard=False), x=x, w=w, y=y).schedule
    assert (found.order[-1], found.unroll) == ("c", unroll)


@pytest.mark.parametrize(("rows", "requests"), [(60, 0), (600, 1)])
def test_epilogues_expect_what_they_write(rows, requests):
    """Lines of a large result are asked for before the sums, those of a small one are not."""
    assert tiled_text(rows, 480, 64).count("i32 1, i32 3, i32 1)") == requests
