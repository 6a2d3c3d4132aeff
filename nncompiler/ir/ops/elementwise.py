"""Elementwise operators: result[i] = primitive(a[i], b[i], …) with NumPy broadcasting.

Each is the scalar primitive of the same name, except that gradients, simplifications and references are its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.op import (
    DimMap, Lowering, Operator, Sample, broadcast_dims, broadcast_index, expect, expect_inputs,
)  # fmt: skip
from nncompiler.ir.scalar import PRIMITIVES, Expr, Index, apply, cast
from nncompiler.ir.types import (
    BOOL, DTYPES, F32, I32, U8, U32, Array, TensorType, broadcast_shapes,
)  # fmt: skip

AWKWARD = (0, 1, 2, 3, 15, 16, 17, 31, 33)
Grads = Sequence[Value | None]
Cotangents = tuple[Value | None, ...]


def only(cotangents: Cotangents) -> Value:
    """The cotangent of a single result (the sweep never asks without one)."""
    assert cotangents[0] is not None
    return cotangents[0]
