"""Prediction and evaluation over any number of rows, with the batch sizes that are compiled.

Losses and metrics of a batch are taken to be means over its rows: those of a data set are the
means of the batches' values, weighted by their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nncompiler.errors import UserError
from nncompiler.runtime import checks
from nncompiler.runtime.bindings import slices
from nncompiler.runtime.call import FreshCall, check_code, pointer
from nncompiler.runtime.checks import Array, Data

if TYPE_CHECKING:
    import numpy.typing as npt

    from nncompiler.runtime.model import Model


class Predictor:
    """`Model.predict`; numbers of rows that one call covers are called without further ado from
    the second time on."""

    __slots__ = ("_batched", "_calls", "_model", "_names")

    def __init__(self, model: Model) -> None:
        self._model = model
        given = model.bindings.any("infer").given
        self._names = tuple(a.name for a in given)
        self._batched = next((a.name for a in given if a.batched), None)
        self._calls: dict[int, FreshCall] = {}

    def __call__(self, inputs: Data | npt.ArrayLike) -> Any:
        if type(inputs) is np.ndarray and len(self._names) == 1:
            inputs = {self._names[0]: inputs}
        outputs = None
        if type(inputs) is dict:
            try:
                call = self._calls[inputs[self._batched].shape[0]]
            except (KeyError, AttributeError, IndexError, TypeError):
                call = None  # not called before, or not an array of rows
            outputs = call(inputs) if call else None
        if outputs is None:
            outputs = self._checked(inputs)
        return outputs if len(outputs) != 1 else next(iter(outputs.values()))

    def _checked(self, inputs: Data | npt.ArrayLike) -> dict[str, Array]:
        """The outputs for what may be anything. Targets among the inputs are ignored."""
        model, entry = self._model, self._model.bindings.any("infer")
        if not isinstance(inputs, Mapping):
            if len(self._names) != 1:
                listed = ", ".join(map(repr, self._names))
                raise UserError("NN0712", f"expected a dict of arrays keyed by {listed}, but "
                                f"found {type(inputs).__name__}")  # fmt: skip
            inputs = {self._names[0]: inputs}
        known = (*model.manifest.inputs, *model.manifest.targets)
        arrays = checks.dataset(inputs, entry.given, known)
        outputs = run(model, "infer", arrays)
        if self._batched is not None:
            rows = len(arrays[self._batched])
            pieces = model.bindings.cover("infer", rows)
            if len(pieces) == 1:
                self._calls[rows] = FreshCall(*pieces[0].binding, model.memory("infer"))
        return outputs


def evaluate(model: Model, data: Data, check_nan: bool = False) -> dict[str, float]:
    """See `Model.evaluate`."""
    return evaluate_arrays(model, prepare(model, data, check_nan))


def prepare(model: Model, data: Data, check_nan: bool = False) -> dict[str, Array]:
    """The arrays of a data set that `loss` takes, checked once."""
    entry = model.bindings.any("loss")
    known = (*model.manifest.inputs, *model.manifest.targets)
    arrays = checks.dataset(data, entry.given, known)
    checks.indices(arrays, entry.given)
    if check_nan:
        checks.finite(arrays)
    return arrays


def evaluate_arrays(model: Model, arrays: Mapping[str, Array]) -> dict[str, float]:
    """Losses and metrics of arrays that have been checked."""
    return {name: float(value) for name, value in run(model, "loss", arrays).items()}


def run(model: Model, function: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The results of a function over all rows: rows in place, scalars as means over the rows."""
    entry = model.bindings.any(function)
    if not any(a.batched for a in entry.given):
        return {n: a.copy() for n, a in model.call(function, arrays).results.items()}
    rows = checks.row_count(arrays, entry.given)
    pieces = model.bindings.cover(function, rows)
    results: dict[str, Array] = {}
    for argument in entry.results:
        if argument.batched:
            results[argument.name] = np.empty((rows, *argument.shape[1:]), argument.dtype)
        elif argument.shape and len(pieces) > 1:
            raise UserError(
                "NN0716", f"the output '{argument.name}' has no batch axis, so it cannot be made "
                f"up from several batches ({', '.join(str(p.stop - p.start) for p in pieces)})",
                help=f"compile the model with `--batch {rows}`",
            )  # fmt: skip
        else:
            dtype = argument.dtype if len(pieces) == 1 else np.dtype(np.float64)
            results[argument.name] = np.zeros(argument.shape, dtype)
    memory = model.memory(function)
    for piece in pieces:
        given = slices(arrays, piece.binding.entry, piece)
        outputs = [
            results[a.name][piece.start : piece.stop] if a.batched else np.empty(a.shape, a.dtype)
            for a in piece.binding.entry.results
        ]  # fmt: skip
        code = piece.binding.native(*memory, *map(pointer, given), *map(pointer, outputs))
        check_code(code, piece.binding.entry.symbol, arrays, entry.given)
        for argument, part in zip(piece.binding.entry.results, outputs, strict=True):
            if not argument.batched:
                share = (piece.stop - piece.start) / rows
                whole = results[argument.name]
                whole[...] = part if len(pieces) == 1 else whole + part * share
    return results
