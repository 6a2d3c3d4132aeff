"""The manifest of an artifact: what its functions take, how its state is laid out, what it needs.

It is JSON in the ELF section `.nnmanifest`. `parse` trusts nothing in it: whatever the bytes are,
the outcome is a `Manifest` whose sizes agree with each other, or a `UserError`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from nncompiler.errors import UserError
from nncompiler.runtime.reader import Reader, malformed

ABI = 2
DTYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype("float32"), "f64": np.dtype("float64"), "i32": np.dtype("int32"),
    "i64": np.dtype("int64"), "u8": np.dtype("uint8"), "u32": np.dtype("uint32"),
    "u64": np.dtype("uint64"), "bool": np.dtype("bool"),
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
HEADER_BYTES = 64
HEADER = ("step", "draws", "seed", "rate")
#: Functions of the pool of threads, in artifacts with parallel functions.
POOL = ("pool_bytes", "pool", "worker", "pool_stop")
_KINDS = ("header", "param", "state", "slot", "constant")
_ROLES = ("input", "target", "output")


class Limit(NamedTuple):
    """Integers are below `below`: those of a part (positions along each dimension), or all."""

    below: int
    part: tuple[range, ...] = ()


class Argument(NamedTuple):
    """An array an entry point reads or writes. `limits` are of integers that index something."""

    name: str
    role: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    batched: bool
    limits: tuple[Limit, ...] = ()

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Entry:
    """An exported function over the state; `rows` is the batch size it was compiled for.

    `parallel` is the function that takes a pool of threads; empty where it would not help. Of the
    arguments, in the order of the call, `given` are inputs and targets, `results` the outputs.
    """

    symbol: str
    function: str
    suffix: str
    rows: int
    arena_bytes: int
    arguments: tuple[Argument, ...]
    parallel: str = ""
    given: tuple[Argument, ...] = field(init=False, repr=False, compare=False)
    results: tuple[Argument, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # kept, for every call asks for them
        given = tuple(a for a in self.arguments if a.role != "output")
        object.__setattr__(self, "given", given)
        results = tuple(a for a in self.arguments if a.role == "output")
        object.__setattr__(self, "results", results)


class StateEntry(NamedTuple):
    """A tensor in the state; `kind` is header, param, state (of the model) or slot."""

    name: str
    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Manifest(NamedTuple):
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
    parallel_fit: dict[int, str]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    outputs: tuple[str, ...]
    losses: tuple[str, ...]
    metrics: tuple[str, ...]
    train: dict[str, Any]
    record: dict[str, Any]
    initialises: bool = True
    #: Whether the parameters became constants when the model was compiled.
    frozen: bool = False

    @property
    def data(self) -> tuple[Argument, ...]:
        """Every input and target that some function reads."""
        given = {a.name: a for e in self.entries for a in e.given}
        return tuple(given[name] for name in (*self.inputs, *self.targets) if name in given)

    @property
    def symbols(self) -> list[str]:
        """Every function that the runtime may call."""
        parallel = [e.parallel for e in self.entries if e.parallel]
        parallel += self.parallel_fit.values()
        parts = ["init", "load", *(POOL if parallel else ())]
        plain = [*self.fit.values(), *(e.symbol for e in self.entries)]
        return [*map(self.symbol, parts), *plain, *parallel]

    def symbol(self, part: str) -> str:
        """The name of a function that all artifacts have, such as `init`."""
        return f"{self.name}_{part}"

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
        raise malformed(where, "it is not JSON") from None
    reader = Reader(record, where, "")
    abi = reader.size("abi")
    if abi != ABI:
        version = record.get("nncompiler", "an unknown version")
        raise UserError(
            "NN0604",
            f"expected an artifact with ABI {ABI}, but {where} has {abi} (nncompiler {version})",
            help="compile the model again with this version of nncompiler",
        )
    manifest = _manifest(reader)
    _agree_on_state(manifest, reader)
    _agree_on_entries(manifest, reader)
    return manifest


def _manifest(reader: Reader) -> Manifest:
    state, target = reader.record("state"), reader.record("target")
    entries = _batch_outputs([_entry(r) for r in reader.records("entries")])
    suffixes = {e.suffix: e.rows for e in entries if e.function == "train_step"}
    fit = reader.record("fit")
    shared = Reader(reader.optional("parallel_fit", dict, {}), reader.where, "parallel_fit")
    return Manifest(
        name=reader.identifier("name"), dtype=_dtype(reader), cpu=target.text("cpu"),
        features=target.texts("features"),
        state=tuple(_state_entry(r) for r in state.records("entries")),
        state_bytes=state.size("bytes"), infer_bytes=state.size("infer_bytes"),
        arena_bytes=max([reader.size("arena_bytes"), *(e.arena_bytes for e in entries)]),
        entries=entries,
        fit={suffixes[s]: fit.identifier(s) for s in fit.items if s in suffixes},
        parallel_fit={
            suffixes[s]: shared.identifier(s) for s in shared.items if s in suffixes
        },
        inputs=reader.texts("inputs"), targets=reader.texts("targets"),
        outputs=reader.texts("outputs"), losses=reader.texts("losses"),
        metrics=reader.texts("metrics"), train=reader.optional("train", dict, {}),
        record=reader.items, initialises=reader.optional("initialises", bool, True),
        frozen=state.optional("frozen", bool, False),
    )  # fmt: skip


def _entry(reader: Reader) -> Entry:
    return Entry(
        reader.identifier("symbol"), reader.text("function"), reader.optional("suffix", str, ""),
        reader.size("rows"), reader.size("arena_bytes"),
        tuple(_argument(r) for r in reader.records("arguments")),
        reader.identifier("parallel") if reader.items.get("parallel") else "",
    )  # fmt: skip


def _batch_outputs(entries: list[Entry]) -> tuple[Entry, ...]:
    """The entries, with those outputs of `infer` batched that have a row for each row.

    The manifest tells the batch axis of what is declared, and outputs are not. In every binding
    the first extent must be that of the batch.
    """
    fixed = {
        a.name for e in entries if e.function == "infer"
        for a in e.results if not e.rows or a.shape[:1] != (e.rows,)
    }  # fmt: skip
    return tuple(
        replace(e, arguments=tuple(
            a._replace(batched=True) if a.role == "output" and a.name not in fixed else a
            for a in e.arguments)) if e.function == "infer" else e
        for e in entries
    )  # fmt: skip


def _dtype(reader: Reader) -> np.dtype[Any]:
    return DTYPES[reader.one_of("dtype", tuple(DTYPES))]


def _argument(reader: Reader) -> Argument:
    shape = reader.shape("shape")
    limits = reader.records("limits") if "limits" in reader.items else ()
    argument = Argument(
        reader.text("name"), reader.one_of("role", _ROLES), _dtype(reader), shape,
        reader.optional("batched", bool, False), tuple(_limit(r, shape) for r in limits),
    )  # fmt: skip
    if argument.batched and not argument.shape:
        raise reader.malformed("a scalar has no batch axis")
    return argument


def _limit(reader: Reader, shape: tuple[int, ...]) -> Limit:
    rows = reader.records("part")
    steps = [(r.size("first"), r.size("behind"), r.size("step")) for r in rows]
    part = tuple(range(*s) for s in steps if s[2])
    within = all(r and r[-1] < n for r, n in zip(part, shape, strict=False))
    if rows and not (len(part) == len(shape) and within):
        raise reader.malformed("there is no such part", "part")
    return Limit(reader.size("below"), part)


def _state_entry(reader: Reader) -> StateEntry:
    return StateEntry(
        reader.text("name"), reader.one_of("kind", _KINDS), _dtype(reader),
        reader.shape("shape"), reader.size("offset"),
    )  # fmt: skip


def _agree_on_state(manifest: Manifest, reader: Reader) -> None:
    """Raise unless the state's tensors lie apart within it, with the header that all have."""
    names = [e.name for e in manifest.state]
    if len(set(names)) != len(names):
        raise reader.malformed("two tensors of the state have one name")
    end = 0
    if any((e.offset < HEADER_BYTES) != (e.kind == "header") for e in manifest.state):
        raise reader.malformed("the header of the state and its tensors are mixed")
    for tensor in sorted(manifest.state, key=lambda e: e.offset):
        if tensor.offset < end or tensor.offset % tensor.dtype.itemsize:
            raise reader.malformed(f"'{tensor.name}' overlaps another tensor of the state")
        end = tensor.offset + tensor.bytes
        if end > (manifest.infer_bytes if tensor.kind == "param" else manifest.state_bytes):
            raise reader.malformed(f"'{tensor.name}' lies outside of the state")
    if not HEADER_BYTES <= manifest.infer_bytes <= manifest.state_bytes:
        raise reader.malformed("the part of the state for inference is not within the state")
    header = {e.name: (e.kind, e.shape) for e in manifest.state}
    for name in HEADER:
        if header.get(name) != ("header", (2,) if name == "seed" else ()):
            raise reader.malformed(f"the header of the state has no '{name}'")

def _agree_on_entries(manifest: Manifest, reader: Reader) -> None:
    """Raise unless every entry point is usable: the names and the batch axes of its arguments."""
    for entry in manifest.entries:
        names = [a.name for a in entry.arguments]
        if len(set(names)) != len(names):
            raise reader.malformed(f"two arguments of '{entry.symbol}' have one name")
        if any(a.batched and a.shape[0] != entry.rows for a in entry.arguments):
            raise reader.malformed(f"the batch of '{entry.symbol}' is not {entry.rows} rows")
