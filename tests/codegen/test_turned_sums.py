"""Sums whose lanes run along one axis and are turned to another in front of the epilogue."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import host, select
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.kernel import Fold, For, Kernel, Let, Schedule, Store
from nncompiler.ir.scalar import Affine, Cast, Iota, Ref, apply, const
from nncompiler.ir.text import print_plan
from nncompiler.ir.text.plan import parse_plan
from nncompiler.ir.types import F32, I32
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.tiling.tile import choose_schedule
from tests.model_support import MODELS
from tests.nest_harness import AVX2, Compiled, at, axes, buffer, kernel, load, run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def gradient(x: np.ndarray, d: np.ndarray, w: np.ndarray) -> Kernel:
    """``w[i,j] -= 0.5 * sum k { x[k,i] * d[k,j] }``"""
    term = apply("mul", load("x", x, "k", "i"), load("d", d, "k", "j"))
    fold = Fold(("acc",), "sum", axes(k=len(d)), (term,))
    dtype = term.dtype
    step = Let("step", apply("mul", const(0.5, dtype), Ref("acc", dtype)))
    store = Store("w", at("i", "j"), apply("sub", load("w", w, "i", "j"), Ref("step", dtype)))
    return kernel(For(axes(i=w.shape[0], j=w.shape[1]), (fold, step, store)))


def arrays_of(rng, i, j, k, dtype=np.float32) -> dict[str, np.ndarray]:
    shapes = {"x": (k, i), "d": (k, j), "w": (i, j)}
    return {name: rng.standard_normal(s).astype(dtype) for name, s in shapes.items()}


def schedule(rows: int, columns: int, **more: object) -> Schedule:
    return replace(Schedule("contract", ("i", "j"), "j", (rows, columns), tuple("ijk")), **more)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.parametrize(
    ("i", "j", "k", "tile", "unroll"),
    [
        (32, 10, 8, (5, 16), 1), (37, 10, 8, (5, 16), 4), (9, 3, 5, (3, 16), 1),
        (3, 2, 1, (2, 8), 1), (1, 16, 7, (4, 8), 1), (28, 9, 4, (4, 24), 2),
        (18, 1, 4, (1, 16), 1),
    ],
)  # fmt: skip
def test_turned_sums(rng, dtype, name, i, j, k, tile, unroll):
    """Awkward sizes: rows and columns that do not fill tiles or squares."""
    arrays = arrays_of(rng, i, j, k, dtype)
    wanted = arrays["w"] - 0.5 * (arrays["x"].T @ arrays["d"])
    nest = replace(gradient(**arrays), schedule=schedule(*tile, unroll=unroll))
    run(nest, select(name), **arrays)
    np.testing.assert_allclose(arrays["w"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("apart", [0, 2])
def test_vectors_run_on_where_memory_does(rng, name, apart):
    """No lane of the epilogue is empty where its rows follow each other; with a gap they end."""
    arrays = arrays_of(rng, 32, 10, 8)
    arrays["w"] = rng.standard_normal((32, 10 + apart)).astype(np.float32)[:, :10]
    wanted = arrays["w"] - 0.5 * (arrays["x"].T @ arrays["d"])
    nest = replace(gradient(**arrays), schedule=schedule(5, 16))
    table = {key: buffer(key, array) for key, array in arrays.items()}
    text = emit_kernel(nest, table, select(name), "kernel").text
    assert ("masked" in text) == (apart > 0)
    if name in ("x86-64-v3", host().cpu):
        run(nest, select(name), **arrays)
        np.testing.assert_allclose(arrays["w"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", ["of a column", "place", "guard"])
def test_vectors_end_with_rows_where_what_is_read_does(rng, what):
    """The epilogue reads what differs from column to column, or asks where it is."""
    arrays = {**arrays_of(rng, 21, 10, 8), "b": rng.standard_normal(10).astype(np.float32)}
    nest = gradient(**{key: arrays[key] for key in "xdw"})
    (loop,) = nest.body
    fold, *_ = loop.body
    place = Cast(Iota(Affine.axis("j")), F32)
    inside = apply("lt", Iota(Affine.axis("j")), const(7, I32))
    value = {
        "of a column": load("b", arrays["b"], "j"), "place": place,
        "guard": replace(load("b", arrays["b"], "j"), guard=inside, fill=const(0.0, F32)),
    }[what]  # fmt: skip
    store = Store("w", at("i", "j"), apply("add", Ref("acc", F32), value))
    nest = replace(nest, body=(replace(loop, body=(fold, store)),), schedule=schedule(5, 16))
    run(nest, **arrays)
    more = {"of a column": arrays["b"], "place": np.arange(10)}
    more["guard"] = np.where(np.arange(10) < 7, arrays["b"], 0)
    wanted = arrays["x"].T @ arrays["d"] + more[what]
    np.testing.assert_allclose(arrays["w"], wanted, rtol=1e-4, atol=1e-5)


def test_axes_around_and_between(rng):
    """One axis outside of the columns, and one between them and the rows."""
    x = rng.standard_normal((2, 6, 19)).astype(np.float32)
    d = rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    y = np.zeros((2, 3, 19, 5), np.float32)
    term = apply("mul", load("x", x, *"nki"), load("d", d, *"nmkj"))
    fold = Fold(("acc",), "sum", axes(k=6), (term,))
    body = For(axes(n=2, m=3, i=19, j=5), (fold, Store("y", at(*"nmij"), Ref("acc", F32))))
    nest = replace(kernel(body), schedule=schedule(5, 16, order=tuple("nimjk")))
    run(nest, x=x, d=d, y=y)
    np.testing.assert_allclose(y, np.einsum("nki,nmkj->nmij", x, d), rtol=1e-4, atol=1e-5)


def test_parts_give_the_bits_of_a_whole(rng):
    """Workers share the columns; each finishes all rows of its own."""
    arrays = arrays_of(rng, 70, 10, 9)
    whole = {**arrays, "w": arrays["w"].copy()}
    nest = replace(gradient(**arrays), schedule=schedule(5, 16))
    run(nest, **whole)
    shared = replace(nest, schedule=schedule(5, 16, parallel=("i",)))
    table = {name: buffer(name, array) for name, array in arrays.items()}
    code = replace(emit_kernel(shared, table, host(), "kernel"), counters=("range", "parts"))
    for first, last in ((0, 1), (1, 3)):
        some = {"range": first | last << 32, "parts": 3}
        Compiled.of_code(code, host(), some)(**arrays)
    np.testing.assert_array_equal(arrays["w"], whole["w"])


@pytest.mark.parametrize(
    ("i", "j", "k", "vector"),
    [
        (256, 10, 64, "ij"), (84, 10, 64, "ij"), (64, 3, 32, "ij"), (256, 16, 64, "j"),
        (256, 40, 64, "j"),
    ],
)  # fmt: skip
def test_gradients_of_few_columns_are_turned(i, j, k, vector):
    """Where columns would leave lanes empty; where they fill vectors nothing is turned."""
    arrays = {"x": np.zeros((k, i), np.float32), "d": np.zeros((k, j), np.float32)}
    arrays["w"] = np.zeros((i, j), np.float32)
    table = {name: buffer(name, array) for name, array in arrays.items()}
    found = choose_schedule(gradient(**arrays), table, AVX2)
    assert found.vector == tuple(vector)
    assert found.pack == 0 or vector == "j"


@pytest.mark.parametrize(("schedule", "message"), [
    ("vector i k", "but not to the register axis"),
    (r"\g<0>, pack 16", "but not to the register axis, or with packed columns"),
    (r"vector i j, register j, tile 5x16, order j i | k", "not around that of the rows"),
])  # fmt: skip
def test_what_cannot_be_turned(schedule: str, message: str) -> None:
    """The verifier asks for the rows as the second axis, inside of the columns, without panels."""
    options = Options(cpu="x86-64-v3", functions=("train_step",))
    compilation = Compilation(read_source(MODELS / "digits_mlp.nn"), {"batch": 32}, options)
    plan = compilation.plans["train_step"]
    text = print_plan(plan)
    assert parse_plan(text) == plan and verify_plan(plan) == []
    pattern = r"vector i j, register j, tile 5x16, order i j \| k"
    assert re.search(pattern, text)
    if schedule.startswith("vector i k"):
        pattern = r"vector i j(?=, register j)"
    wrong = re.sub(pattern, schedule, text)
    assert any(message in d.message for d in verify_plan(parse_plan(wrong)))
