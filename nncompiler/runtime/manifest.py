"""The manifest of an artifact: what its functions take, how its state is laid out, what it needs.

It is JSON in the ELF section `.nnmanifest`. `parse` trusts nothing in it: whatever the bytes are,
the outcome is a `Manifest` whose sizes agree with each other, or a `UserError`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from nncompiler.errors import UserError

ABI = 1
DTYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype("float32"), "f64": np.dtype("float64"), "i32": np.dtype("int32"),
    "i64": np.dtype("int64"), "u8": np.dtype("uint8"), "u32": np.dtype("uint32"),
    "u64": np.dtype("uint64"), "bool": np.dtype("bool"),
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
HEADER = ("step", "draws", "seed", "rate")
_KINDS = ("header", "param", "state", "slot")
_ROLES = ("input", "target", "output")
_LIMIT = 2**48
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Argument:
    """An array an entry point reads or writes. `limit`: its integers index something that long."""

    name: str
    role: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    batched: bool
    limit: int | None = None

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Entry:
    """An exported function over the state; `rows` is the batch size it was compiled for."""

    symbol: str
    function: str
    suffix: str
    rows: int
    arena_bytes: int
    arguments: tuple[Argument, ...]

    @property
    def given(self) -> tuple[Argument, ...]:
        """The inputs and targets, in the order of the call."""
        return tuple(a for a in self.arguments if a.role != "output")

    @property
    def results(self) -> tuple[Argument, ...]:
        """The outputs, in the order of the call, after the inputs."""
        return tuple(a for a in self.arguments if a.role == "output")


@dataclass(frozen=True, slots=True)
class StateEntry:
    """A tensor in the state; `kind` is header, param, state (of the model) or slot."""

    name: str
    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest whose parts have been checked; `record` is the JSON it came from."""

    name: str
    dtype: np.dtype[Any]
    cpu: str
    features: tuple[str, ...]
    state: tuple[StateEntry, ...]
    state_bytes: int
    infer_bytes: int
    arena_bytes: int
    entries: tuple[Entry, ...]
    fit: dict[int, str]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    outputs: tuple[str, ...]
    losses: tuple[str, ...]
    metrics: tuple[str, ...]
    train: dict[str, Any] = field(repr=False)
    record: dict[str, Any] = field(repr=False)

    @property
    def parameters(self) -> tuple[StateEntry, ...]:
        """What weights files hold: the parameters and the state of the model."""
        return tuple(e for e in self.state if e.kind in ("param", "state"))


