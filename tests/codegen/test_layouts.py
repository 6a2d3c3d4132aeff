"""Batch-last layouts and what serves them: turned copies, bounds from guards, rounds, panels."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.nests.clip import Bounds, Edge, clip
from nncompiler.codegen.target import host, select
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.body import reads_and_writes
from nncompiler.ir.kernel import Fold, For, Plan, Schedule, Store
from nncompiler.ir.scalar import F32, I32, Affine, Iota, Load, Ref, apply, const
from nncompiler.ir.verify_kernel import verify_kernel
from nncompiler.passes.layout.strides import reshaped
from nncompiler.passes.tiling.split_rounds import split_rounds
from nncompiler.passes.tiling.tile import choose, choose_schedule
from tests.nest_harness import AVX2, AVX512, Compiled, at, axes, buffer, kernel, load, run

MODELS = Path(__file__).resolve().parents[2] / "models"
SIZES = [4, 5, 7, 8, 9, 16, 17, 33]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def scheduled(nest, **arrays):
    table = {name: buffer(name, array) for name, array in arrays.items()}
    target = host()
    found = choose_schedule(nest, table, target.machine)
    return replace(nest, schedule=found)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("columns", SIZES)
def test_turned_copy(rng, rows, columns, dtype):
    """Squares turned in registers, and what is left over at the edges."""
    x = rng.integers(-99, 99, (rows, 3, columns)).astype(dtype)
    y = np.zeros((3, columns, rows), dtype)
    body = Store("y", at("c", "j", "i"), load("x", x, "i", "c", "j"))
    nest = scheduled(kernel(For(axes(i=rows, c=3, j=columns), (body,))), x=x, y=y)
    assert nest.schedule.strategy == "turn"
    run(nest, x=x, y=y)
    np.testing.assert_array_equal(y, x.transpose(1, 2, 0))


def test_guards_become_bounds():
    """What both branches of a select need is taken over by the loop, other conditions stay."""
    place = Iota(Affine((("h", 1), ("m", -1))))
    inside = apply("ge", place, const(0, I32))
    first = apply("lt", Iota(Affine.axis("c")), const(4, I32))
    guard = apply("and", inside, first)
    index = (Affine.axis("c"), Affine((("h", 1), ("m", -1))))
    left = Load("a", index, F32, guard, const(0, F32))
    right = Load("b", index, F32, inside, const(0, F32))
    value, bounds = clip(apply("select", first, left, right), "m", {"h", "c"})
    assert bounds == Bounds((), (Edge(Affine((("h", 1),), 1)),))
    assert value.args[1].guard == first
    assert value.args[2].guard is None
    untouched, none = clip(apply("add", left, right), "m", {"h", "c"})
    assert none == Bounds()
    assert untouched.args[0].guard == guard
    steps = apply("lt", Iota(Affine((("h", 1), ("m", 3)), -2)), const(8, I32))
    value, bounds = clip(Load("a", index, F32, steps, const(0, F32)), "m", {"h", "c"})
    assert value.guard is None
    assert bounds == Bounds((), (Edge(Affine((("h", -1),), 12), 3),))


@pytest.mark.parametrize("rows", [1, 5, 6, 13])
@pytest.mark.parametrize("columns", [3, 16, 35, 80])
@pytest.mark.parametrize("pack", [0, 16, 48])
@pytest.mark.parametrize("order", ["jikl", "jkil", "jijkl"])
@pytest.mark.parametrize("long", [False, True])
def test_rounds_and_panels(rng, rows, columns, pack, order, long):
    """Plain loops, a reduction around the rows, or rows around the tiles of a block; with panels
    of one tile (plain loops fill it by the first rows), of several, or none; and an epilogue that
    is short or a loop of its own.
    """
    a = rng.standard_normal((3, 9, rows)).astype(np.float32)
    b = rng.standard_normal((3, 9, columns)).astype(np.float32)
    c = np.zeros((rows, columns), np.float32)
    term = apply("mul", load("a", a, "k", "l", "i"), load("b", b, "k", "l", "j"))
    fold = Fold(("acc",), "sum", axes(k=3, l=9), (term,))
    value = Ref("acc", F32)
    store = Store("c", at("i", "j"), apply("tanh", value) if long else value)
    nest = kernel(For(axes(i=rows, j=columns), (fold, store)))
    schedule = Schedule("contract", ("j",), "i", (6, 16), tuple(order), pack)
    run(replace(nest, schedule=schedule), a=a, b=b, c=c)
    wanted = np.einsum("kli,klj->ij", a, b)
    wanted = np.tanh(wanted) if long else wanted
    np.testing.assert_allclose(c, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [16, 23, 120, 130, 139])
@pytest.mark.parametrize("columns", [128, 150])
def test_rounds_copy_rows(rng, rows, columns):
    """Rows that lie side by side are copied for the tiles of a block, where these are many: by
    groups of tiles, one or more, the last of which may copy some rows again. Nothing else in this
    kernel is asked for ahead of time.
    """
    a = rng.standard_normal((3, 9, rows)).astype(np.float32)
    b = rng.standard_normal((3, 9, columns)).astype(np.float32)
    c = np.zeros((rows, columns), np.float32)
    term = apply("mul", load("a", a, "k", "l", "i"), load("b", b, "k", "l", "j"))
    fold = Fold(("acc",), "sum", axes(k=3, l=9), (term,))
    store = Store("c", at("i", "j"), Ref("acc", F32))
    nest = kernel(For(axes(i=rows, j=columns), (fold, store)))
    for unroll in (1, 3):
        schedule = Schedule("contract", ("j",), "i", (6, 16), tuple("jkil"), columns, unroll)
        assert asks_ahead(replace(nest, schedule=schedule), a=a, b=b, c=c)
        assert not asks_ahead(replace(nest, schedule=replace(schedule, pack=64)), a=a, b=b, c=c)
        run(replace(nest, schedule=schedule), a=a, b=b, c=c)
        np.testing.assert_allclose(c, np.einsum("kli,klj->ij", a, b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [7, 12])
@pytest.mark.parametrize("columns", [37, 48, 100])
@pytest.mark.parametrize("steps", [8, 21])
def test_turned_blocks(rng, rows, columns, steps):
    """Rows around the tiles of a block whose panels are turned."""
    a = rng.standard_normal((rows, steps)).astype(np.float32)
    b = rng.standard_normal((columns, steps)).astype(np.float32)
    c = np.zeros((rows, columns), np.float32)
    schedule = Schedule("contract", ("j",), "i", (6, 16), tuple("jijk"), 48)
    run(replace(product_of(a, b, c, "jk"), schedule=schedule), a=a, b=b, c=c)
    np.testing.assert_allclose(c, a @ b.T, rtol=1e-4, atol=1e-5)


def product_of(a, b, c, index):
    term = apply("mul", load("a", a, "i", "k"), load("b", b, *index))
    fold = Fold(("acc",), "sum", axes(k=a.shape[1]), (term,))
    store = Store("c", at("i", "j"), Ref("acc", F32))
    return kernel(For(axes(i=c.shape[0], j=c.shape[1]), (fold, store)))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("rows", "columns", "order", "pack"),
    [(400, 160, "jijk", 64), (200, 64, "jik", 64), (90, 160, "jik", 16)],
)
def test_rows_around_blocks(rows, columns, order, pack, turned):
    """What is too large for the second-level cache is read once for a block of columns, not for
    each tile: but for few tiles it stays as it is, those that are turned by themselves.
    """
    a, c = np.zeros((rows, 512), np.float32), np.zeros((rows, columns), np.float32)
    b = np.zeros((columns, 512) if turned else (512, columns), np.float32)
    table = {name: buffer(name, array) for name, array in (("a", a), ("b", b), ("c", c))}
    nest = product_of(a, b, c, "jk" if turned else "kj")
    found = choose_schedule(nest, table, AVX2)
    assert found.order == tuple(order)
    assert found.pack == (16 if turned and order == "jik" else pack)


@pytest.mark.parametrize("rows", [16, 23, 139])
@pytest.mark.parametrize("columns", [128, 150])
def test_blocks_copy_rows(rng, rows, columns):
    """Rows are copied where their lines share few sets of the first-level cache, 64 steps 1024
    bytes apart, but not if these are 1088 bytes apart; parts of a kernel give the bits of a whole.
    """
    a, apart = (rng.standard_normal((64, n)).astype(np.float32)[:, :rows] for n in (256, 272))
    b = rng.standard_normal((64, columns)).astype(np.float32)
    c = np.zeros((rows, columns), np.float32)
    term = apply("mul", load("a", a, "k", "i"), load("b", b, "k", "j"))
    fold = Fold(("acc",), "sum", axes(k=64), (term,))
    store = Store("c", at("i", "j"), Ref("acc", F32))
    schedule = Schedule("contract", ("j",), "i", (6, 16), tuple("jijk"), columns, 4)
    nest = kernel(For(axes(i=rows, j=columns), (fold, store)))
    nest = replace(nest, schedule=schedule)
    assert asks_ahead(nest, a=a, b=b, c=c) and not asks_ahead(nest, a=apart, b=b, c=c)
    run(nest, a=a, b=b, c=c)
    np.testing.assert_allclose(c, a.T @ b, rtol=1e-4, atol=1e-4)
    shared, found = replace(nest, schedule=replace(schedule, parallel=("j", "i"))), 0 * c
    table = {name: buffer(name, array) for name, array in (("a", a), ("b", b), ("c", found))}
    code = replace(emit_kernel(shared, table, host(), "kernel"), counters=("range", "parts"))
    for first, last in ((0, 2), (2, 3), (3, 7)):
        some = {"range": first | last << 32, "parts": 7}
        Compiled.of_code(code, host(), some)(a=a, b=b, c=found)
    np.testing.assert_array_equal(found, c)


def asks_ahead(nest, **arrays):
    """Whether the code of a kernel asks for lines of memory before it reads them; with vectors of
    half a line, where no epilogue as small as these does.
    """
    table = {name: buffer(name, array) for name, array in arrays.items()}
    return "@llvm.prefetch" in emit_kernel(nest, table, select("x86-64-v3"), "kernel").text


@pytest.mark.parametrize("columns", [1, 4, 12, 29])
@pytest.mark.parametrize("order", ["imjl", "mijl", "ijml"])
def test_rounds_around_columns(rng, columns, order):
    """Lanes along the sum, and a reduction around the columns, as where a filter has few of them:
    its sums wait for every round.
    """
    a = rng.standard_normal((9, 19)).astype(np.float32)
    b = rng.standard_normal((5, 9, columns, 19)).astype(np.float32)
    c = np.zeros((5, columns), np.float32)
    term = apply("mul", load("a", a, "m", "l"), load("b", b, "i", "m", "j", "l"))
    fold = Fold(("acc",), "sum", axes(m=9, l=19), (term,))
    nest = kernel(For(axes(i=5, j=columns), (fold, Store("c", at("i", "j"), Ref("acc", F32)))))
    schedule = Schedule("contract", ("l",), None, (1, 12), tuple(order))
    run(replace(nest, schedule=schedule), a=a, b=b, c=c)
    np.testing.assert_allclose(c, np.einsum("ml,imjl->ij", a, b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("strides", "new", "found"),
    [
        ((1, 120, 24, 4), (4, 30), (1, 4)),
        ((1, 120, 24, 4), (4, 5, 6, 1), (1, 24, 4, 0)),
        ((1, 150, 30, 5), (4, 30), (1, 5)),
        ((1, 200, 30, 4), (4, 30), None),
        ((1, 120, 24, 4), (20, 6), None),
    ],
)
def test_views_follow_their_base(strides, new, found):
    """A reshape keeps its elements' places where the dimensions it joins lie in one piece."""
    assert reshaped((4, 1, 5, 6), strides, new) == found


