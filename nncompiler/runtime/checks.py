"""Checks of what users pass in: names, shapes, element types, sizes.

Conversions that lose nothing are made (integers that fit, f64 to f32 by rounding, other memory
orders); all others are refused. Each check returns the array or value that native code may read.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from nncompiler.errors import UserError, nearest, parameters_missing
from nncompiler.runtime.manifest import NAMES, Argument, StateEntry, describe

if TYPE_CHECKING:
    import numpy.typing as npt

Array: TypeAlias = "npt.NDArray[Any]"
Data: TypeAlias = "Mapping[str, npt.ArrayLike]"
Path: TypeAlias = "str | os.PathLike[str]"


def names(
    given: Iterable[str], wanted: Collection[str], known: Collection[str], what: str = "arrays"
) -> None:
    """Raise unless every name of `wanted` is given, and no name that is not in `known`."""
    found = list(given)
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in known]
    if not missing and not extra:
        return
    listed = ", ".join(map(str, found)) or "none"
    if missing:
        near = nearest(missing[0], [n for n in extra if isinstance(n, str)])
        raise UserError(
            "NN0701", f"expected {what} {', '.join(map(repr, wanted))}, but found {listed}: "
            f"{', '.join(map(repr, missing))} missing",
            help=f"rename '{near}' to '{missing[0]}'" if near else None,
        )  # fmt: skip
    near = nearest(str(extra[0]), known)
    raise UserError(
        "NN0702", f"expected {what} {', '.join(map(repr, known)) or 'none'}, but found "
        f"{', '.join(map(repr, extra))} too",
        help=f"did you mean '{near}'?" if near else None,
    )  # fmt: skip


def array(value: npt.ArrayLike, argument: Argument, rows: int | None = None) -> Array:
    """`value` as a contiguous, aligned array of the argument's type; any rows if None."""
    label = f"{argument.role} '{argument.name}'"
    found = _as_array(value, label)
    shape = argument.shape
    if argument.batched:
        shape = ((found.shape[0] if found.ndim else 0) if rows is None else rows, *shape[1:])
    if found.shape != shape:
        raise _wrong_shape(found, argument, rows)
    converted = convert(found, argument.dtype, label)
    return np.require(converted, requirements=["C", "A"]).reshape(shape)


def rows(value: npt.ArrayLike, argument: Argument) -> int:
    """The number of rows of `value`, given for a batched argument."""
    found = _as_array(value, f"{argument.role} '{argument.name}'")
    if found.ndim != len(argument.shape):
        raise _wrong_shape(found, argument, None)
    return len(found)


def convert(found: Array, dtype: np.dtype[Any], label: str) -> Array:
    """`found` with element type `dtype`; a `UserError` where that would lose something."""
    if found.dtype == dtype:
        return found.astype(dtype, copy=False)
    wanted = NAMES.get(dtype, dtype)
    if found.dtype.kind not in "biuf" or (found.dtype.kind == "f" and dtype.kind != "f"):
        raise UserError(
            "NN0704", f"expected {label} to be {wanted}, but found {found.dtype}",
            help=f"convert it, as in array.astype('{dtype}'), if that is what you mean"
            if found.dtype.kind == "f" else None,
        )  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        result = found.astype(dtype)
        if found.dtype.kind == "f":
            lost = np.isinf(result) & np.isfinite(found)
        else:
            # Back to the element type it came from: exact for integers both ways.
            lost = result.astype(found.dtype) != found
            if dtype.kind in "iu":
                lost |= (result < 0) != (found < 0)
    if lost.any():
        first = tuple(int(i) for i in np.argwhere(lost)[0])
        raise UserError(
            "NN0704", f"expected {label} to be {wanted}, but found {found.dtype} with "
            f"{found[first]} at index {list(first)}, which {wanted} cannot hold")  # fmt: skip
    return result