def describe(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    """``f32[64,784]``, in the notation of the language; NumPy's name where it has none."""
    return f"{NAMES.get(dtype, dtype)}[{','.join(map(str, shape))}]"


def parse(data: bytes, where: str = "the file") -> Manifest:
    """The manifest in `data`; `where` names the file in errors."""
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _malformed(where, "it is not JSON") from None
    reader = _Reader(record, where, "")
    abi = reader.size("abi")
    if abi != ABI:
        version = record.get("nncompiler", "an unknown version")
        raise UserError(
            "NN0604",
            f"expected an artifact with ABI {ABI}, but {where} has {abi} (nncompiler {version})",
            help="compile the model again with this version of nncompiler",
        )
    manifest = _manifest(reader)
    _agree(manifest, reader)
    return manifest


def _manifest(reader: _Reader) -> Manifest:
    state, target = reader.record("state"), reader.record("target")
    entries = tuple(_entry(r) for r in reader.records("entries"))
    suffixes = {e.suffix: e.rows for e in entries if e.function == "train_step"}
    fit = reader.record("fit")
    return Manifest(
        name=reader.identifier("name"), dtype=reader.dtype("dtype"), cpu=target.text("cpu"),
        features=target.texts("features"),
        state=tuple(_state_entry(r) for r in state.records("entries")),
        state_bytes=state.size("bytes"), infer_bytes=state.size("infer_bytes"),
        arena_bytes=max([reader.size("arena_bytes"), *(e.arena_bytes for e in entries)]),
        entries=entries,
        fit={suffixes[s]: fit.identifier(s) for s in fit.items if s in suffixes},
        inputs=reader.texts("inputs"), targets=reader.texts("targets"),
        outputs=reader.texts("outputs"), losses=reader.texts("losses"),
        metrics=reader.texts("metrics"), train=reader.optional("train", dict, {}),
        record=reader.items,
    )  # fmt: skip


def _entry(reader: _Reader) -> Entry:
    return Entry(
        reader.identifier("symbol"), reader.text("function"), reader.optional("suffix", str, ""),
        reader.size("rows"), reader.size("arena_bytes"),
        tuple(_argument(r) for r in reader.records("arguments")),
    )  # fmt: skip


def _argument(reader: _Reader) -> Argument:
    argument = Argument(
        reader.text("name"), reader.one_of("role", _ROLES), reader.dtype("dtype"),
        reader.shape("shape"), reader.optional("batched", bool, False),
        reader.size("limit") if reader.items.get("limit") is not None else None,
    )  # fmt: skip
    if argument.batched and not argument.shape:
        raise reader.malformed("a scalar has no batch axis")
    return argument


def _state_entry(reader: _Reader) -> StateEntry:
    return StateEntry(
        reader.text("name"), reader.one_of("kind", _KINDS), reader.dtype("dtype"),
        reader.shape("shape"), reader.size("offset"),
    )  # fmt: skip


def _agree(manifest: Manifest, reader: _Reader) -> None:
    """Raise unless the state's tensors lie apart within it and every entry point is usable."""
    names = [e.name for e in manifest.state]
    if len(set(names)) != len(names):
        raise reader.malformed("two tensors of the state have one name")
    end = 0
    for tensor in sorted(manifest.state, key=lambda e: e.offset):
        if tensor.offset < end or tensor.offset % tensor.dtype.itemsize:
            raise reader.malformed(f"'{tensor.name}' overlaps another tensor of the state")
        end = tensor.offset + tensor.bytes
        if end > (manifest.infer_bytes if tensor.kind == "param" else manifest.state_bytes):
            raise reader.malformed(f"'{tensor.name}' lies outside of the state")
    if manifest.infer_bytes > manifest.state_bytes:
        raise reader.malformed("the part of the state for inference is larger than the state")
    header = {e.name: (e.kind, e.shape) for e in manifest.state}
    for name in HEADER:
        if header.get(name) != ("header", (2,) if name == "seed" else ()):
            raise reader.malformed(f"the header of the state has no '{name}'")
    for entry in manifest.entries:
        names = [a.name for a in entry.arguments]
        if len(set(names)) != len(names):
            raise reader.malformed(f"two arguments of '{entry.symbol}' have one name")
        if any(a.batched and a.shape[0] != entry.rows for a in entry.arguments):
            raise reader.malformed(f"the batch of '{entry.symbol}' is not {entry.rows} rows")


class _Reader:
    """Typed access to a JSON object; `place` says where in the manifest it is."""

    def __init__(self, items: Any, where: str, place: str) -> None:
        self.where, self.place = where, place
        if not isinstance(items, dict):
            raise self.malformed("expected an object")
        self.items: dict[str, Any] = items

    def malformed(self, what: str, key: str = "") -> UserError:
        place = ".".join(part for part in (self.place, key) if part)
        return _malformed(self.where, f"at '{place}': {what}" if place else what)

    def _get(self, key: str, kind: type[_T]) -> _T:
        value = self.items.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.malformed(f"expected {kind.__name__}", key)
        return value

    def optional(self, key: str, kind: type[_T], default: _T) -> _T:
        return default if self.items.get(key) is None else self._get(key, kind)

    def text(self, key: str) -> str:
        return self._get(key, str)

    def identifier(self, key: str) -> str:
        return self._such_that(self.text(key), key, re.compile(r"[A-Za-z_]\w*\Z", re.A).match)

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        return self._such_that(self.text(key), key, choices.__contains__)

    def dtype(self, key: str) -> np.dtype[Any]:
        return DTYPES[self.one_of(key, tuple(DTYPES))]

    def size(self, key: str) -> int:
        return self._such_that(self._get(key, int), key, lambda n: 0 <= n < _LIMIT)

    def shape(self, key: str) -> tuple[int, ...]:
        shape = self._get(key, list)
        good = all(type(n) is int and 0 <= n < _LIMIT for n in shape)
        if not good or len(shape) > 32 or math.prod(shape) >= _LIMIT:
            raise self.malformed(f"{str(shape)[:60]} is not a shape", key)
        return tuple(shape)

    def texts(self, key: str) -> tuple[str, ...]:
        items = self._get(key, list)
        return self._such_that(tuple(items), key, lambda t: all(isinstance(i, str) for i in t))

    def record(self, key: str) -> _Reader:
        return _Reader(self.items.get(key), self.where, f"{self.place}.{key}".lstrip("."))

    def records(self, key: str) -> list[_Reader]:
        place = f"{self.place}.{key}".lstrip(".")
        items = self._get(key, list)
        return [_Reader(item, self.where, f"{place}[{i}]") for i, item in enumerate(items)]

    def _such_that(self, value: _T, key: str, good: Callable[[Any], Any]) -> _T:
        if not good(value):
            raise self.malformed(f"{str(value)[:60]!r} is not allowed", key)
        return value


def _malformed(where: str, what: str) -> UserError:
    return UserError(
        "NN0603", f"the manifest of {where} is malformed: {what}",
        help="compile the model again with this version of nncompiler",
    )  # fmt: skip
