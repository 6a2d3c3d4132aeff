"""Writing results: text and JSON on stdout, files atomically, notes on stderr."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from nncompiler.errors import UserError


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


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
    folder, name = os.path.split(os.path.realpath(path))
    data = data.encode() if isinstance(data, str) else data
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), _mode(path))
        os.replace(temporary, os.path.join(folder, name))
    except OSError as error:
        _remove(temporary)
        raise UserError("NN0906", f"cannot write '{path}': {error.strerror or error}") from None
    except BaseException:
        _remove(temporary)
        raise


def need_writable(*paths: str) -> None:
    """`UserError` NN0906 if a file could not be written there: said before the work is done."""
    for path in paths:
        folder = os.path.dirname(os.path.realpath(path))
        problem = (
            errno.EISDIR if os.path.isdir(path)
            else errno.ENOENT if not os.path.exists(folder)
            else errno.ENOTDIR if not os.path.isdir(folder)
            else 0 if os.access(folder, os.W_OK | os.X_OK)
            else errno.EACCES
        )  # fmt: skip
        if problem:
            raise UserError("NN0906", f"cannot write '{path}': {os.strerror(problem)}")


def emit(text: str, path: str | None) -> None:
    """A result: to `path`, or to stdout where that is None or `-`."""
    if path is None or path == "-":
        sys.stdout.write(text)
    else:
        write_file(path, text)


def _mode(path: str) -> int:
    """The permissions of the file that is replaced, or those of a new one."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
