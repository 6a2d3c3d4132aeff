"""Windows of images whose channels lie pages apart are asked for one channel ahead."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import select
from nncompiler.ir.kernel import For, Kernel, Let, Schedule, Store
from nncompiler.ir.scalar import F32, Affine, Ref, apply
from tests.nest_harness import at, axes, buffer, kernel, load, run

PLACES = [(y, x) for y in (0, 1) for x in (0, 1)]


def image(channels: int, apart: int, lanes: int) -> np.ndarray:
    """Rows of eight columns, the lanes last; channels lie so many elements apart."""
    shape, steps = (channels, 2, 8, lanes), (4 * apart, 32 * lanes, 4 * lanes, 4)
    elements = (channels - 1) * apart + 16 * lanes  # channels may share some
    memory = np.random.default_rng(3).standard_normal(elements).astype(np.float32)
    return np.ndarray(shape, np.float32, memory, strides=steps)  # refuses what is outside


def sums(d: np.ndarray, places: list[tuple[int, int]]) -> Kernel:
    """``out[m,x,i]`` is the sum of the elements of a window at 2 * x."""
    column = Affine.axis("x") * 2
    terms = [load("d", d, "m", y, column + x, "i") for y, x in places]
    total = Let("v", reduce(lambda a, b: apply("add", a, b), terms))
    body = total, Store("out", at("m", "x", "i"), Ref("v", F32))
    schedule = Schedule(vector=("i",), order=("m", "x", "i"))
    return Kernel("k", kernel(For(axes(m=d.shape[0], x=4, i=d.shape[3]), body)).body, schedule)


def requests(nest: Kernel, cpu: str, **arrays: np.ndarray) -> int:
    table = {name: buffer(name, array) for name, array in arrays.items()}
    text = emit_kernel(nest, table, select(cpu), "kernel").text
    return text.count("call void @llvm.prefetch")


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(
    ("channels", "apart", "lanes", "places", "expected"),
    [
        (3, 1024, 32, PLACES, 8),  # two lines of each place
        (3, 1024, 17, PLACES, 8),
        (3, 1024, 16, PLACES, 4),
        (3, 1000, 16, PLACES, 0),  # within a page
        (300, 1000, 16, PLACES, 4),  # the same in a buffer of more than a megabyte
        (2400, 120, 8, PLACES, 0),  # steps of few lines
        (3, 1024, 16, PLACES[:3], 0),  # too few places
        (1, 1024, 16, PLACES, 0),  # nothing is ahead
        (3, 20000, 600, PLACES, 0),  # more than stays in cache
    ],
)
def test_windows_are_asked_for(channels, apart, lanes, places, expected, cpu):
    """Once for each line of what is read at a point; nothing else changes."""
    d = image(channels, apart, lanes)
    out = np.zeros((channels, 4, lanes), np.float32)
    nest = sums(d, places)
    assert requests(nest, cpu, d=d, out=out) == expected
    run(nest, d=d, out=out)
    found = sum(d[:, y, x : x + 7 : 2] for y, x in places)
    np.testing.assert_allclose(out, found, rtol=1e-5, atol=1e-5)


def test_what_is_read_now_is_not_asked_for():
    """Steps along the columns of four that overlap: of each row two are new."""
    d, out = image(300, 1024, 256), np.zeros((300, 3, 256), np.float32)
    column = Affine.axis("x") * 2
    terms = [load("d", d, "m", 0, column + n, "i") for n in range(4)]
    total = reduce(lambda a, b: apply("add", a, b), terms)
    schedule = Schedule(vector=("i",), order=("x", "m", "i"))
    loop = For(axes(x=3, m=1, i=256), (Store("out", at("m", "x", "i"), total),))
    nest = Kernel("k", kernel(loop).body, schedule)
    lines = 256 * 4 // 64
    assert requests(nest, "x86-64-v3", d=d, out=out) == 2 * lines


def test_what_is_written_is_asked_for():
    """Four places stored at each point, as what is read in the second-level cache."""
    d, out = image(3, 4096, 32), np.zeros((3, 2048), np.float32)
    to = np.ndarray(d.shape, np.float32, np.zeros(3 * 4096, np.float32), strides=d.strides)
    value = load("out", out, "m", "i")
    body = [Store("to", at("m", y, Affine.axis("x") * 2 + x, "i"), value) for y, x in PLACES]
    schedule = Schedule(vector=("i",), order=("m", "x", "i"))
    nest = Kernel("k", kernel(For(axes(m=3, x=4, i=32), tuple(body))).body, schedule)
    table = {"to": buffer("to", to), "out": buffer("out", out)}
    text = emit_kernel(nest, table, select("x86-64-v3"), "kernel").text
    asked = [x for x in text.splitlines() if "call void @llvm.prefetch" in x]
    assert len(asked) == 8 and all("i32 0, i32 2" in x for x in asked)
