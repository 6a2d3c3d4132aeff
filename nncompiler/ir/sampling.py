"""Random arguments for a function: floats in a moderate range, indices within their bounds."""

from __future__ import annotations

import numpy as np

from nncompiler.ir.graph import Function
from nncompiler.ir.index_bounds import index_bounds
from nncompiler.ir.types import Array


def random_arguments(
    function: Function, seed: int = 0, low: float = -1.0, high: float = 1.0
) -> dict[str, Array]:
    """An array per parameter, by name; the same for the same seed. Optimizer slots are drawn
    non-negative.

    i32 values that are used as indices, directly or through data movement, are drawn below the
    smallest bound.
    """
    generator = np.random.default_rng(seed)
    bounds = {v: min(found.values()) for v, found in index_bounds(function).items()}
    found: dict[str, Array] = {}
    for p in function.params:
        v = p.value
        dtype = v.dtype.numpy
        if v.dtype.is_float:
            start = 0.0 if p.kind in ("slot", "header") else low
            found[v.name] = generator.uniform(start, high, v.shape).astype(dtype)
        elif v.dtype.kind == "bool":
            found[v.name] = generator.integers(0, 2, v.shape).astype(dtype)
        else:
            found[v.name] = generator.integers(0, bounds.get(v, 7), v.shape).astype(dtype)
    return found
