"""Parameters and running statistics as bytes of the state, to be embedded in an artifact."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncompiler.errors import UserError, parameters_missing
from nncompiler.ir.model import HEADER_BYTES, StateLayout
from nncompiler.ir.types import Array


def pack(layout: StateLayout, weights: Mapping[str, Array]) -> bytes:
    """The bytes of the state from its header to `infer_bytes`; `UserError` NN0805 to NN0807."""
    image = bytearray(layout.infer_bytes)
    for name, values in check_weights(layout, weights).items():
        data, offset = values.tobytes(), layout.entry(name).offset
        image[offset : offset + len(data)] = data
    return bytes(image[HEADER_BYTES:])


def check_weights(layout: StateLayout, weights: Mapping[str, Array]) -> dict[str, Array]:
    """`weights` in the types of the state; `UserError` NN0805 to NN0807 if they are not for it."""
    entries = {e.name: e for e in (*layout.of_kind("param"), *layout.of_kind("state"))}
    if not weights.keys() >= entries.keys():
        wanted = {name: e.type.shape for name, e in entries.items()}
        raise parameters_missing(wanted, {name: w.shape for name, w in weights.items()})
    checked: dict[str, Array] = {}
    for name, entry in entries.items():
        found = weights[name]
        kind = entry.type.dtype.numpy.kind
        if found.shape != entry.type.shape or found.dtype.kind != kind:
            shape = ",".join(map(str, found.shape))
            raise UserError(
                "NN0807",
                f"expected parameter '{name}' to be {entry.type}, but found "
                f"{found.dtype}[{shape}]",
            )
        with np.errstate(all="ignore"):
            checked[name] = values = found.astype(entry.type.dtype.numpy)
            lost = np.isinf(values) & np.isfinite(found) if kind == "f" else values != found
        if lost.any():
            raise UserError(
                "NN0807",
                f"expected parameter '{name}' to be {entry.type}, but found {found[lost][0]} in "
                f"it, which {entry.type.dtype} cannot hold",
            )
    for name in weights:
        if name not in entries:
            raise UserError(
                "NN0806",
                f"expected the parameters of the model, but the weights hold '{name}' too",
            )
    return checked