def test_convolutional_region_has_the_batch_last():
    """LeNet trains with every image stored batch last, and copies its input once."""
    c = Compilation(read_source(MODELS / "lenet.nn"), {"batch": 64})
    plan = c.plans["train_step"]
    images = [b for b in plan.buffers if b.space == "arena" and b.type.rank >= 4]
    images = [b for b in images if b.type.shape[0] == 64]  # no blocks of a transform
    assert images
    assert all(b.layout[0] == 1 for b in images)
    turned = [k for k in plan.kernels() if k.schedule.strategy == "turn"]
    assert [k.nodes for k in turned] == [("image",)]


def test_single_images_have_the_channels_last():
    """A convolution of one image runs over output channels: image and weights have them innermost,
    weights of the state through a copy, made beside the convolution before the one that reads it.
    """
    c = Compilation(read_source(MODELS / "resnet20.nn"), {"batch": 1}, Options(direct=True))
    plan = c.plans["infer"]
    images = [b for b in plan.buffers if b.space == "arena" and b.type.shape[:1] == (1,)]
    assert all(b.layout[1] == 1 for b in images if b.type.rank == 4)
    kernels = list(plan.kernels())
    for n, k in enumerate(kernels):
        if k.schedule.strategy == "contract" and k.schedule.register:
            assert k.schedule.vector == ("i",)
        if k.schedule.strategy == "turn":
            readers = [r for r in kernels if f"{k.nodes[0]}.packed" in reads_and_writes(r)[0]]
            windows = [w for w in kernels[n:] if w.schedule.strategy == "contract"]
            assert readers == windows[1:2]
    assert sum(k.schedule.strategy == "turn" for k in kernels) >= 10


