"""Data for training: reading `.npz` files, fixed splits, and scaling of inputs and targets.

Everything here is deterministic: a split depends on the order of the file and on nothing else, so
that two runs, or two people, hold out the same rows. Data are `dict`s of arrays keyed by the input
and target names of the model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nncompiler.errors import UserError
from nncompiler.runtime.npz import holds_objects, read_npz, reason

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Indices = npt.NDArray[np.int64]

_DIGITS = Path(__file__).resolve().parents[2] / "models" / "data" / "digits.npz"


def load_npz(path: str | os.PathLike[str]) -> Arrays:
    """Every array of an `.npz` file by name; nothing in the file is ever executed."""
    path = os.fspath(path)
    try:
        return read_npz(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        if holds_objects(error):
            raise UserError(
                "NN0753", f"expected arrays of numbers, but '{path}' holds an array of Python "
                "objects", help="convert it, as in np.savez(path, image=image.astype('float32'))",
            ) from None  # fmt: skip
        why = f" ({found})" if (found := reason(error)) else ""
        raise UserError(
            "NN0752", f"expected an .npz file, but '{path}' cannot be read as one{why}",
            help="write it with np.savez(path, NAME=array, ...)",
        ) from None  # fmt: skip


def unreadable(path: str | os.PathLike[str], error: OSError) -> UserError:
    """The error for a file of data that is not there, or not to be read."""
    if isinstance(error, FileNotFoundError):
        return UserError("NN0751", f"expected a data file, but '{path}' does not exist")
    return UserError("NN0751", f"cannot read '{path}': {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class Splits:
    """The three parts of a data set; read `test` once, after training."""

    train: Arrays
    validation: Arrays
    test: Arrays


def stratified_split(
    labels: Array, every_test: int = 5, every_validation: int = 10
) -> tuple[Indices, Indices, Indices]:
    """Row numbers (train, validation, test), each ascending.

    Test is every `every_test`-th row of each class; validation is every `every_validation`-th of
    the remaining rows. Counting follows the order of the file and takes the last of each run:
    the 5th, 10th, 15th ... for 5.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise UserError(
            "NN0754", f"expected labels of shape [rows], but found {list(labels.shape)}")
    for name, every in (("every_test", every_test), ("every_validation", every_validation)):
        if every < 2:
            raise UserError("NN0755", f"expected {name} of at least 2, but found {every}")
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[every_test - 1 :: every_test]] = True
    rest = np.flatnonzero(~held_out)
    validation = rest[every_validation - 1 :: every_validation]
    return np.setdiff1d(rest, validation), validation, np.flatnonzero(held_out)


def digits(
    path: str | os.PathLike[str] | None = None, keys: tuple[str, str] = ("image", "digit")
) -> Splits:
    """The bundled handwritten digits under the names `keys`: f32 [rows, 64] in [0, 1], i32 [rows].

    1298 rows to train, 144 to validate, 355 to test. Without `path`, the file is found beside the
    package in the repository; see `models/data/README.md`.
    """
    if path is None and not _DIGITS.exists():
        raise UserError(
            "NN0751", "expected the bundled digits beside the package, but they are not installed",
            help="pass the path of models/data/digits.npz in a copy of the repository",
        )
    path = _DIGITS if path is None else path
    arrays = load_npz(path)
    images, labels = arrays.get("images"), arrays.get("labels")
    if (
        images is None or images.ndim != 3 or images.shape[1:] != (8, 8)
        or labels is None or labels.shape != images.shape[:1]
    ):
        found = ", ".join(f"{name} {list(a.shape)}" for name, a in arrays.items()) or "no arrays"
        raise UserError(
            "NN0756", "expected arrays images [rows, 8, 8] and labels [rows] "
            f"in '{path}', but found {found}")
    values = {
        keys[0]: images.reshape(len(images), 64).astype(np.float32) / np.float32(16),
        keys[1]: labels.astype(np.int32),
    }
    parts = stratified_split(labels)
    return Splits(*({key: value[rows] for key, value in values.items()} for rows in parts))


