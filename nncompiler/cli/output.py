"""Writing results: text and JSON on stdout, files atomically, notes on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nncompiler.cli import UsageError
from nncompiler.errors import UserError
from nncompiler.runtime.files import is_special, write_atomically

if TYPE_CHECKING:
    from nncompiler.clock import Stage


def say(text: str) -> None:
    """A line on stderr; where that takes none, the work goes on."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def say_tuned(stages: Iterable[Stage]) -> None:
    """A line on stderr for what `--tune` found."""
    for stage in stages:
        if stage.name == "tune":
            say(f"tune: {stage.detail}")


def print_json(value: Any) -> None:
    """A value on stdout as JSON, without NaN or infinities (they become null)."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    match value:
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case dict():
            return {str(k): _finite(v) for k, v in value.items()}
        case list() | tuple():
            return [_finite(v) for v in value]
        case _:
            return value


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns as wide as their longest cell; those numbered in `right` are flush right."""
    wide = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = zip(row, wide, strict=True)
        shown = (v.rjust(w) if c in right else v.ljust(w) for c, (v, w) in enumerate(cells))
        lines.append("  ".join(shown).rstrip())
    return "\n".join(lines)


def write_file(path: str, data: bytes | str) -> None:
    """Write a file whole or not at all; `UserError` NN0906 when that cannot be done."""
    data = data.encode() if isinstance(data, str) else data
    write_atomically(path, lambda stream: stream.write(data), "NN0906", sync=False)


def need_writable(*paths: str) -> None:
    """`UserError` NN0906 if a file could not be written there: said before the work is done."""
    for path in paths:
        folder = os.path.dirname(path) or "."
        place = os.path.dirname(os.path.realpath(path))
        problem, help = "", None
        if is_special(path):
            problem = "" if os.access(path, os.W_OK) else "it is not yours to write to"
        elif os.path.isdir(path):
            problem, help = "it is a folder", "name a file in it"
        elif not os.path.isdir(place):
            problem = f"there is no folder '{folder}'"
            help = f"create it: mkdir -p {shlex.quote(folder)}"
        elif not os.access(place, os.W_OK | os.X_OK):
            problem = f"the folder '{folder}' is not yours to write to"
        if problem:
            raise UserError("NN0906", f"cannot write '{path}': {problem}", help=help)


def need_apart(read: Iterable[str | None], *written: str | None) -> None:
    """`UsageError` NN0925 if a file would be written over one of those that are read, or twice."""
    taken = {os.path.realpath(path) for path in read if path}
    for path in written:
        if not path or path == "-" or is_special(path):
            continue
        place = os.path.realpath(path)
        if place in taken:
            raise UsageError(
                "NN0925", f"expected a file of its own to write to, but '{path}' is read, or "
                "written, by this command too", help="name another file",
            )  # fmt: skip
        taken.add(place)


def emit(text: str, path: str | None) -> None:
    """A result: to `path`, or to stdout where that is None or `-`."""
    if path is None or path == "-":
        sys.stdout.write(text)
    else:
        write_file(path, text)