RESHAPED = """
model flat {
    input image : f32[batch, 3, 13, 11]
    shared = conv2d(24, 3, padding=1)
    x = image |> conv2d(24, 3, padding=1) |> shared |> relu |> shared |> relu
    output classes = softmax(x |> flatten |> dense(9))
    output pooled = mean(x |> conv2d(40, 3, stride=2, padding=1) |> max_pool2d(2), axis=[2, 3])
}
"""


def assert_one_at_a_time(path, image):
    """All outputs are the same for images one by one and for all in one batch."""
    found = []
    for batch in (1, len(image)):
        model = nncompiler.compile(path, batch=batch)
        model.init(1)
        found.append(model.predict({"image": image}))
    assert len(found[0]) > 1
    for name, one in found[0].items():
        np.testing.assert_allclose(one, found[1][name], rtol=1e-5, atol=1e-6)


def test_reshaped_images_and_shared_weights(tmp_path):
    """Where a view joins channels and positions its base stays row-major, and weights that several
    kernels read are copied once: one image at a time gives what a batch does.
    """
    path = tmp_path / "flat.nn"
    path.write_text(RESHAPED)
    image = np.random.default_rng(0).standard_normal((32, 3, 13, 11)).astype(np.float32)
    assert_one_at_a_time(path, image)
    plan = Compilation(read_source(path), {"batch": 1}).plans["infer"]
    assert [k.nodes for k in plan.kernels()].count(("shared.W",)) == 1


