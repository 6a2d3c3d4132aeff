"""A model written for one batch size: it compiles for that one, what grows with the batch is told
by what is declared, and only another batch is refused."""

from __future__ import annotations

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, read_source
from nncompiler.errors import UserError
from nncompiler.ir.types import F32
from nncompiler.lang.elaborate import interface

MODEL = """
model own {
    input x : f32[batch, 6]
    param W : f32[12, 3] = normal()
    n = batch
    y = reshape(x, 4, 12)
    z = y @ W
    n = reshape(z, 12)
    input late : f32[batch, 3]
    target t : f32[4, 3]
    target u : f32[batch]
    output out = z
    output rows = late * 2
    output same = n
    loss mean((z - t) ** 2) + mean(u) * 0 + mean(late) * 0
}
train { optimizer = sgd(lr=0.1) batch = 8 }
"""


def test_what_is_declared_grows_and_what_does_not_fit_is_unknown() -> None:
    """Declarations behind the line that does not fit count; what follows from it does not, nor
    does an old value of a name that it binds."""
    c = Compilation(read_source(MODEL), {})
    assert c.batched == ("x", "late", "u", "rows")
    there = interface(c.file, sizes={"batch": 16}, dtype=F32)
    assert {n: t.shape for n, t in there.items()} == {
        "x": (16, 6), "late": (16, 3), "t": (4, 3), "u": (16,), "rows": (16, 3),
    }  # fmt: skip


def test_it_runs_and_learns_with_its_batch_and_no_other() -> None:
    """`predict` and `train_step` with eight rows; five are refused with the line that says so."""
    model = nncompiler.compile(MODEL)
    rng = np.random.default_rng(0)
    x, late = (rng.normal(size=(8, n)).astype(np.float32) for n in (6, 3))
    found = model.predict({"x": x, "late": late})
    w = model.state_dict()["W"]
    np.testing.assert_allclose(found["out"], x.reshape(4, 12) @ w, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["rows"], late * 2)
    data = {"x": x, "late": late, "t": np.ones((4, 3), np.float32), "u": np.zeros(8, np.float32)}
    losses = [model.train_step(**data) for _ in range(20)]
    assert losses[-1] < losses[0]
    with pytest.raises(UserError, match="NN0139"):
        model.predict({"x": x[:5], "late": late[:5]})
