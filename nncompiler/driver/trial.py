"""A kernel under several schedules, compiled and run on scratch arrays of its own layouts."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from nncompiler.codegen.target import Target
from nncompiler.codegen.trials import trials
from nncompiler.ir.kernel import Buffer, Kernel, Schedule
from nncompiler.ir.types import Array
from nncompiler.record import replace
from nncompiler.runtime.artifact import open_library
from nncompiler.runtime.call import ALIGNMENT, aligned

#: Seconds that one run takes under the schedule of this number.
Seconds: TypeAlias = Callable[[int], float]
Buffers: TypeAlias = Mapping[str, Buffer]

#: About how long the clock runs for one reading, and how many calls that are at most.
READING, MOST_CALLS = 1e-3, 500
#: A step has used other memory before it comes back to a kernel: calls take places in turn, of so
#: many bytes together, and so many at most.
BYTES, MOST_PLACES = 2 << 20, 64


class Trial:
    """Called with the number of a schedule: the seconds of one run, on one thread, as the mean of
    about a millisecond; half way through the plan loops `around` the kernel, for first and last
    rounds may leave out sums. A `Seconds`."""

    def __init__(
        self, kernel: Kernel, buffers: Buffers, schedules: Sequence[Schedule], target: Target,
        around: Mapping[str, int],
    ) -> None:  # fmt: skip
        counters = {name: extent // 2 for name, extent in around.items()}
        made = trials([replace(kernel, schedule=s) for s in schedules], buffers, target, counters)
        self._library = open_library(made.so, "trials", f"code of kernel '{kernel.name}'")
        self._memory, rows = _places(made.pointers, buffers)
        self._tables = np.array([rows[n % len(rows)] for n in range(MOST_CALLS)], np.uint64)
        self._functions = [self._library[name] for name in made.names]
        for native in self._functions:
            native.restype, native.argtypes = None, [ctypes.c_void_p, ctypes.c_int64]
        self._calls = 1
        self(0)
        self._calls = max(1, min(MOST_CALLS, int(READING / max(self(0), 1e-7))))

    def __call__(self, number: int) -> float:
        native, tables = self._functions[number], self._tables.ctypes.data
        start = time.perf_counter()
        native(tables, self._calls)
        return (time.perf_counter() - start) / self._calls


def _places(pointers: Sequence[Sequence[str]], buffers: Buffers) -> tuple[Array, list[list[int]]]:
    """Memory, and in it the addresses of each pointer's bytes at several places."""
    images = [_image([buffers[name] for name in group], buffers) for group in pointers]
    place = np.concatenate(images)
    count = max(1, min(MOST_PLACES, BYTES // len(place)))
    memory = aligned(count * len(place))
    memory.reshape(count, -1)[:] = place
    starts = np.cumsum([0, *(len(image) for image in images)])[:-1] + memory.ctypes.data
    return memory, [[int(at) + n * len(place) for at in starts] for n in range(count)]


def _image(group: Sequence[Buffer], buffers: Buffers) -> Array:
    """What buffers that share memory hold: constants; else random numbers below one where they
    are floats, and zeros, which are indices of anything.
    """
    first = group[0]
    size = sum(_owner(b, buffers).nbytes for b in group)
    image = aligned(-(-(size + 1) // ALIGNMENT) * ALIGNMENT)
    if first.data is not None:
        image[: len(first.data)] = np.frombuffer(first.data, np.uint8)
    elif first.type.dtype.is_float:
        floats = image.view(first.type.dtype.numpy)
        floats[:] = np.random.default_rng(0).uniform(0.125, 1.0, len(floats))
    return image


def _owner(buffer: Buffer, buffers: Buffers) -> Buffer:
    """The buffer whose bytes these are, views looked through."""
    while buffer.space == "view" and buffer.base is not None:
        buffer = buffers[buffer.base]
    return buffer
