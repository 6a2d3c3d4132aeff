"""Checkpoints: all that decides how training goes on, in one file written atomically.

The file is an `.npz` (whatever its name): each tensor of the state under its kind and name
(`param/h1.W`, `slot/opt.m.h1.W`, `header/step`), what callbacks remember (`callback/0/best`), and
`training`, a JSON text with the place in training. Going on from it gives the same bits as never
having stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompiler.errors import UserError
from nncompiler.runtime.checks import Array, Path
from nncompiler.runtime.files import write_atomically
from nncompiler.runtime.manifest import StateEntry, describe
from nncompiler.runtime.npz import TRAINING, read_npz, reason, write_npz
from nncompiler.runtime.record import Record
from nncompiler.runtime.weights import unreadable

VERSION = 1


def write(
    path: Path, name: str, state: tuple[StateEntry, ...], views: Mapping[str, Array],
    record: Record | None,
) -> None:  # fmt: skip
    """Write the checkpoint of model `name`; `record` is None before any training."""
    arrays = {f"{e.kind}/{e.name}": views[e.name] for e in state}
    text: dict[str, Any] = {"version": VERSION, "model": name, "record": None}
    if record is not None:
        text["record"] = record.to_json()
        for number, memory in enumerate(record.memories):
            arrays |= {f"callback/{number}/{k}": np.asarray(v) for k, v in memory.items()}
    arrays[TRAINING] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    write_atomically(path, lambda stream: write_npz(stream, arrays))


def read(
    path: Path, name: str, state: tuple[StateEntry, ...]
) -> tuple[dict[str, Array], Record | None]:
    """The tensors of the state by name, and the place in training; all fit the model."""
    try:
        arrays = read_npz(path)
    except OSError as error:
        raise unreadable(path, error, ".npz") from None
    except ValueError as error:
        raise _not_one(path, reason(error)) from None
    text = _text(path, arrays)
    if text.get("model") != name:
        raise UserError(
            "NN0811", f"expected a checkpoint of model '{name}', but '{path}' is of "
            f"'{str(text.get('model'))[:80]}'")  # fmt: skip
    values: dict[str, Array] = {}
    for entry in state:
        found = arrays.get(f"{entry.kind}/{entry.name}")
        if found is None or found.shape != entry.shape or found.dtype != entry.dtype:
            held = "nothing" if found is None else describe(found.dtype, found.shape)
            raise UserError(
                "NN0811", f"expected '{entry.name}' to be {describe(entry.dtype, entry.shape)}, "
                f"but the checkpoint '{path}' holds {held}",
                help="the model or its optimizer has changed since; start anew, or load weights",
            )  # fmt: skip
        values[entry.name] = found
    tensors = [key for key in arrays if key.split("/")[0] in ("param", "state", "slot", "header")]
    if len(tensors) != len(state):
        raise UserError(
            "NN0811", f"expected {len(state)} tensors in the state, but the checkpoint '{path}' "
            f"holds {len(tensors)}",
            help="the model or its optimizer has changed since; start anew, or load weights",
        )  # fmt: skip
    try:
        record = None if text["record"] is None else Record.from_json(text["record"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _not_one(path) from None
    if record is not None:
        record.memories = [_memory(arrays, i) for i in range(len(record.callbacks))]
    return values, record


def _text(path: Path, arrays: Mapping[str, Array]) -> dict[str, Any]:
    text = arrays.get(TRAINING)
    if text is None or text.dtype != np.uint8:
        raise _not_one(path)
    try:
        record = json.loads(text.tobytes())
    except (ValueError, RecursionError):
        raise _not_one(path) from None
    if not isinstance(record, dict) or "record" not in record:
        raise _not_one(path)
    if record.get("version") != VERSION:
        raise UserError(
            "NN0810", f"expected a checkpoint of version {VERSION}, but '{path}' has version "
            f"{str(record.get('version'))[:20]}")  # fmt: skip
    return record


def _memory(arrays: Mapping[str, Array], number: int) -> dict[str, Array]:
    start = f"callback/{number}/"
    return {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}


def _not_one(path: Path, why: str = "") -> UserError:
    return UserError(
        "NN0810", f"expected a checkpoint, but '{path}' is not one" + (f": {why}" if why else ""),
        help="weights without the place in training are loaded with load_weights, or by "
        "`nnc train --weights-in`",
    )  # fmt: skip


def not_begun(path: Path) -> UserError:
    """The error for going on from a checkpoint written before any training."""
    return UserError(
        "NN0812", f"expected a training to go on with, but '{path}' was written before any",
        help="load it with load_checkpoint and start",
    )  # fmt: skip
