"""What this machine can do at most: multiply-adds and bytes per second, on each thread at once.

`fma` is independent chains of multiply-adds in registers, `read` the loads of an array again and
again; the size of the array decides which level of memory it comes from.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nncompiler.codegen import probe
from nncompiler.codegen.target import host
from nncompiler.report.timing import Machine
from nncompiler.runtime.artifact import open_library
from nncompiler.runtime.call import aligned

#: Array sizes that stand for the levels of memory: L1, L2, L3 and DRAM.
LEVELS = (16 << 10, 256 << 10, 8 << 20, 256 << 20)
#: Multiply-add instructions of one `fma` call on each thread: below a millisecond.
FMA_STEPS = 100_000
#: What one `read` call reads at least.
READ_BYTES = 8 << 20
#: Several threads do so many times as much, for waking them to take next to no part of it.
LONGER = 16


class Limits:
    """The probes, ready to be run by so many threads."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self.lanes = probe.lanes(host())
        self._library = open_library(probe.library(host()), "probe", "the probe")
        self._workers = ThreadPoolExecutor(threads - 1) if threads > 1 else None
        self._arrays = [aligned(0)] * threads

    @property
    def _longer(self) -> int:
        return LONGER if self.threads > 1 else 1

    def fma(self) -> tuple[Callable[[], None], float]:
        """A call, and the operations that it does on all threads."""
        steps = FMA_STEPS // probe.CHAINS * self._longer
        call = self._call("fma", 4 * self.lanes * (probe.CHAINS + 2), steps, 0)
        return call, 2.0 * self.lanes * probe.CHAINS * steps * self.threads

    def read(self, size: int) -> tuple[Callable[[], None], float]:
        """A call, and the bytes that it reads on all threads."""
        block = 4 * self.lanes * probe.READS
        steps = max(size, READ_BYTES) // block * self._longer
        call = self._call("read", size, steps, size // block - 1)
        return call, float(block * steps * self.threads)

    def _call(self, name: str, size: int, steps: int, mask: int) -> Callable[[], None]:
        """The probe on every thread at once, on arrays of `size` bytes each, all one half."""
        arrays = [aligned(size) for _ in range(self.threads)]
        for array in arrays:
            array.view("float32")[:] = 0.5  # x / 2 + 1 / 2 stays in range
        self._arrays = arrays
        native = self._library[name]
        native.restype = None
        native.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        first, *others = [array.ctypes.data for array in arrays]
        workers = self._workers

        def call() -> None:
            waiting = [workers.submit(native, p, steps, mask) for p in others] if workers else []
            native(first, steps, mask)
            for done in waiting:
                done.result()

        return call

    def values(self) -> list[float]:
        """The least value that each thread's array holds."""
        return [float(array.view("float32").min()) for array in self._arrays]

    def machine(self, rounds: int = 20) -> Machine:
        """The fastest of so many rounds; the peak before and after."""
        call, work = self.fma()
        peak = max(_rate(call, work) for _ in range(rounds))
        bandwidth = {}
        for size in LEVELS:
            call, work = self.read(size)
            bandwidth[size] = max(_rate(call, work) for _ in range(max(3, rounds // 4)))
        call, work = self.fma()
        peak = max(peak, *(_rate(call, work) for _ in range(rounds)))
        self._arrays = []
        return Machine(peak, bandwidth, self.threads)


def _rate(call: Callable[[], None], work: float) -> float:
    start = time.perf_counter()
    call()
    return work / (time.perf_counter() - start)
