"""Guarded loads touch no memory and give the fill where the guard does not hold."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.certain import holds
from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import select
from nncompiler.ir.graph import Builder
from nncompiler.ir.kernel import Fold, For, Kernel, Schedule, Store
from nncompiler.ir.scalar import Affine, Iota, Load, Ref, apply, const
from nncompiler.ir.types import F32, F64, I32, DType, TensorType
from tests.differential import Compiled
from tests.nest_harness import at, axes, buffer, kernel, load, run


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("low", [0, 1, 3, 8, 11, 17])
@pytest.mark.parametrize("interior", [0, 1])
def test_padding_is_filled_whatever_lies_around(dtype: DType, low: int, interior: int) -> None:
    """A regression: with 11 in front, LLVM turned one half of a wide masked load into a plain one,
    which read what lies in front of the array. The arrays here have NaN around them.
    """
    b = Builder("pad")
    x = b.param("input", "x", TensorType(dtype, (2, 7)))
    amounts = {"low": (18, low), "high": (10, 13), "interior": (interior, 0)}
    y = b.emit("pad", x, value=0.0, **amounts)  # type: ignore[arg-type]
    compiled = Compiled([b.finish([("y", y)])], dtype=dtype)
    values = np.arange(1.0, 15.0).reshape(2, 7)
    expected = np.zeros(y.shape)
    expected[18 : 20 + interior : 1 + interior, low : low + 7] = values
    assert np.array_equal(compiled.run("pad", {"x": values})["y"], expected)


@pytest.mark.parametrize(("rows", "columns"), [("h", "o"), ("w", "o"), ("o", "w"), ("o", "h")])
@pytest.mark.parametrize("tile", [(1, 8), (3, 16), (4, 16), (6, 8)])
@pytest.mark.parametrize("side", [3, 8, 15])
def test_tiles_at_edges_look_at_guards(
    rows: str, columns: str, tile: tuple[int, int], side: int
) -> None:
    """A padded convolution with guards that differ between rows or lanes, the image in the middle
    of NaN: tiles inside load it without any, those at the edges never leave it.
    """
    rng = np.random.default_rng(3)
    x = np.full((4, side + 6, side + 6), np.nan, np.float32)[:, 3:-3, 3:-3]
    x[:] = rng.standard_normal(x.shape)
    w = rng.standard_normal((10, 4, 5, 5)).astype(np.float32)
    y = np.zeros((10, side, side), np.float32)
    schedule = Schedule("contract", (columns,), rows, tile, ())
    run(replace(padded_convolution(x, w, y), schedule=schedule), x=x, w=w, y=y)
    wide = np.pad(x, ((0, 0), (2, 2), (2, 2)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (5, 5), (1, 2))
    np.testing.assert_allclose(y, np.einsum("chwmn,ocmn->ohw", windows, w), rtol=1e-4, atol=1e-4)


def padded_convolution(x: np.ndarray, w: np.ndarray, y: np.ndarray) -> Kernel:
    """Places from -2 on, outside of which there is nothing to add."""
    side = x.shape[1]
    place = {p: Affine(((p, 1), (r, 1)), -2) for p, r in (("h", "m"), ("w", "n"))}
    first, *more = [
        apply(op, Iota(i), const(n, I32))
        for i in place.values()
        for op, n in (("ge", 0), ("lt", side))
    ]
    for condition in more:
        first = apply("and", first, condition)
    index = (Affine.axis("c"), place["h"], place["w"])
    image = Load("x", index, F32, first, const(0.0, F32))
    term = apply("mul", image, load("w", w, "o", "c", "m", "n"))
    fold = Fold(("acc",), "sum", axes(c=4, m=5, n=5), (term,))
    store = Store("y", at("o", "h", "w"), Ref("acc", F32))
    return kernel(For(axes(o=10, h=side, w=side), (fold, store)))


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(("guarded", "moved"), [("i", 1), ("j", 0)])
def test_rows_outside_are_not_looked_for(cpu: str, guarded: str, moved: int) -> None:
    """A masked load of no lane takes hundreds of cycles where its page is not there: the address
    of a row outside is moved into the buffer. Where lanes differ it stays as it is.
    """
    x = np.full((6, 40), np.nan, np.float32)
    x[1:, 1:] = np.arange(195, dtype=np.float32).reshape(5, 39)
    x, y = x[1:, 1:33], np.zeros((5, 32), np.float32)
    place = {n: Affine(((n, 1),), -int(n == guarded)) for n in ("i", "j")}
    inside = apply("ge", Iota(place[guarded]), const(0, I32))
    one = Load("x", tuple(place.values()), F32, inside, const(2.0, F32))
    nest = kernel(For(axes(i=5, j=32), (Store("y", at("i", "j"), one),)))
    nest = replace(nest, schedule=Schedule("loops", ("j",)))
    table = {"x": buffer("x", x), "y": buffer("y", y)}
    text = emit_kernel(nest, table, select(cpu), "kernel").text
    assert "llvm.masked.load" in text
    assert len(re.findall(r"= select i1 \S+ ptr ", text)) == moved
    run(nest, select(cpu), x=x, y=y)
    expected = np.full_like(y, 2.0)
    if guarded == "i":
        expected[1:] = x[:-1]
    else:
        expected[:, 1:] = x[:, :-1]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("stride", [-3, -2, -1, 1, 2, 3, 4])
@pytest.mark.parametrize("first", [-9, -4, -1, 0, 2, 7])
@pytest.mark.parametrize("over", ["k", "j"])
def test_steps_beyond_an_image_are_left_out(stride: int, first: int, over: str) -> None:
    """The gradient of a window's weights: places `stride` apart, some or all of them outside of
    an image in the middle of NaN; bounds of loops, or of rounds around the places in the window.
    """
    rng = np.random.default_rng(5)
    x = np.full((4, 9 + 40, 8), np.nan, np.float32)[:, 20:29]
    x[:] = rng.standard_normal(x.shape)
    g = rng.standard_normal((3, 6, 8)).astype(np.float32)
    y = np.zeros((3, 4, 3), np.float32)
    place = Affine(tuple(sorted({"n": stride, "k": 1}.items())), first)
    inside = apply(
        "and", apply("ge", Iota(place), const(0, I32)), apply("lt", Iota(place), const(9, I32))
    )
    image = Load("x", (Affine.axis("j"), place, Affine.axis("m")), F32, inside, const(0.0, F32))
    term = apply("mul", load("g", g, "i", "n", "m"), image)
    fold = Fold(("acc",), "sum", axes(n=6, m=8), (term,))
    store = Store("y", at("i", "j", "k"), Ref("acc", F32))
    nest = kernel(For(axes(i=3, j=4, k=3), (fold, store)))
    order = ("i", "j", "n", "k", "m") if over == "j" else ("i", "j", "k", "n", "m")
    run(replace(nest, schedule=Schedule("contract", ("m",), "j", (2, 3), order)), x=x, g=g, y=y)
    wanted = np.zeros_like(y)
    for n, k in np.ndindex(6, 3):
        if 0 <= (at_x := stride * n + k + first) < 9:
            wanted[:, :, k] += np.einsum("im,jm->ij", g[:, n], x[:, at_x])
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


def test_certain_guards() -> None:
    """What the counters of loops reach decides a condition; where that is not known nothing does.
    """
    inside = apply("lt", Iota(Affine((("h", 1), ("m", 1)), -1)), const(8, I32))
    at_m = {"m": At("%m", 0, (0, 2))}
    assert holds(inside, {"h": At("", 5), **at_m}, None) is True
    assert holds(inside, {"h": At("", 7), **at_m}, None) is None
    assert holds(inside, {"h": At("", 9), **at_m}, None) is False
    assert holds(inside, {"h": At("%h"), **at_m}, None) is None
    assert holds(inside, {"h": At("%h", 1, (0, 4)), **at_m}, Lanes("h", 4, 2)) is True
    assert holds(inside, {"h": At("%h", 1, (0, 4)), **at_m}, Lanes("h", 4, 3)) is None
