"""The data of a model, from the files that `nnc train`, `eval` and `predict` take.

- Text (`.txt`), for a model with one input of symbols, whose target, if any, is the symbols one
  place later: windows, one behind the other, as `texts.windows` makes them.
- The file of handwritten digits (`images` u8 [rows, 8, 8] and `labels`), for a model of other
  names for them: an input or target of 64 pixels, and one of a label for each row.
- Arrays `train.NAME`, `validation.NAME`, `test.NAME`, by names of inputs and targets.
- Arrays `NAME`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nncompiler.errors import UserError, nearest
from nncompiler.runtime import texts
from nncompiler.runtime.checks import Path
from nncompiler.runtime.datasets import Array, Arrays, Indices, Splits, load_npz, stratified_split
from nncompiler.runtime.manifest import Argument, describe

_PARTS = ("train", "validation", "test")


def load_splits(
    path: Path, wanted: Sequence[Argument], *, validation: float = 0.1, test: float = 0.2
) -> Splits:
    """The inputs and targets `wanted`, in three parts.

    The digits have a split of their own, and so has a file in parts; a part that is not in it is
    empty. Of other arrays a share `test` of the rows is held out, then a share `validation` of the
    rest, both spread evenly over the file; where the only target is a vector of integers, the
    test part has that share of each class. Of a text, these shares stand at its end.
    """
    if _is_text(path):
        return _text_in_parts(path, wanted, validation, test)
    arrays = load_npz(path)
    if _are_digits(arrays, wanted):
        whole = _digits(path, arrays, wanted)
        parts = stratified_split(arrays["labels"])
        return Splits(*({n: a[rows] for n, a in whole.items()} for rows in parts))
    names = [a.name for a in wanted]
    if _in_parts(arrays):
        _check_parts(path, arrays, names)
        return Splits(*(_part(path, arrays, names, part) for part in _PARTS))
    whole = pick(path, arrays, names)
    rows = _rows(path, whole)
    targets = [whole[a.name] for a in wanted if a.role == "target"]
    groups = [np.arange(rows)]
    if len(targets) == 1 and targets[0].ndim == 1 and targets[0].dtype.kind in "iub":
        groups = _classes(targets[0])
    held_out = np.zeros(rows, dtype=bool)
    for group in groups:
        held_out[group[_share(len(group), test, "test")]] = True
    rest = np.flatnonzero(~held_out)
    checked = _share(len(rest), validation, "validation")
    numbers = (rest[~checked], rest[checked], np.flatnonzero(held_out))
    return Splits(*({n: a[k] for n, a in whole.items()} if len(k) else {} for k in numbers))


def load_whole(path: Path, wanted: Sequence[Argument]) -> Arrays:
    """All rows. Of a file in parts, these follow each other: train, validation, test."""
    if _is_text(path):
        return _windows(texts.read(path), path, wanted, "whole")
    arrays = load_npz(path)
    if _are_digits(arrays, wanted):
        return _digits(path, arrays, wanted)
    names = [a.name for a in wanted]
    if not _in_parts(arrays):
        return pick(path, arrays, names)
    _check_parts(path, arrays, names)
    parts = [_part(path, arrays, names, part) for part in _PARTS]
    return {n: np.concatenate([part[n] for part in parts if part]) for n in names}


# Text -------------------------------------------------------------------------------------------


def _is_text(path: Path) -> bool:
    return os.fspath(path).lower().endswith(".txt")


def _text_in_parts(
    path: Path, wanted: Sequence[Argument], validation: float, test: float
) -> Splits:
    codes = texts.read(path)
    rest = len(codes) - math.floor(len(codes) * _exact(test, "test"))
    train = rest - math.floor(rest * _exact(validation, "validation"))
    parts = zip(_PARTS, np.split(codes, [train, rest]), strict=True)
    return Splits(*(_windows(c, path, wanted, n) if len(c) or n == "train" else {}
                    for n, c in parts))  # fmt: skip


def _windows(codes: texts.Codes, path: Path, wanted: Sequence[Argument], part: str) -> Arrays:
    """The windows of a part by name: what is read, then what follows."""
    wanted = sorted(wanted, key=lambda a: a.role)
    shapes = {a.shape[1:] for a in wanted}
    roles = [a.role for a in wanted]
    if (
        roles not in (["input"], ["input", "target"]) or len(shapes) != 1
        or any(a.dtype.kind != "i" or not a.batched or len(a.shape) != 2 for a in wanted)
    ):
        found = ", ".join(f"{a.role} {a.name} {a}" for a in wanted)
        raise UserError(
            "NN0764", "expected a model that reads text, with one input of integers [batch, time] "
            f"and at most one target like it, but found {found}",
            help="a model like this takes arrays by name, from an .npz file",
        )  # fmt: skip
    (length,) = wanted[0].shape[1:]
    if len(codes) <= length:
        raise UserError(
            "NN0754", f"expected more than {length} characters in the {part} part of '{path}', "
            f"but found {len(codes)}",
            help="take a longer text, larger or empty shares, or a model of shorter windows",
        )  # fmt: skip
    return dict(zip((a.name for a in wanted), texts.windows(codes, length).values(), strict=False))


# The digits -------------------------------------------------------------------------------------


def _are_digits(arrays: Arrays, wanted: Sequence[Argument]) -> bool:
    """Whether a file is that of the digits, and not read by the names in it."""
    images, labels = arrays.get("images"), arrays.get("labels")
    return (
        images is not None and images.dtype == np.uint8 and images.shape[1:] == (8, 8)
        and labels is not None and labels.shape == images.shape[:1]
        and not {a.name for a in wanted} & set(arrays)
    )


def _digits(path: Path, arrays: Arrays, wanted: Sequence[Argument]) -> Arrays:
    """All digits, as `datasets.digits` has them, in the shapes that the model has."""
    images = [a for a in wanted if a.batched and math.prod(a.shape[1:]) == 64]
    labels = [a for a in wanted if a.batched and len(a.shape) == 1]
    rest = [a for a in wanted if a not in images[:1] and a not in labels[:1]]
    if rest:
        shown = describe(rest[0].dtype, rest[0].shape[1:])
        given = ", ".join(f"{a.name}=..." for a in wanted)
        raise UserError(
            "NN0765", f"expected inputs and targets that are in '{path}', one image of 64 pixels "
            f"and one label for each row, but found {rest[0].role} '{rest[0].name}', {shown}",
            help=f"write what the model takes to a file of its own: np.savez(path, {given})",
        )  # fmt: skip
    found = {}
    for a in images:
        pixels = arrays["images"].astype(np.float32) / np.float32(16)
        found[a.name] = pixels.reshape(-1, *a.shape[1:])
    return found | {a.name: arrays["labels"].astype(np.int32) for a in labels}


# Arrays by name ---------------------------------------------------------------------------------


def _in_parts(arrays: Arrays) -> bool:
    return any(name.startswith(f"{part}.") for name in arrays for part in _PARTS)


def _check_parts(path: Path, arrays: Arrays, wanted: Sequence[str]) -> None:
    """`UserError` for a part under another name, which would not be missed: `valid.x`."""
    for name in arrays:
        part, _, rest = name.partition(".")
        meant = next((p for p in _PARTS if p.startswith(part)), None) or nearest(part, _PARTS)
        if rest in wanted and meant and part not in _PARTS:
            raise UserError(
                "NN0760", f"expected parts called {', '.join(_PARTS)} in '{path}', but found "
                f"'{name}'", help=f"rename it to '{meant}.{rest}'")  # fmt: skip


def pick(path: Path, arrays: Arrays, wanted: Sequence[str]) -> Arrays:
    """The arrays called `wanted`; others in the file are left alone."""
    missing = [name for name in wanted if name not in arrays]
    if missing:
        near = nearest(missing[0], [name for name in arrays if name not in wanted])
        raise UserError(
            "NN0760", f"expected arrays {', '.join(wanted)} in '{path}', but found "
            f"{', '.join(arrays) or 'none'}: {', '.join(missing)} missing",
            help=f"rename '{near}' to '{missing[0]}'" if near else None)
    return {name: arrays[name] for name in wanted}


def _part(path: Path, arrays: Arrays, wanted: Sequence[str], part: str) -> Arrays:
    start = f"{part}."
    if part != "train" and not any(name.startswith(start) for name in arrays):
        return {}
    found = pick(path, arrays, [start + name for name in wanted])
    _rows(path, found)
    return {name: found[start + name] for name in wanted}


def _rows(path: Path, arrays: Arrays) -> int:
    """The rows all arrays have."""
    shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in arrays.items())
    counts = {a.shape[:1] for a in arrays.values()}
    if len(counts) != 1 or () in counts:
        raise UserError(
            "NN0761", f"expected arrays with as many rows each in '{path}', but found {shapes}")
    return len(next(iter(arrays.values())))


def _classes(labels: Array) -> list[Indices]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _share(count: int, share: float, what: str) -> npt.NDArray[np.bool_]:
    """Which of `count` rows are held out: for a share of 1/5 the 5th, 10th, 15th ..."""
    exact = _exact(share, what)
    before = np.arange(count, dtype=np.int64) * exact.numerator
    return (before + exact.numerator) // exact.denominator > before // exact.denominator


def _exact(share: float, what: str) -> Fraction:
    if not 0.0 <= share < 1.0:
        raise UserError(
            "NN0762", f"expected the {what} share to be from 0 to below 1, but found {share}")
    return Fraction(share).limit_denominator(10_000)
