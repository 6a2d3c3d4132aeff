"""Text as numbers: the 96 symbols that text models know, and the bundled texts.

Symbols 0 to 94 are the printable characters of ASCII in their order, from the space on; symbol 95
is the end of a line. Letters with marks are read as the letters alone.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nncompiler.errors import UserError
from nncompiler.runtime.datasets import Splits, stratified_split, unreadable

Codes = npt.NDArray[np.int32]

SYMBOLS = 96
#: What the bundled surnames are called in; the classes of `names`, in this order.
LANGUAGES = (
    "Arabic", "Chinese", "Czech", "Dutch", "English", "French", "German", "Greek", "Irish",
    "Italian", "Japanese", "Korean", "Polish", "Portuguese", "Russian", "Scottish", "Spanish",
    "Vietnamese",
)  # fmt: skip
#: Letters that no decomposition takes apart.
_WHOLE = str.maketrans({"ß": "ss", "ł": "l", "Ł": "L"})
_NEWLINE = SYMBOLS - 1
_DATA = Path(__file__).resolve().parents[2] / "models" / "data"


def encode(text: str) -> Codes:
    """The symbols of a text."""
    apart = unicodedata.normalize("NFKD", text.translate(_WHOLE))
    plain = "".join(c for c in apart if not unicodedata.combining(c))
    points = np.frombuffer(plain.encode("utf-32-le"), np.uint32).astype(np.int64)
    codes = np.where(points == ord("\n"), _NEWLINE, points - ord(" "))
    wrong = (codes < 0) | (codes > _NEWLINE) | (points == ord(" ") + _NEWLINE)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise UserError(
            "NN0763", "expected Latin letters, ASCII signs or ends of lines, but found "
            f"{plain[first]!r} in line {plain.count(chr(10), 0, first) + 1}",
            help="leave the character out, or write it in Latin letters",
        )  # fmt: skip
    return codes.astype(np.int32)


def decode(codes: npt.ArrayLike) -> str:
    """The text of symbols."""
    return "".join("\n" if c == _NEWLINE else chr(int(c) + ord(" ")) for c in np.ravel(codes))


def read(path: str | os.PathLike[str]) -> Codes:
    """The symbols of a file of text, in UTF-8."""
    try:
        return encode(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        raise UserError("NN0766", f"expected text in UTF-8, but byte {error.start} of '{path}' is "
                        "no part of one",
                        help=f"convert it: iconv -f latin1 -t utf-8 {path}") from None  # fmt: skip


def windows(codes: Codes, length: int, stride: int | None = None) -> dict[str, Codes]:
    """Windows of `length` symbols as `text`, and the same one symbol later as `following`; one
    behind the other, or begun at every `stride`-th symbol."""
    if len(codes) <= length:
        raise UserError(
            "NN0754", f"expected more than {length} symbols for a window, but found {len(codes)}")
    rows = np.lib.stride_tricks.sliding_window_view(codes, length + 1)[:: stride or length]
    return {"text": rows[:, :-1].copy(), "following": rows[:, 1:].copy()}


def shakespeare(length: int = 64, path: str | os.PathLike[str] | None = None) -> Splits:
    """The bundled plays in windows: eight tenths to train, then one to validate, one to test."""
    codes = encode(_text(path, "shakespeare.txt"))
    low, high = len(codes) * 8 // 10, len(codes) * 9 // 10
    parts = codes[:low], codes[low:high], codes[high:]
    return Splits(*(windows(part, length) for part in parts))


def names(longest: int = 20, path: str | os.PathLike[str] | None = None) -> Splits:
    """The bundled surnames as `letters`, filled up to `longest` with spaces, their `length`, and
    their `language`, a position in `LANGUAGES`. Longer ones are cut."""
    rows = list(csv.reader(_text(path, "names.csv").splitlines()))[1:]
    coded = [encode(name)[:longest] for name, _ in rows]
    letters = np.zeros((len(rows), longest), np.int32)
    for row, codes in zip(letters, coded, strict=True):
        row[: len(codes)] = codes
    values: dict[str, npt.NDArray[Any]] = {
        "letters": letters,
        "length": np.array([len(codes) for codes in coded], np.int32),
        "language": np.array([LANGUAGES.index(language) for _, language in rows], np.int32),
    }
    parts = stratified_split(values["language"])
    return Splits(*({key: value[part] for key, value in values.items()} for part in parts))


def _text(path: str | os.PathLike[str] | None, bundled: str) -> str:
    place = _DATA / bundled if path is None else Path(path)
    try:
        return place.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            "NN0751", f"expected a data file, but '{place}' does not exist",
            help=f"pass the path of models/data/{bundled} in a copy of the repository",
        ) from None  # fmt: skip
