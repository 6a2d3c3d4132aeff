"""Trees of dataclasses as JSON: an object per node, its class under `form`, fields by name."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from nncompiler.errors import Span
from nncompiler.ir.graph import Value
from nncompiler.ir.scalar import Affine
from nncompiler.ir.types import DType, TensorType


def as_json(tree: Any) -> str:
    """`tree` as indented JSON text."""
    return json.dumps(structure(tree), indent=1, ensure_ascii=False) + "\n"


def structure(value: Any) -> Any:
    """`value` in dicts, lists and scalars. Types, places and indices are texts, as in IR text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0.0 else repr(value)
        case bytes():
            return value.hex()
        case Span() | DType() | Affine():
            return str(value)
        case TensorType():
            return {"dtype": value.dtype.name, "shape": list(value.shape)}
        case Value():
            return {"name": value.name, "type": str(value.type)}
        case dict():
            return {str(k): structure(v) for k, v in value.items()}
        case tuple() | list():
            return [structure(v) for v in value]
    if is_dataclass(value):
        parts = {f.name: structure(getattr(value, f.name)) for f in fields(value)}
        return {"form": type(value).__name__, **parts}
    raise TypeError(f"no JSON for {type(value).__name__}")