def _as_array(value: npt.ArrayLike, label: str) -> Array:
    # `np.ma` would import it, and takes longer than loading a model does.
    if (masked := sys.modules.get("numpy.ma")) and isinstance(value, masked.MaskedArray):
        raise UserError("NN0704", f"expected {label} to be an array, but found a masked array",
                        help="fill the masked values, as in array.filled(0)")  # fmt: skip
    try:
        found = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise UserError(
            "NN0704", f"expected {label} to be an array of numbers, but found "
            f"{type(value).__name__}: {error}") from None  # fmt: skip
    if found.size == 0 and found.dtype == np.float64 and not isinstance(value, np.ndarray):
        raise UserError("NN0707", f"expected {label} to hold rows, but it is empty")
    return found


def _wrong_shape(found: Array, argument: Argument, rows: int | None) -> UserError:
    lead = ("batch" if rows is None else str(rows),) if argument.batched else ()
    shape = (*lead, *map(str, argument.shape[len(lead) :]))
    wanted = f"{NAMES[argument.dtype]}[{','.join(shape)}]"
    return UserError(
        "NN0703", f"expected {argument.role} '{argument.name}' to be {wanted}, but found "
        f"{describe(found.dtype, found.shape)}",
        help=_to_fit(found, argument.shape[1:], argument.dtype) if argument.batched else None,
    )  # fmt: skip


