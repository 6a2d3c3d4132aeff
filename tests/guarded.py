"""Memory between pages that nobody may touch: who does so ends the process.

A test runs what may do so as a program of its own (`alone`).
"""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np

from nncompiler.ir.kernel import Buffer, Plan
from nncompiler.ir.model import align
from nncompiler.ir.types import Array
from nncompiler.record import replace

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = mmap.PAGESIZE
#: Bytes that belong to nobody: as floats NaN, as integers an index of nothing.
NOBODY = 0xFF
_PROT_NONE = 0


def guarded(array: Array, ahead: bool = False) -> Array:
    """A copy, laid out alike, whose last byte is followed by such a page, or whose first follows
    one (`ahead`).
    """
    steps = zip(array.shape, array.strides, strict=True)
    size = array.itemsize + sum((n - 1) * step for n, step in steps) if array.size else 0
    pages = max(1, -(-size // PAGE)) * PAGE
    memory = np.frombuffer(mmap.mmap(-1, pages + 2 * PAGE), np.uint8)  # keeps the pages
    memory[:] = NOBODY
    forbid(memory[:PAGE])
    forbid(memory[PAGE + pages :])
    start = PAGE if ahead else PAGE + pages - size
    found: Array = np.ndarray(array.shape, array.dtype, memory, start, array.strides)
    found[...] = array
    return found


def forbid(pages: Array) -> None:
    """Nobody may touch them from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    given = ctypes.c_void_p(pages.ctypes.data), ctypes.c_size_t(pages.nbytes)
    if libc.mprotect(*given, _PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")


def spread(plan: Plan, ahead: bool = False) -> tuple[Plan, tuple[int, ...]]:
    """The plan with every buffer of the arena, and those that take over its bytes, on pages of its
    own, at their end or begin (`ahead`); and where the pages between them are."""
    buffers, size_of = plan.table(), dict[str, int]()
    for b in plan.buffers:
        if b.offset is not None and b.space == "arena":
            first = _first(b, buffers)
            size_of[first] = max(size_of.get(first, 0), align(b.nbytes))
    offset_of, between, end = {}, [0], PAGE
    for name, size in size_of.items():
        begin, end = end, end + -(-size // PAGE) * PAGE
        offset_of[name] = begin if ahead else end - size
        between.append(end)
        end += PAGE
    placed = (
        replace(b, offset=offset_of[_first(b, buffers)])
        if b.offset is not None and b.space == "arena" else b
        for b in plan.buffers
    )  # fmt: skip
    return replace(plan, buffers=tuple(placed), arena_bytes=end), tuple(between)


def _first(buffer: Buffer, buffers: dict[str, Buffer]) -> str:
    """Whose bytes the buffer took over, at first."""
    while buffer.in_place_of is not None:
        buffer = buffers[buffer.in_place_of]
    return buffer.name


def alone(module: str, *arguments: object) -> str:
    """What a module says as a program of its own; fails if that ended early or found problems."""
    command = [sys.executable, "-X", "faulthandler", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode < 0:
        said = f"signal {-done.returncode}: it touched what is beside an array\n{said}"
    assert not done.returncode, said
    return said
