"""Code of a large batch is made in no more time than that of a small one."""

from __future__ import annotations

import time

import nncompiler

MODEL = "model m { input x : f32[batch, 4] output y = x |> dense(3) }"


def test_time_does_not_grow_with_the_batch() -> None:
    """A loop of hundreds of millions of steps is written without a look at each of them."""
    start = time.process_time()
    nncompiler.compile(MODEL, batch=200_000_000, cache=False, functions=["infer"])
    assert time.process_time() - start < 10
