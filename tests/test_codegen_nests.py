"""Loop nests through code generation, against NumPy and the kernel interpreter."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import host, machine, select
from nncompiler.errors import UserError
from nncompiler.ir.interp_kernel import run_kernel
from nncompiler.ir.kernel import Fold, For, Kernel, Let, Loop, Plan, Schedule, Store
from nncompiler.ir.scalar import (
    Affine,
    Apply,
    Bitcast,
    Cast,
    Iota,
    Ref,
    apply,
    cast,
    const,
)
from nncompiler.ir.types import BOOL, F32, F64, I32, I64, U8, U32, U64
from nncompiler.passes.tile import choose_schedule, tile_plan
from tests.nest_harness import (
    Compiled,
    at,
    axes,
    buffer,
    kernel,
    load,
    module_text,
    optimised,
    run,
)

SIZES = (1, 2, 3, 15, 16, 17, 31, 33, 100)
TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
DTYPE = {np.float32: F32, np.float64: F64}
ROW, COLUMN = Affine.axis("i"), Affine.axis("j")


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def scheduled(nest: Kernel, vector_bytes: int = 32, registers: int = 16, **arrays) -> Kernel:
    """The kernel with the schedule that the tiling pass chooses."""
    table = {n: buffer(n, a) for n, a in arrays.items()}
    chosen = choose_schedule(nest, table, vector_bytes, registers)
    return Kernel(nest.name, nest.body, chosen)


def agrees(nest: Kernel, rtol: float = 2e-6, **arrays) -> None:
    """Compiled and interpreted runs of a kernel leave equal arrays (exactly equal integers)."""
    expected = {n: np.array(a) for n, a in arrays.items()}
    with np.errstate(all="ignore"):
        run_kernel(nest, expected, {})
    run(nest, **arrays)
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            scale = np.abs(
                expected[name], where=np.isfinite(expected[name]), out=np.zeros_like(array)
            ).max(initial=1)
            np.testing.assert_allclose(
                array, expected[name], rtol=rtol, atol=rtol * scale, err_msg=name
            )
        else:
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


# --- contractions ---


def product(a: np.ndarray, b: np.ndarray, *epilogue, dtype=F32, **schedule) -> Kernel:
    """``c[i,j] = sum k { a[i,k] * b[k,j] }``, or another epilogue of ``acc``."""
    (m, k), n = a.shape, b.shape[1]
    fold = Fold(
        ("acc",), "sum", axes(k=k), (apply("mul", load("a", a, "i", "k"), load("b", b, "k", "j")),)
    )
    done = epilogue or (Store("c", at("i", "j"), Ref("acc", dtype)),)
    return kernel(For(axes(i=m, j=n), (fold, *done)), **schedule)


def matrices(rng, m, n, k, dtype, a_turned=False, b_turned=False):
    a = rng.standard_normal((k, m)).T if a_turned else rng.standard_normal((m, k))
    b = rng.standard_normal((n, k)).T if b_turned else rng.standard_normal((k, n))
    return a.astype(dtype, order="K"), b.astype(dtype, order="K"), np.zeros((m, n), dtype)


def check_product(nest, a, b, c):
    run(nest, a=a, b=b, c=c)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = np.abs(a).astype(np.float64) @ np.abs(b) * a.shape[1] * np.finfo(a.dtype).eps
    assert (np.abs(c - exact) <= bound + np.finfo(a.dtype).tiny).all()


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
    blocks = re.split(r"\n\w+:", tiled_text(1, 10, steps))
    assert max(x.count("@llvm.fma") for x in blocks) == fmas
    a, b, c = matrices(rng, 1, 10, steps, np.float32)
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


# --- folds over lanes ---


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("n", [1, 3, 8, 33, 100])
def test_fold_over_lanes(rng, name, n):
    """Row reductions of every length, floats and integers."""
    x, y = rng.standard_normal((3, n)).astype(np.float32), np.zeros(3, np.float32)
    u, v = rng.integers(-9, 9, (3, n), np.int32), np.zeros(3, np.int32)
    body = [
        Fold(("r",), name, axes(j=n), (load("x", x, "i", "j"),)),
        Store("y", at("i"), Ref("r", F32)),
        Fold(("s",), name, axes(j=n), (load("u", u, "i", "j"),)),
        Store("v", at("i"), Ref("s", I32)),
    ]
    agrees(kernel(For(axes(i=3), tuple(body)), vector=("j",)), x=x, y=y, u=u, v=v)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_first_extreme_index(name):
    """Ties give the first, NaN wins over all, a row of infinities its first index."""
    rows = np.zeros((6, 37), np.float32)
    rows[0, (5, 20, 36)] = 3
    rows[1, (9, 33)] = -3
    rows[2] = np.inf if name == "argmin" else -np.inf
    rows[3, (12, 30)] = np.nan
    rows[4] = np.arange(37)
    rows[5] = -np.arange(37)
    value, index = np.zeros(6, np.float32), np.zeros(6, np.int32)
    fold = Fold(("m", "at"), name, axes(j=37), (load("x", rows, "i", "j"), Iota(COLUMN)))
    body = (fold, Store("value", at("i"), Ref("m", F32)), Store("index", at("i"), Ref("at", I32)))
    for vector in ((), ("j",), ("i",)):
        run(kernel(For(axes(i=6), body), vector=vector), x=rows, value=value, index=index)
        np.testing.assert_array_equal(index, getattr(np, name)(rows, axis=1))
        np.testing.assert_array_equal(value, rows[np.arange(6), index])


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("place", [0, 7, 8, 31, 32, 36])
def test_nan_propagates_through_folds(name, place):
    """One NaN anywhere makes the row NaN, over lanes and under them."""
    x = np.arange(3 * 37, dtype=np.float32).reshape(3, 37)
    x[1, place] = np.nan
    y = np.zeros(3, np.float32)
    fold = Fold(("m",), name, axes(j=37), (load("x", x, "i", "j"),))
    for vector in ("j", "i"):
        run(
            kernel(For(axes(i=3), (fold, Store("y", at("i"), Ref("m", F32)))), vector=(vector,)),
            x=x,
            y=y,
        )
        np.testing.assert_array_equal(y, getattr(np, name)(x, axis=1))


def column_sums(x: np.ndarray, y: np.ndarray) -> Kernel:
    fold = Fold(
        ("s",), "sum", axes(i=len(x)), (load("x", x, "i", "j"),), init=(const(2, F32),)
    )
    return kernel(
        For(axes(j=y.size), (fold, Store("y", at("j"), Ref("s", F32)))), vector=("j",)
    )


@pytest.mark.parametrize("rows", [33, 100])
@pytest.mark.parametrize("n", [1, 10, 40, 96, 100, 128])
def test_column_sums(rng, n, rows):
    """A reduction over rows with columns over lanes, with an initial value."""
    x, y = rng.standard_normal((rows, n)).astype(np.float32), np.zeros(n, np.float32)
    agrees(scheduled(column_sums(x, y), x=x, y=y), x=x, y=y)


@pytest.mark.parametrize(
    ("rows", "n", "lanes"), [(63, 128, 32), (64, 128, 64), (64, 96, 32), (64, 64, 32)]
)
def test_long_column_sums_are_wide(rows, n, lanes):
    """Over many rows many columns at once, but not so many that there is one step for all."""
    x, y = np.zeros((rows, n), np.float32), np.zeros(n, np.float32)
    buffers = {"x": buffer("x", x), "y": buffer("y", y)}
    text = emit_kernel(column_sums(x, y), buffers, select("x86-64-v3"), "kernel").text
    assert {int(w) for w in re.findall(r"load <(\d+) x float>", text)} == {lanes}


def test_whole_sum_with_initial_value(rng):
    """Two fold axes, lanes over the inner one, an initial value that is no identity."""
    x, y = rng.standard_normal((5, 43)).astype(np.float32), np.zeros((), np.float32)
    fold = Fold(("s",), "sum", axes(i=5, j=43), (load("x", x, "i", "j"),), init=(const(100, F32),))
    nest = kernel(fold, Store("y", (), Ref("s", F32)), vector=("j",))
    agrees(nest, x=x, y=y)
    again = np.zeros((), np.float32)
    run(nest, x=x, y=again)
    assert again.tobytes() == y.tobytes()


def whole_sum(shape: dict[str, int], vector: str, dtype=np.float32):
    """``y[] = sum axes { x[axes] }`` over everything, compiled once, as a function of ``x``."""
    x, y = np.zeros(tuple(shape.values()), dtype), np.zeros((), dtype)
    fold = Fold(("s",), "sum", axes(**shape), (load("x", x, *shape),))
    nest = kernel(fold, Store("y", (), Ref("s", DTYPE[dtype])), vector=tuple(vector))
    compiled = Compiled(nest, {"x": buffer("x", x), "y": buffer("y", y)})

    def total(x: np.ndarray):
        compiled(x=x, y=y)
        return y.copy()

    return total


@pytest.mark.parametrize("vector", ["", "k", "j"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 33), (1, 31, 64), (9, 31, 15), (1, 131, 7), (5, 16, 100), (1, 1, 2309), (67, 1, 1)],
)
def test_sum_in_blocks_takes_every_term_once(rng, shape, vector):
    """Blocks, blocks of blocks and what is left over: sums of integers are exact."""
    total = whole_sum(dict(zip("ijk", shape, strict=True)), vector)
    for _ in range(3):
        x = rng.integers(-99, 99, shape).astype(np.float32)
        assert total(x) == x.sum(dtype=np.float64)


@pytest.mark.parametrize(
    ("shape", "vector"),
    [
        ({"i": 1_000_000}, "i"),
        ({"i": 1_000_000}, ""),
        ({"i": 9, "j": 31, "k": 15}, "k"),
        ({"i": 9, "j": 31, "k": 15}, ""),
        ({"i": 7, "j": 30011}, "j"),
        ({"i": 30011, "j": 3}, "j"),
    ],
)
def test_long_sums_are_accurate(rng, shape, vector):
    """Rounding errors of random terms of one sign stay at a few ULP, whatever the number."""
    total = whole_sum(shape, vector)
    for _ in range(3):
        x = rng.uniform(0.1, 1.7, tuple(shape.values())).astype(np.float32)
        exact = x.sum(dtype=np.float64)
        assert abs(total(x) - exact) <= 3 * np.spacing(np.float32(exact))


def test_long_column_sums_are_accurate(rng):
    """Sums over 100 000 rows, columns over lanes, products with fused additions among them."""
    x, y = rng.uniform(0.1, 1.7, (100_003, 20)).astype(np.float32), np.zeros(20, np.float32)
    for term, exact in (
        (load("x", x, "i", "j"), x.sum(axis=0, dtype=np.float64)),
        (apply("mul", *[load("x", x, "i", "j")] * 2), (x.astype(np.float64) ** 2).sum(axis=0)),
    ):
        fold = Fold(("s",), "sum", axes(i=len(x)), (term,))
        nest = kernel(For(axes(j=20), (fold, Store("y", at("j"), Ref("s", F32)))), vector=("j",))
        run(nest, x=x, y=y)
        assert (np.abs(y - exact) <= 8 * np.spacing(exact.astype(np.float32))).all()


def test_code_of_a_sum_does_not_grow_with_it():
    """Blocks are loops: a thousand times the terms is a few lines more."""

    def lines(n: int) -> int:
        x, y = np.zeros(n, np.float32), np.zeros((), np.float32)
        fold = Fold(("s",), "sum", axes(i=n), (load("x", x, "i"),))
        nest = kernel(fold, Store("y", (), Ref("s", F32)), vector=("i",))
        table = {"x": buffer("x", x), "y": buffer("y", y)}
        return len(emit_kernel(nest, table, host(), "kernel").text.splitlines())

    assert lines(2**22) <= lines(2**12) + 25


@pytest.mark.parametrize("vector", [(), ("i",)])
def test_body_of_a_long_sum_runs_once_for_each_term(rng, vector):
    """A fold that sums what it reads and adds one to it in place."""
    x, y = rng.integers(-9, 9, 3001).astype(np.float32), np.zeros((), np.float32)
    more = Store("x", at("i"), apply("add", Ref("v", F32), const(1, F32)))
    body = (Let("v", load("x", x, "i")), more)
    fold = Fold(("s",), "sum", axes(i=3001), (Ref("v", F32),), body)
    before = x.copy()
    run(kernel(fold, Store("y", (), Ref("s", F32)), vector=vector), x=x, y=y)
    np.testing.assert_array_equal(x, before + 1)
    assert y == before.sum(dtype=np.float64)


def cross_entropy(z, y, loss) -> Kernel:
    """The loss and its gradient in place, as one nest."""
    n, c = z.shape
    shifted = apply("exp", apply("sub", load("z", z, "i", "j"), Ref("m", F32)))
    target = load("z", z, "i", load("y", y, "i"))
    hot = cast(apply("eq", Iota(COLUMN), load("y", y, "i")), F32)
    gradient = apply("div", apply("sub", apply("div", shifted, Ref("s", F32)), hot), const(n, F32))
    row = (
        Fold(("m",), "max", axes(j=c), (load("z", z, "i", "j"),)),
        Fold(("s",), "sum", axes(j=c), (shifted,)),
        Let("l", apply("sub", apply("add", Ref("m", F32), apply("log", Ref("s", F32))), target)),
        For(axes(j=c), (Store("z", at("i", "j"), gradient),)),
    )
    total = Fold(("t",), "sum", axes(i=n), (apply("div", Ref("l", F32), const(n, F32)),), row)
    return kernel(total, Store("loss", (), Ref("t", F32)))


@pytest.mark.parametrize("classes", [2, 10, 37])
def test_cross_entropy_in_one_nest(rng, classes):
    """A fold whose body folds, gathers and stores."""
    z = (3 * rng.standard_normal((11, classes))).astype(np.float32)
    y = rng.integers(0, classes, 11, np.int32)
    loss = np.zeros((), np.float32)
    nest = scheduled(cross_entropy(z, y, loss), z=z, y=y, loss=loss)
    agrees(nest, rtol=1e-5, z=z, y=y, loss=loss)


def causal_rows(x: np.ndarray, y: np.ndarray, bounded: bool) -> tuple[For, ...]:
    """Softmax of the lower half of every row, and the first place of its maximum."""
    n, width = x.shape
    seen = apply("ge", Iota(ROW), Iota(COLUMN))
    x_at, y_at = load("x", x, "i", "j"), load("y", y, "i", "j")
    within = (ROW + COLUMN * -1,) if bounded else ()
    before = (ROW + COLUMN * -1 + 1,) if bounded else ()
    score = apply("select", seen, x_at, const(-1e30, F32))
    power = apply("select", seen, apply("exp", apply("sub", score, Ref("m", F32))), const(0, F32))
    weight = apply("select", seen, apply("div", y_at, Ref("s", F32)), const(0, F32))
    row = (
        Fold(("m",), "max", axes(j=width), (score,), within=before),
        Let("scale", apply("mul", Ref("m", F32), const(2.0, F32))),
        For(axes(j=width), (Let("p", power), Store("y", at("i", "j"), Ref("p", F32))), False,
            within),  # fmt: skip
        Fold(("s",), "sum", axes(j=width), (y_at,), within=within),
        Fold(("v", "at"), "argmax", axes(j=width), (score, Iota(COLUMN))),
        For(axes(j=width), (Store("y", at("i", "j"), weight),), within=within),
        Store("first", at("i"), Ref("at", I32)),
        Store("sums", at("i"), apply("add", Ref("s", F32), Ref("scale", F32))),
    )
    return (For(axes(i=n), row),)


@pytest.mark.parametrize(
    ("rows", "width"), [(8, 64), (64, 64), (8, 8), (12, 37), (4, 3), (8, 600)]
)
@pytest.mark.parametrize("bounded", [False, True])
def test_rows_side_by_side_give_the_same_bits(rng, rows, width, bounded):
    """Loops that rows share, bounds and all, leave what one row after the other does."""
    x = rng.standard_normal((rows, width)).astype(np.float32)
    results = []
    for unroll in (1, 2, 4):
        arrays = {
            "x": x.copy(), "y": np.full_like(x, np.nan), "first": np.zeros(rows, np.int32),
            "sums": np.zeros(rows, np.float32),
        }  # fmt: skip
        nest = kernel(
            *causal_rows(x, arrays["y"], bounded), vector=("j",), register="i", unroll=unroll
        )
        agrees(nest, rtol=1e-5, **arrays)
        results.append(arrays)
    for name in ("y", "first", "sums"):
        for other in results[1:]:
            np.testing.assert_array_equal(other[name], results[0][name])


def test_short_rows_stand_side_by_side(rng):
    """Chosen for rows of a few whole vectors; not for longer ones, nor for single elements."""
    for width, found in ((64, ("i", 4)), (16, ("i", 4)), (256, (None, 1)), (10, (None, 1))):
        x = rng.standard_normal((32, width)).astype(np.float32)
        arrays = {
            "x": x, "y": np.zeros_like(x), "first": np.zeros(32, np.int32),
            "sums": np.zeros(32, np.float32),
        }  # fmt: skip
        chosen = scheduled(kernel(*causal_rows(x, arrays["y"], True)), **arrays).schedule
        assert (chosen.register, chosen.unroll) == found


# --- loads and stores ---


def test_gather_rows_and_lanes(rng):
    """A row chosen by a loaded index; an element chosen in every lane; a scatter along lanes."""
    table, picks = (
        rng.standard_normal((9, 21)).astype(np.float32),
        rng.permutation(9)[:6].astype(np.int32),
    )
    rows, one = np.zeros((6, 21), np.float32), np.zeros(6, np.float32)
    spread = np.zeros(9, np.float32)
    pick = load("p", picks, "i")
    nest = kernel(
        For(axes(i=6, j=21), (Store("rows", at("i", "j"), load("t", table, pick, "j")),)),
        For(axes(k=6), (
            Store("one", at("k"), load("t", table, load("p", picks, "k"), Affine((("k", 2),), 1))),
            Store("spread", (load("p", picks, "k"),), load("one", one, "k")),
        )),
        vector=("j", "k"),
    )  # fmt: skip
    agrees(nest, t=table, p=picks, rows=rows, one=one, spread=spread)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool])
@pytest.mark.parametrize("n", [3, 16, 45])
def test_guarded_load_at_unit_stride(rng, dtype, n):
    """A shifted row with fill outside, for elements that mask in hardware and those that do not.
    """
    x = (rng.standard_normal(n) * 3).astype(dtype)
    y = np.zeros(n, dtype)
    d = buffer("x", x).type.dtype
    there = Iota(COLUMN + -2)
    inside = apply("and", apply("ge", there, const(0, I32)), apply("lt", there, const(n, I32)))
    shifted = load("x", x, COLUMN + -2, guard=inside, fill=const(1, d))
    agrees(kernel(For(axes(j=n), (Store("y", at("j"), shifted),)), vector=("j",)), x=x, y=y)


def test_guarded_gather_and_uniform_guard(rng):
    """Guards on strided, gathered and lane-independent loads; out-of-range addresses stay
    untouched.
    """
    x, p = rng.standard_normal((20, 3)).astype(np.float32), rng.integers(-9, 30, 20, np.int32)
    y = np.zeros((4, 20), np.float32)
    index = load("p", p, "j")
    valid = apply("and", apply("ge", index, const(0, I32)), apply("lt", index, const(20, I32)))
    even = apply("lt", Iota(COLUMN), const(7, I32))
    outer = apply("eq", Iota(ROW), const(1, I32))
    stores = [
        load("x", x, index, 1, guard=valid, fill=const(5, F32)),
        load("x", x, Affine((("j", 3),), 0), 2, guard=even, fill=const(6, F32)),
        load("x", x, Affine((("i", 40),), -35), 0, guard=outer, fill=const(7, F32)),
        load("x", x, Affine((("j", -1),), 19), 0),
    ]
    body = tuple(Store("y", (Affine((), n), COLUMN), e) for n, e in enumerate(stores))
    agrees(kernel(For(axes(i=1), (For(axes(j=20), body),)), vector=("j",)), x=x, p=p, y=y)


def test_strided_axis_over_lanes(rng):
    """Lanes across rows (a transposed copy), in both directions."""
    x = rng.standard_normal((19, 7)).astype(np.float32)
    y, z = np.zeros((7, 19), np.float32), np.zeros((7, 19), np.float32)
    body = (
        Store("y", at("j", "i"), load("x", x, "i", "j")),
        Store("z", at("j", "i"), load("x", x, "i", "j")),
    )
    for vector in ("i", "j"):
        agrees(kernel(For(axes(i=19, j=7), body), vector=(vector,)), x=x, y=y, z=z)


def test_ordered_loop_carries_through_memory(rng):
    """A cumulative sum: iteration i reads what i - 1 stored; columns over lanes."""
    x, y = rng.standard_normal((9, 21)).astype(np.float32), np.zeros((9, 21), np.float32)
    before = load(
        "y", y, ROW + -1, "j", guard=apply("gt", Iota(ROW), const(0, I32)), fill=const(0, F32)
    )
    step = For(
        axes(i=9),
        (Store("y", at("i", "j"), apply("add", before, load("x", x, "i", "j"))),),
        ordered=True,
    )
    agrees(kernel(For(axes(j=21), (step,)), vector=("j",)), x=x, y=y)
    agrees(kernel(For(axes(j=21), (step,))), x=x, y=y)


# --- primitives ---

INTEGERS = np.array(
    [0, 1, -1, 2, -2, 7, -7, 31, 32, 33, -(2**31), 2**31 - 1, 100003, -65536], np.int64
)


@pytest.mark.parametrize("vector", [(), ("j",)])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint8])
def test_integer_primitives(dtype, vector):
    """Wrapping, division without traps, shifts by any amount, comparisons, high products."""
    pairs = np.array(list(itertools.product(INTEGERS, INTEGERS))).astype(dtype)
    x, y = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    d = buffer("x", x).type.dtype
    names = [
        "add",
        "sub",
        "mul",
        "min",
        "max",
        "div",
        "rem",
        "and",
        "or",
        "xor",
        "eq",
        "lt",
        "ge",
        "shl",
        "shr",
    ]
    unary = ["neg", "abs", "sign"] if d.kind == "int" else []
    names += ["mulhi"] if d.kind == "uint" else []
    exprs = [apply(n, load("x", x, "j"), load("y", y, "j")) for n in names]
    exprs += [apply(n, load("x", x, "j")) for n in unary]
    exprs += [
        apply(n, load("x", x, "j"), const(c, d))
        for n in ("div", "rem", "shl", "shr")
        for c in (0, 3)
    ]
    out = np.zeros((len(exprs), len(x)), dtype)
    body = tuple(Store("out", (Affine((), n), COLUMN), cast(e, d)) for n, e in enumerate(exprs))
    nest = kernel(For(axes(j=len(x)), body), vector=vector)
    agrees(nest, x=x, y=y, out=out)


FLOATS = np.array(
    [0.0, -0.0, 1, -1, 0.5, 1.5, 2.5, -2.5, 3e9, -3e9, 1e-40, np.inf, -np.inf, np.nan, 7.25]
)


@pytest.mark.parametrize("vector", [(), ("j",)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_primitives(dtype, vector):
    """NaN through min, max and sign; relu written both ways; rounding to even; comparisons with
    NaN.
    """
    pairs = np.array(list(itertools.product(FLOATS, FLOATS)), dtype)
    x, y = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    d = DTYPE[dtype]
    binary = ["add", "sub", "mul", "div", "min", "max", "eq", "ne", "lt", "le", "gt", "ge"]
    exprs = [apply(n, load("x", x, "j"), load("y", y, "j")) for n in binary]
    exprs += [
        apply(n, load("x", x, "j")) for n in ("neg", "abs", "sign", "sqrt", "floor", "round")
    ]
    exprs += [
        apply("max", load("x", x, "j"), const(0, d)),
        apply("max", const(0, d), load("x", x, "j")),
    ]
    exprs += [apply("min", load("x", x, "j"), const(1, d)), apply("rsqrt", load("x", x, "j"))]
    exprs += [apply(n, load("x", x, "j"), const(np.nan, d)) for n in ("min", "max")]
    exprs += [apply(n, const(-np.nan, d), load("x", x, "j")) for n in ("min", "max")]
    exprs += [apply("max", const(np.nan, d), const(1, d))]
    out = np.zeros((len(exprs), len(x)), dtype)
    body = tuple(Store("out", (Affine((), n), COLUMN), cast(e, d)) for n, e in enumerate(exprs))
    agrees(kernel(For(axes(j=len(x)), body), vector=vector), x=x, y=y, out=out)


@pytest.mark.parametrize("vector", [(), ("j",)])
def test_conversions(vector):
    """Saturation, NaN to zero, sign and zero extension, truth values, bits as another type."""
    f = FLOATS.astype(np.float32)
    n = len(f)
    i = np.resize(INTEGERS, n).astype(np.int32)
    arrays = {"f": f, "i": i}
    exprs = [Cast(load("f", f, "j"), d) for d in (I32, I64, U8, U32, F64, BOOL)]
    exprs += [Cast(load("i", i, "j"), d) for d in (F32, F64, I64, U8, U32, U64, BOOL)]
    exprs += [Cast(Cast(load("i", i, "j"), U32), d) for d in (F32, F64, U64)]
    exprs += [Cast(Cast(load("i", i, "j"), BOOL), d) for d in (F32, I32, U8)]
    exprs += [Bitcast(load("f", f, "j"), I32), Bitcast(load("i", i, "j"), F32)]
    exprs += [Iota(COLUMN * 3 + 1), Iota(COLUMN, I64), apply("not", Cast(load("i", i, "j"), BOOL))]
    for k, e in enumerate(exprs):
        arrays[f"o{k}"] = np.zeros(n, e.dtype.numpy)
    body = tuple(Store(f"o{k}", at("j"), e) for k, e in enumerate(exprs))
    agrees(kernel(For(axes(j=n), body), vector=vector), **arrays)


def test_shared_expressions_are_computed_once():
    """An expression shared by identity a thousand-fold costs one instruction per node."""
    x, y = np.ones(16, np.float32), np.zeros(16, np.float32)
    e = load("x", x, "j")
    for _ in range(60):
        e = Apply("mul", (e, e), F32)
    nest = kernel(For(axes(j=16), (Store("y", at("j"), e),)), vector=("j",))
    code = emit_kernel(nest, {"x": buffer("x", x), "y": buffer("y", y)}, host(), "kernel")
    assert code.text.count("fmul") <= 120


# --- the function around a nest ---


def test_text_depends_on_structure_only(rng):
    """Other names, the same text; so equal kernels are compiled once."""
    x, y = np.zeros((4, 9), np.float32), np.zeros((4, 9), np.float32)

    def code(source: str, target: str, local: str):
        body = (
            Let(local, load(source, x, "i", "j")),
            Store(target, at("i", "j"), Ref(local, F32)),
        )
        table = {source: buffer(source, x), target: buffer(target, y)}
        return emit_kernel(
            kernel(For(axes(i=4, j=9), body), vector=("j",)), table, host(), "kernel"
        )

    one, two = code("x", "y", "v"), code("%12", "dense1.W", "temporary")
    assert one.text == two.text
    assert (one.pointers, two.pointers) == ((("x",), ("y",)), (("%12",), ("dense1.W",)))


def test_counters_of_plan_loops_are_parameters():
    """An axis that no loop of the kernel binds is passed in, after the pointers."""
    x, y = np.arange(36, dtype=np.float32).reshape(4, 9), np.zeros((4, 9), np.float32)
    body = (Store("y", at("t", "j"), load("x", x, Affine((("t", -1),), 3), "j")),)
    table = {"x": buffer("x", x), "y": buffer("y", y)}
    code = emit_kernel(kernel(For(axes(j=9), body), vector=("j",)), table, host(), "kernel")
    assert code.counters == ("t",)
    Compiled.of_code(code, host(), {"t": 1})(x=x, y=y)
    np.testing.assert_array_equal(y, [np.zeros(9), x[2], np.zeros(9), np.zeros(9)])


@pytest.mark.parametrize(("m", "n", "k"), [(0, 5, 4), (5, 0, 4), (5, 4, 0)])
def test_empty_axes(rng, m, n, k):
    """Nothing is stored over an empty axis; an empty sum is zero."""
    a, b, c = matrices(rng, m, n, k, np.float32)
    c += 1
    nest = scheduled(product(a, b), a=a, b=b, c=c)
    run(nest, a=a, b=b, c=c)
    np.testing.assert_array_equal(c, a @ b)


def test_tiling_chooses_axes_by_stride(rng):
    """Rows vectorise inside, column sums over columns, and a plan keeps schedules already made."""
    x, y, z = (np.zeros(s, np.float32) for s in ((40, 50), 40, 50))
    rows = Fold(("s",), "sum", axes(j=50), (load("x", x, "i", "j"),))
    down = Fold(("s",), "sum", axes(i=40), (load("x", x, "i", "j"),))
    nest = kernel(For(axes(i=40), (rows, Store("y", at("i"), Ref("s", F32)))))
    assert scheduled(nest, x=x, y=y).schedule.vector == ("j",)
    nest = kernel(For(axes(j=50), (down, Store("z", at("j"), Ref("s", F32)))))
    assert scheduled(nest, x=x, z=z).schedule.vector == ("j",)
    kept = replace(nest, schedule=Schedule(order=("i",)))
    buffers = (buffer("x", x), buffer("z", z))
    plan = Plan("p", (), buffers, (kept, Loop("t", 2, (nest,))))
    tiled = tile_plan(plan, 32, 16)
    assert [k.schedule.vector for k in tiled.kernels()] == [(), ("j",)]
    assert tile_plan(tiled, 32, 16) is tiled


def test_overlapping_buffers_share_a_pointer():
    """Views and in-place partners come through one parameter; disjoint arena buffers through two.
    """
    x = np.zeros(8, np.float32)
    table = {
        "p": buffer("p", x, space="arena", offset=64),
        "q": buffer("q", x, space="arena", offset=64, in_place_of="p"),
        "r": buffer("r", x, space="arena", offset=96),
        "v": buffer("v", x.reshape(2, 4), space="view", base="r"),
    }
    body = (
        Store("q", at("j"), load("p", x, "j")),
        Store("r", at("j"), apply("add", load("v", x.reshape(2, 4), 1, 2), load("q", x, "j"))),
    )
    code = emit_kernel(kernel(For(axes(j=8), body)), table, host(), "kernel")
    assert sorted(map(sorted, code.pointers)) == [["p", "q"], ["r", "v"]]
    assert code.text.count("noalias") == 2


@pytest.mark.parametrize("name", TARGETS)
def test_every_level_compiles(rng, name):
    """The IR of every vector width verifies and becomes an object; what this machine can run, it
    runs.
    """
    target = select(name)
    a, b, c = matrices(rng, 11, 45, 20, np.float32)
    z, y = rng.standard_normal((5, 37)).astype(np.float32), rng.integers(0, 37, 5, np.int32)
    loss = np.zeros((), np.float32)
    width = target.vector_bytes, target.registers
    nests = [
        (scheduled(product(a, b), *width, a=a, b=b, c=c), {"a": a, "b": b, "c": c}),
        (
            scheduled(cross_entropy(z, y, loss), *width, z=z, y=y, loss=loss),
            {"z": z, "y": y, "loss": loss},
        ),
    ]
    for nest, arrays in nests:
        code = emit_kernel(nest, {n: buffer(n, x) for n, x in arrays.items()}, target, "kernel")
        assert machine(target).emit_object(optimised(module_text(code), target))
        if target.vector_bytes <= host().vector_bytes:
            Compiled(nest, {n: buffer(n, x) for n, x in arrays.items()}, target)(**arrays)
    if target.vector_bytes <= host().vector_bytes:
        np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)
        assert 1 < loss < 10
        np.testing.assert_allclose(z.sum(axis=1), 0, atol=1e-6)


def test_target_names():
    """Levels by name, features as the kernel lists them, a hint for a name nearly right."""
    assert select("x86-64-v3").required_features[-3:] == ("f16c", "fma", "movbe")
    assert select("host").vector_bytes in (16, 32, 64)
    with pytest.raises(UserError, match="write x86-64-v4"):
        select("x86-64-v5")
