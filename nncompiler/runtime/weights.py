"""Weights as files: `.npz` and `.safetensors`, read without trust and written atomically.

Neither needs a library beyond NumPy, and nothing in a file is ever executed. The same arrays give
the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from nncompiler.errors import UserError
from nncompiler.runtime.checks import Array, Path
from nncompiler.runtime.files import write_atomically
from nncompiler.runtime.npz import is_checkpoint, read_npz, reason, write_npz

SUFFIXES = (".npz", ".safetensors")
_MAX_HEADER = 100_000_000  # the limit of the format
_METADATA = "__metadata__"
_TENSOR_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_TENSOR_NAMES = {np.dtype(code): name for name, code in _TENSOR_TYPES.items()}


def write_weights(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name to an `.npz` or `.safetensors` file."""
    write = _by_suffix(path, write_npz, write_safetensors)
    write_atomically(path, lambda stream: write(stream, arrays))


def read_weights(path: Path) -> dict[str, Array]:
    """The arrays of an `.npz` or `.safetensors` file by name."""
    read: Callable[[Path], dict[str, Array]] = _by_suffix(path, _read_npz, read_safetensors)
    return read(path)


def _by_suffix(path: Path, npz: Any, safetensors: Any) -> Any:
    match os.path.splitext(path)[1].lower():
        case ".npz":
            return npz
        case ".safetensors":
            return safetensors
        case suffix:
            raise UserError(
                "NN0804", f"expected a weights file named .npz or .safetensors, but found "
                f"'{path}'", help=f"write it as '{os.fspath(path).removesuffix(suffix)}.npz'",
            )  # fmt: skip


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        arrays = read_npz(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error, ".npz") from None
    if is_checkpoint(arrays):
        raise UserError(
            "NN0802", f"expected weights, but '{path}' is a checkpoint",
            help="go on from it with `nnc train --resume`, which takes --weights-out as well; "
            "in Python, load_checkpoint and then save",
        )  # fmt: skip
    return arrays


def unreadable(path: Path, error: Exception, kind: str) -> UserError:
    """The error for a file that is missing, or not what its name says."""
    if isinstance(error, FileNotFoundError):
        return UserError("NN0801", f"cannot read '{path}': there is no such file")
    if isinstance(error, OSError):
        return UserError("NN0801", f"cannot read '{path}': {error.strerror or error}")
    why = reason(error)
    return UserError(
        "NN0802", f"expected weights in the {kind} format, but '{path}' cannot be read as such"
        + (f": {why}" if why else ""))  # fmt: skip


def write_safetensors(stream: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write the format: length of the header, header, data; large element types first."""
    plain: dict[str, Array] = {}
    for name, array in arrays.items():
        if name == _METADATA or array.dtype.newbyteorder("<") not in _TENSOR_NAMES:
            raise UserError("NN0808", f"a .safetensors file cannot hold '{name}' ({array.dtype})")
        plain[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    header: dict[str, Any] = {}
    order = sorted(plain, key=lambda name: (-plain[name].itemsize, name))
    offset = 0
    for name in order:
        array = plain[name]
        header[name] = {
            "dtype": _TENSOR_NAMES[array.dtype], "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }  # fmt: skip
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        stream.write(plain[name].tobytes())


def read_safetensors(path: Path) -> dict[str, Array]:
    """Every array of a `.safetensors` file by name; its metadata is ignored."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
        return _parse_safetensors(data)
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise unreadable(path, error, ".safetensors") from None


def _parse_safetensors(data: bytes) -> dict[str, Array]:
    """The arrays of a whole file; `ValueError` unless they cover its data exactly, once each."""
    if len(data) < 8:
        raise ValueError(f"it has {len(data)} bytes")
    (length,) = struct.unpack_from("<Q", data)
    if length > min(_MAX_HEADER, len(data) - 8):
        raise ValueError(f"its header claims {length} bytes")
    header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    header.pop(_METADATA, None)
    body = memoryview(data)[8 + length :]
    tensors = {name: _tensor(name, record) for name, record in header.items()}
    end = 0
    for name, (start, stop, _, _) in sorted(tensors.items(), key=lambda item: item[1][:2]):
        if start != end:
            raise ValueError(f"its tensor '{name}' does not follow the one before it")
        end = stop
    if end != len(body):
        raise ValueError(f"its tensors need {end} bytes, but it has {len(body)}")
    return {
        name: _values(body[start:stop], dtype).reshape(shape)
        for name, (start, stop, dtype, shape) in tensors.items()
    }


def _values(data: memoryview, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "b":  # a byte other than 0 and 1 would not be a bool
        return np.asarray(np.frombuffer(data, np.uint8) != 0)
    return np.asarray(np.frombuffer(data, dtype).copy())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return items


def _tensor(name: str, record: Any) -> tuple[int, int, np.dtype[Any], tuple[int, ...]]:
    """Start, stop, element type and shape, which agree with each other."""
    if not isinstance(record, dict):
        raise ValueError(f"its tensor '{name}' is not described")
    kind: Any
    shape: Any
    span: Any
    kind, shape, span = (record.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in _TENSOR_TYPES:
        raise ValueError(f"its tensor '{name}' has element type {str(kind)[:40]}")
    if not _sizes(shape) or len(shape) > 32 or not _sizes(span) or len(span) != 2:
        raise ValueError(f"its tensor '{name}' has no proper shape or place")
    dtype = np.dtype(_TENSOR_TYPES[kind])
    if span[1] - span[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the shape of its tensor '{name}' does not fit its data")
    return span[0], span[1], dtype, tuple(shape)


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**48 for v in values)