def _to_fit(found: Array, row: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """What makes `found` rows of shape `row`, where one can tell."""
    if found.shape == row:
        return "for a single row, add the axis of the batch: array[None]"
    if order := _reordered(found.shape[1:], row):
        axes = ", ".join(str(1 + axis) for axis in order)
        return f"if its axes are in another order: array.transpose(0, {axes})"
    if found.ndim and math.prod(found.shape[1:]) == math.prod(row):
        axes = ", ".join(map(str, (-1, *row)))
        return f"for the same elements along other axes: array.reshape({axes})"
    if found.ndim > 1 and found.shape[1:-1] == row and dtype.kind == "i":
        return "for the classes of one-hot rows: array.argmax(-1)"
    return None


def _reordered(found: tuple[int, ...], wanted: tuple[int, ...]) -> list[int] | None:
    """The order of axes that makes a shape another one, as images with the channels last; equal
    extents stay in their order."""
    if sorted(found) != sorted(wanted) or found == wanted:
        return None
    order: list[int] = []
    for extent in wanted:
        order.append(next(i for i, n in enumerate(found) if n == extent and i not in order))
    return order


def dataset(data: Data, arguments: Iterable[Argument], known: Collection[str]) -> dict[str, Array]:
    """The arrays of a whole data set, ready for native code; see `row_count`."""
    arguments = tuple(arguments)
    keyed(data, arguments)
    names(data, [a.name for a in arguments], known)
    return {a.name: array(data[a.name], a) for a in arguments}


def keyed(data: object, arguments: Iterable[Argument]) -> None:
    """Raise unless arrays come by name."""
    if not isinstance(data, Mapping):
        raise UserError(
            "NN0701", f"expected a dict of arrays keyed by {_listed(arguments)}, "
            f"but found {type(data).__name__}")  # fmt: skip


def _listed(arguments: Iterable[Argument]) -> str:
    return ", ".join(repr(a.name) for a in arguments)


def row_count(arrays: Mapping[str, Array], arguments: Iterable[Argument]) -> int:
    """The number of rows all batched arrays have in common; at least 1."""
    batched = [a for a in arguments if a.batched]
    if not batched:
        raise UserError(
            "NN0717", "expected a model whose inputs have a batch axis, but this one has none",
            help="declare it as in `input x : f32[batch, 2]`",
        )  # fmt: skip
    counts = {a.name: len(arrays[a.name]) for a in batched}
    rows = counts[batched[0].name]
    if any(n != rows for n in counts.values()):
        listed = ", ".join(f"'{name}' {n}" for name, n in counts.items())
        raise UserError("NN0708", f"expected as many rows in all arrays, but found {listed}")
    if rows == 0:
        raise UserError("NN0707", f"expected at least one row, but '{batched[0].name}' has none")
    return rows


def finite(arrays: Mapping[str, Array]) -> None:
    """Raise at the first NaN or infinity."""
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not (good := np.isfinite(values)).all():
            first = tuple(int(i) for i in np.argwhere(~good)[0])
            raise UserError(
                "NN0706", f"expected finite values, but found {values[first]} in '{name}' "
                f"at index {list(first)}")  # fmt: skip


def indices(arrays: Mapping[str, Array], arguments: Iterable[Argument]) -> None:
    """Raise at the first integer outside of the extent it indexes."""
    for argument in arguments:
        if (values := arrays.get(argument.name)) is None:
            continue
        for below, part in argument.limits:
            if argument.batched and part:
                if len(part[0]) < argument.shape[0]:
                    continue  # rows of each batch, which native code tells apart
                part = (range(len(values)), *part[1:])
            taken = values[tuple(slice(r.start, r.stop, r.step) for r in part)]
            if not taken.size or (taken.min() >= 0 and taken.max() < below):
                continue
            first = tuple(int(i) for i in np.argwhere((taken < 0) | (taken >= below))[0])
            index = [r[i] for r, i in zip(part, first, strict=True)] if part else list(first)
            place = f"index {index}" if part or not argument.batched else f"row {index[0]}"
            raise UserError(
                "NN0705", f"expected '{argument.name}' from 0 to {below - 1}, "
                f"but found {taken[first]} in {place}")  # fmt: skip


def out_of_range(arrays: Mapping[str, Array], arguments: Iterable[Argument]) -> UserError:
    """The error for an index that only native code knows the extent of."""
    try:
        indices(arrays, arguments)
    except UserError as error:
        return error
    ranges = ", ".join(
        f"'{name}' from {values.min()} to {values.max()}"
        for name, values in arrays.items() if values.dtype.kind in "iu" and values.size
    )  # fmt: skip
    return UserError("NN0705", f"an index is outside of the axis it selects from; found {ranges}")


def whole(value: object, name: str, least: int, most: int | None = None) -> int:
    """`value` as a Python int from `least` to `most`."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    number = int(value) if good else 0  # type: ignore[call-overload]
    if not good or number < least or (most is not None and number > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UserError("NN0709", f"expected {name} to be an integer {span}, but found {value!r}")
    return int(number)


def at_least(value: object, name: str, least: float) -> float:
    """`value` as a finite float no less than `least`."""
    good = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    number = float(value) if good else np.nan  # type: ignore[arg-type]
    if not (least <= number < np.inf):
        raise UserError(
            "NN0709", f"expected {name} to be a number of at least {least}, but found {value!r}")
    return number


def parameter_names(arrays: Mapping[str, Any], entries: Mapping[str, StateEntry]) -> None:
    """Raise unless `arrays` has just the parameters of the model."""
    extra = [name for name in arrays if name not in entries]
    if not arrays.keys() >= entries.keys():
        shapes = {str(name): _shape(values) for name, values in arrays.items()}
        raise parameters_missing({name: e.shape for name, e in entries.items()}, shapes)
    if extra:
        raise UserError(
            "NN0806", f"expected the parameters {', '.join(list(entries)[:8])}"
            f"{' ...' if len(entries) > 8 else ''}, but found {', '.join(extra[:8])} too",
            help="load_state_dict(..., strict=False) in Python leaves them out; "
            "nnc takes files of the model's parameters alone",
        )  # fmt: skip


def _shape(value: Any) -> tuple[int, ...]:
    try:
        return np.shape(value)
    except ValueError:  # lists of different lengths
        return ()


def parameter(value: npt.ArrayLike, entry: StateEntry) -> Array:
    """`value` as the values of a parameter."""
    found = np.asarray(value)
    if found.shape != entry.shape:
        raise UserError(
            "NN0807",
            f"expected parameter '{entry.name}' to be {describe(entry.dtype, entry.shape)}, "
            f"but found {describe(found.dtype, found.shape)}",
            help="the weights are of another model, or of other sizes"
            if not _reordered(found.shape, entry.shape) else
            "are they of a library that has their axes in another order? `dense` has [in, out], "
            "convolutions [out, in, kernel...]",
        )  # fmt: skip
    return convert(found, entry.dtype, f"parameter '{entry.name}'")