OUTPUT_READ = """
model two {
    input image : f32[batch, 1, 20, 20]
    hidden = image |> conv2d(12, 3) |> relu |> conv2d(12, 3) |> relu |> conv2d(12, 3) |> relu
    output middle = hidden |> conv2d(1, 3)
    next = middle |> conv2d(12, 3) |> relu |> conv2d(12, 3) |> relu
    output last = mean(next, axis=[2, 3])
}
"""


def test_output_that_is_read_again_is_no_input(tmp_path):
    """Only inputs are copied in front; an output is not there yet."""
    path = tmp_path / "two.nn"
    path.write_text(OUTPUT_READ)
    image = np.random.default_rng(0).random((32, 1, 20, 20), np.float32)
    assert_one_at_a_time(path, image)


def rounds_of(rng, batch, time, rows=48, columns=64, machine=AVX2):
    """A weight gradient over batch and time, as `split_rounds` leaves it, with its arrays."""
    a = rng.standard_normal((batch, time, rows)).astype(np.float32)
    b = rng.standard_normal((batch, time, columns)).astype(np.float32)
    c = np.zeros((rows, columns), np.float32)
    term = apply("mul", load("a", a, "k", "l", "i"), load("b", b, "k", "l", "j"))
    fold = Fold(("acc",), "sum", axes(k=batch, l=time), (term,))
    store = Store("c", at("i", "j"), Ref("acc", F32))
    nest = kernel(For(axes(i=rows, j=columns), (fold, store)))
    arrays = {"a": a, "b": b, "c": c}
    buffers = tuple(buffer(name, array) for name, array in arrays.items())
    plan = Plan("p", (), buffers, (nest,))
    return split_rounds(plan, lambda k, t: choose(k, t, machine)), arrays


