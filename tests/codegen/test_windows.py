"""Gradients of the weights of convolutions, of images whose batch lies last: rounds around
the places in a window.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nncompiler.codegen.contractions.product import columns_of, roles_of
from nncompiler.ir.kernel import Fold, For, Kernel, Schedule, Store
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import F32, Affine, Ref, apply
from nncompiler.ir.tile_roles import ordered
from tests.nest_harness import at, axes, kernel, load, run


def gradient(x: np.ndarray, g: np.ndarray, y: np.ndarray) -> Kernel:
    row, column = (Affine(((a, 1), (b, 1))) for a, b in (("k", "n"), ("l", "p")))
    term = apply("mul", load("g", g, "i", "n", "p", "m"), load("x", x, "j", row, column, "m"))
    side, batch = g.shape[1], g.shape[3]
    fold = Fold(("acc",), "sum", axes(n=side, p=side, m=batch), (term,))
    store = Store("y", at("i", "j", "k", "l"), Ref("acc", F32))
    return kernel(For(axes(i=len(g), j=len(x), k=3, l=3), (fold, store)))


@pytest.mark.parametrize(
    ("rows", "order", "columns"),
    [
        ("i", "jinklpm", "j"), ("i", "jniklpm", "j"), ("i", "klinjpm", "l"),
        ("j", "ijnklpm", "i"), ("i", "njiklpm", "l"), ("i", "", "l"),
    ],
)  # fmt: skip
def test_columns_are_outside_of_rounds(rows: str, order: str, columns: str) -> None:
    """Lanes are partial sums: the columns of a tile are those that the order names in front of
    all sums, not places in a window that rounds run around.
    """
    rng = np.random.default_rng(7)
    x = rng.standard_normal((6, 7, 7, 8)).astype(np.float32)
    g = rng.standard_normal((5, 5, 5, 8)).astype(np.float32)
    y = np.zeros((5, 6, 3, 3), np.float32)
    nest = gradient(x, g, y)
    schedule = Schedule("contract", ("m",), rows, (3, 4), tuple(order))
    form = contraction(nest)
    parallel = ordered(form.parallel, schedule)
    roles = roles_of(form.products[0], parallel, schedule)
    assert columns_of(roles, parallel, schedule) == columns
    run(replace(nest, schedule=schedule), x=x, g=g, y=y)
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (1, 2))
    np.testing.assert_allclose(y, np.einsum("inpm,jklmnp->ijkl", g, windows), rtol=1e-4, atol=1e-4)
