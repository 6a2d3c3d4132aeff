"""Typed operands of instructions, and how LLVM spells their types.

A `Value` is one scalar (`lanes` 0) or a SIMD vector; booleans are i1 in registers and one byte in
memory.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from nncompiler.ir.scalar import Const
from nncompiler.ir.types import BOOL, DTYPES, DType
from nncompiler.record import dataclass

_TYPES = {
    "f32": "float", "f64": "double", "i32": "i32", "i64": "i64", "u8": "i8", "u32": "i32",
    "u64": "i64", "bool": "i1",
}  # fmt: skip
_IN_MEMORY = {**_TYPES, "bool": "i8"}
_SUFFIX = {"float": "f32", "double": "f64"}


def vector_of(element: str, lanes: int) -> str:
    return f"<{lanes} x {element}>" if lanes else element


def suffix(element: str, lanes: int) -> str:
    """How an overloaded intrinsic spells a type: ``v8f32``."""
    name = _SUFFIX.get(element, element)
    return f"v{lanes}{name}" if lanes else name


def register_type(dtype: DType) -> str:
    return _TYPES[dtype.name]


def memory_type(dtype: DType) -> str:
    return _IN_MEMORY[dtype.name]


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA name or literal with its type."""

    text: str
    dtype: DType
    lanes: int = 0

    @property
    def element(self) -> str:
        return register_type(self.dtype)

    @property
    def type(self) -> str:
        element = _TYPES[self.dtype.name]
        return f"<{self.lanes} x {element}>" if self.lanes else element

    @property
    def typed(self) -> str:
        return f"{self.type} {self.text}"


def literal(value: Const, lanes: int = 0) -> Value:
    """A constant of one scalar or with all lanes equal."""
    dtype = value.dtype
    match dtype.kind:
        case "float":
            text = _float_text(float(value.value), dtype.name) if value.value else _zero(value)
        case "bool":
            text = "true" if value.value else "false"
        case _:
            text = str(int(value.value))
    return Value(f"splat ({register_type(dtype)} {text})" if lanes else text, dtype, lanes)


@lru_cache(maxsize=1024)
def _float_text(value: float, dtype: str) -> str:
    return f"0x{struct.pack('>d', DTYPES[dtype].numpy.type(value)).hex().upper()}"


def _zero(value: Const) -> str:
    """A zero has a sign, which keys of a cache do not see."""
    return f"0x{struct.pack('>d', value.value).hex().upper()}"


def active_mask(active: int, lanes: int) -> Value:
    """The constant mask whose first `active` lanes are on."""
    bits = ", ".join("i1 true" if i < active else "i1 false" for i in range(lanes))
    return Value(f"<{bits}>", BOOL, lanes)
