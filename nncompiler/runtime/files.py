"""Writing files so that a crash never leaves half of one behind."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from nncompiler.errors import UserError

if TYPE_CHECKING:
    from nncompiler.runtime.checks import Path

_numbers = itertools.count()


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], code: str = "NN0809", sync: bool = True
) -> None:
    """Let `write` fill a temporary file beside `path`, force it to disk, and rename it.

    Whatever happens, `path` holds either the old contents or the new ones, whole; without `sync`,
    but for a crash of the machine. It keeps its permissions. What is no regular file, such as a
    device or a pipe, is written to where it is.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:40]}.{os.getpid()}-{next(_numbers)}.tmp")
    try:
        if is_special(path):
            with open(path, "wb") as stream:
                write(stream)
            return
        with open(temporary, "wb") as stream:
            with contextlib.suppress(OSError):
                os.fchmod(stream.fileno(), os.stat(target).st_mode & 0o777)
            write(stream)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        _remove(temporary)
        raise UserError(code, f"cannot write '{path}': {error.strerror or error}") from None
    except BaseException:
        _remove(temporary)
        raise
    if sync:
        _sync_folder(folder)


def is_special(path: Path) -> bool:
    """Whether there is something that is neither a regular file nor a folder."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    """Make the rename itself last; some file systems cannot, which is no reason to fail."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)