@dataclass(frozen=True, slots=True)
class Scaling:
    """An invertible affine map, (x - shift) / scale, per column or one for all columns.

    Fit it on training rows and apply it to every part; `inverse` brings predictions back to the
    unit of the target.
    """

    shift: Array
    scale: Array

    def apply(self, array: npt.ArrayLike) -> Array:
        """The scaled values: f64 for f64 arrays, else f32."""
        values = np.asarray(array)
        return _as_like((values.astype(np.float64) - self.shift) / self.scale, values)

    def inverse(self, array: npt.ArrayLike) -> Array:
        """The values whose `apply` is `array`: f64 for f64 arrays, else f32."""
        values = np.asarray(array)
        return _as_like(values.astype(np.float64) * self.scale + self.shift, values)


def _as_like(result: Array, given: Array) -> Array:
    return result.astype(np.float64 if given.dtype == np.float64 else np.float32)


def range_scaling(low: npt.ArrayLike, high: npt.ArrayLike) -> Scaling:
    """The map of [low, high] to [0, 1]; both may be given per column."""
    lows, highs = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    if not np.all(np.isfinite(lows) & np.isfinite(highs) & (lows < highs)):
        raise UserError(
            "NN0757", f"expected finite low < high in a range, but found low {lows.tolist()} "
            f"and high {highs.tolist()}")
    return Scaling(lows.copy(), highs - lows)


def fit_range(array: npt.ArrayLike) -> Scaling:
    """The map of each column's extremes to 0 and 1; a constant column becomes 0."""
    rows = _finite_rows(array)
    low = rows.min(axis=0)
    return Scaling(low, _nonzero(rows.max(axis=0) - low))


def fit_standard(array: npt.ArrayLike) -> Scaling:
    """The map of each column to mean 0 and standard deviation 1; a constant column becomes 0."""
    rows = _finite_rows(array)
    # A constant column's computed mean may differ from its value by rounding; its spread decides.
    constant = rows.min(axis=0) == rows.max(axis=0)
    mean = np.where(constant, rows[0], rows.mean(axis=0))
    return Scaling(mean, _nonzero(np.where(constant, 0.0, rows.std(axis=0))))


def normalise(array: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> Array:
    """`array` with [low, high] mapped to [0, 1]; `range_scaling(low, high).inverse` undoes it."""
    return range_scaling(low, high).apply(array)


def _finite_rows(array: npt.ArrayLike) -> Array:
    rows = np.asarray(array, dtype=np.float64)
    if rows.ndim == 0 or len(rows) == 0:
        raise UserError("NN0754", f"expected at least one row, but found shape {list(rows.shape)}")
    if not np.all(np.isfinite(rows)):
        first = [int(i) for i in np.argwhere(~np.isfinite(rows))[0]]
        raise UserError(
            "NN0758", f"expected finite values, but found {rows[tuple(first)]} at index {first}")
    return rows


def _nonzero(scale: Array) -> Array:
    return np.where(scale == 0.0, 1.0, scale)


def one_hot(labels: npt.ArrayLike, classes: int) -> npt.NDArray[np.float32]:
    """f32 [..., classes] with 1 at each label and 0 elsewhere."""
    indices = np.asarray(labels)
    if not np.issubdtype(indices.dtype, np.integer):
        raise UserError("NN0759", f"expected integer labels, but found {indices.dtype}")
    outside = indices[(indices < 0) | (indices >= classes)]
    if outside.size:
        raise UserError(
            "NN0759", f"expected labels from 0 to {classes - 1}, but found {outside.flat[0]}")
    encoded = np.zeros((*indices.shape, classes), dtype=np.float32)
    np.put_along_axis(encoded, indices[..., None], 1, axis=-1)
    return encoded