@pytest.mark.parametrize("batch", [32, 30])
def test_rounds_are_lengthened(rng, batch):
    """Rounds of 16 steps are too short: several are joined, to the same sums."""
    plan, arrays = rounds_of(rng, batch, 16)
    (nest,) = plan.kernels()
    (fold, _) = nest.body[0].body
    assert [a.name for a in fold.axes] == ["k0", "k1", "l"]
    assert 64 <= fold.axes[1].extent * 16 <= 128
    _, schedule = choose(nest, plan.table(), AVX2)
    assert schedule.order.index("k0") < schedule.order.index(schedule.register)
    run(replace(nest, schedule=schedule), **arrays)
    expected = np.einsum("kli,klj->ij", arrays["a"], arrays["b"])
    np.testing.assert_allclose(arrays["c"], expected, rtol=1e-4, atol=1e-4)


def test_rounds_of_long_vectors_are_longer(rng):
    """Their steps hide lines from the second-level cache: rounds of 32 steps become 128."""
    plan, arrays = rounds_of(rng, 64, 32, 256, 1024, AVX512)
    (nest,) = plan.kernels()
    (fold, _) = nest.body[0].body
    assert [(a.name, a.extent) for a in fold.axes] == [("k0", 16), ("k1", 4), ("l", 32)]
    _, schedule = choose(nest, plan.table(), AVX512)
    assert schedule.order.index("k0") < schedule.order.index(schedule.register)
    run(replace(nest, schedule=schedule), **arrays)
    exact = np.einsum("kli,klj->ij", arrays["a"], arrays["b"])
    np.testing.assert_allclose(arrays["c"], exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "columns", "halves"),
    [(256, 96, True), (130, 128, True), (128, 128, False), (255, 96, False), (256, 64, True)],
)
def test_rows_in_halves(rng, rows, columns, halves):
    """Where rows are the wider side, two threads take half of them each, and all columns: what is
    read again, and copied again, is the narrower side.
    """
    plan, arrays = rounds_of(rng, 8, 64, rows, columns)
    (nest,) = plan.kernels()
    _, schedule = choose(nest, plan.table(), AVX2)
    assert schedule.pack == (columns if halves else -(-columns // 32) * 16)
    around = next(n for n, x in enumerate(schedule.order) if x.startswith("k"))
    assert schedule.order[:around] == (("i0", "j") if halves else ("j",))
    assert asks_ahead(replace(nest, schedule=schedule), **arrays) == (halves and columns >= 96)
    run(replace(nest, schedule=schedule), **arrays)
    expected = np.einsum("kli,klj->ij", arrays["a"], arrays["b"])
    np.testing.assert_allclose(arrays["c"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns", "width"), [(512, 128, 128), (128, 128, 64)])
def test_wide_tiles_leave_a_half_for_each_of_two(rng, rows, columns, width):
    """Few tiles of long vectors make up all columns: their blocks are no larger than a half, so
    that the loops outside of rounds are two steps at least.
    """
    plan, _ = rounds_of(rng, 64, 64, rows, columns)
    (nest,) = plan.kernels()
    _, schedule = choose(nest, plan.table(), AVX512)
    assert schedule.pack == width
    extents = {a.name: a.extent for s in nest.body for a in s.axes}
    around = next(n for n, x in enumerate(schedule.order) if x.startswith("k"))
    outside = [x for x in schedule.order[:around] if x != schedule.vector[0]]
    assert math.prod(extents[x] for x in outside) * columns // width == 2


@pytest.mark.parametrize(
    ("batch", "columns", "rounds"),
    [(8, 128, False), (8, 96, False), (64, 128, True), (8, 512, False)],
)
def test_long_vectors_need_no_rounds(rng, batch, columns, rounds):
    """Tiles of vectors that are whole lines run without rounds while the second-level cache has
    what one of them reads, of many columns a copy; shorter vectors have rounds all the same.
    """
    plan, arrays = rounds_of(rng, batch, 64, 128, columns)
    (nest,) = plan.kernels()
    for machine, expected in ((AVX512, rounds), (AVX2, True)):
        _, schedule = choose(nest, plan.table(), machine)
        before = schedule.order[: schedule.order.index(schedule.register)]
        assert any(x.startswith("k") for x in before) == expected
    _, schedule = choose(nest, plan.table(), AVX512)
    assert schedule.pack == 64 or columns != 512
    run(replace(nest, schedule=schedule), **arrays)
    exact = np.einsum("kli,klj->ij", arrays["a"], arrays["b"])
    np.testing.assert_allclose(arrays["c"], exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("batch", "unroll"), [(32, 4), (30, 3), (31, 3), (64, 1)])
def test_lanes_of_the_batch_are_unrolled(rng, batch, unroll):
    """A weight gradient with the batch last: all vectors of few images at once, same bits."""
    a, b = (rng.standard_normal((n, 9, batch)).astype(np.float32) for n in (12, 8))
    c = np.zeros((12, 8), np.float32)
    term = apply("mul", load("a", a, "i", "l", "k"), load("b", b, "j", "l", "k"))
    fold = Fold(("acc",), "sum", axes(l=9, k=batch), (term,))
    store = Store("c", at("i", "j"), Ref("acc", F32))
    nest = kernel(For(axes(i=12, j=8), (fold, store)))
    table = {name: buffer(name, array) for name, array in (("a", a), ("b", b), ("c", c))}
    found = choose_schedule(nest, table, AVX2)
    assert (found.vector, found.order[-1], found.unroll) == (("k",), "k", unroll)
    assert not verify_kernel(replace(nest, schedule=found), table, (), {})
    results = []
    for steps in {1, 2, found.unroll}:
        run(replace(nest, schedule=replace(found, unroll=steps)), a=a, b=b, c=c)
        results.append(c.tobytes())
    assert len(set(results)) == 1
    np.testing.assert_allclose(c, np.einsum("ilk,jlk->ij", a, b), rtol=1e-4, atol=1e-4)


def test_rounds_stay_where_they_are_right(rng):
    """A sum that fits in cache as a whole, and rounds that no number divides."""
    for batch, time in ((8, 16), (31, 16)):
        plan, _ = rounds_of(rng, batch, time)
        (nest,) = plan.kernels()
        assert [a.name for a in nest.body[0].body[0].axes] == ["k", "l"]


@pytest.mark.parametrize(
    ("columns", "steps", "order", "pack"),
    [(256, 10, "jijk", 128), (128, 16, "jijk", 64), (96, 10, "jik", 16), (256, 17, "jik", 16)],
)
def test_short_sums_go_along_lines(columns, steps, order, pack):
    """Where sums are short, epilogues of many columns go along lines of memory, by halves."""
    arrays = {"a": (64, steps), "b": (columns, steps), "c": (64, columns)}
    zeros = {name: np.zeros(s, np.float32) for name, s in arrays.items()}
    table = {name: buffer(name, array) for name, array in zeros.items()}
    found = choose_schedule(product_of(*zeros.values(), "jk"), table, AVX2)
    assert (found.order, found.pack) == (tuple(order), pack)


@pytest.mark.parametrize(("first", "second"), [(16, 16), (4, 33), (17, 3)])
def test_loops_side_by_side_that_share_an_axis(rng, first, second):
    """Each is best along another axis, of which the first has both: one of them is chosen."""
    x, z = (rng.random((first, n), np.float32) for n in (second, first))
    h, y = np.zeros_like(x), np.zeros_like(z)
    turned = For(axes(i=first, a=second), (Store("h", at("i", "a"), load("x", x, "i", "a")),))
    straight = For(axes(b=first, i=first), (Store("y", at("b", "i"), load("z", z, "b", "i")),))
    nest = scheduled(kernel(turned, straight), x=x, h=h, y=y, z=z)
    assert len(nest.schedule.vector) == 1
    run(nest, x=x, h=h, y=y, z=z)
    np.testing.assert_array_equal(h, x)
    np.testing.assert_array_equal(y, z)
