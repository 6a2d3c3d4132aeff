"""Element types and tensor types. Shapes are static tuples of Python integers; axis order and
padding are not types."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nncompiler.record import dataclass

Array = NDArray[np.generic]

#: Largest tensor the compiler accepts, in elements: indices fit i32 everywhere in generated code.
MAX_ELEMENTS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: `kind` is one of float, int, uint, bool; `bytes` its size in memory."""

    name: str
    kind: str
    bytes: int

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return np.dtype(_NUMPY[self.name])

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    def __str__(self) -> str:
        return self.name


F32 = DType("f32", "float", 4)
F64 = DType("f64", "float", 8)
I32 = DType("i32", "int", 4)
I64 = DType("i64", "int", 8)
U8 = DType("u8", "uint", 1)
U32 = DType("u32", "uint", 4)
U64 = DType("u64", "uint", 8)
BOOL = DType("bool", "bool", 1)

DTYPES = {d.name: d for d in (F32, F64, I32, I64, U8, U32, U64, BOOL)}
_NUMPY = {
    "f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u32": "uint32", "u64": "uint64", "bool": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorType:
    """``f32[64,784]``: a dtype and a static shape; ``f32[]`` is a scalar."""

    dtype: DType
    shape: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.bytes

    @property
    def strides(self) -> tuple[int, ...]:
        """Row-major strides, in elements."""
        return row_major(self.shape)

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of `shape`, in elements."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def scalar(dtype: DType) -> TensorType:
    return TensorType(dtype, ())


def broadcast_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """NumPy's broadcast of two shapes, or None where they do not fit."""
    if a == b or not a:
        return b
    rank = max(len(a), len(b))
    a = (1,) * (rank - len(a)) + a
    b = (1,) * (rank - len(b)) + b
    if any(x != y and 1 not in (x, y) for x, y in zip(a, b, strict=True)):
        return None
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))
