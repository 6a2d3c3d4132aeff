"""Guarded loads touch no memory and give the fill where the guard does not hold."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.ir.graph import Builder
from nncompiler.ir.types import F32, F64, DType, TensorType
from tests.differential import Compiled


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
