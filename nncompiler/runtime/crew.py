"""The threads that run a model's parallel functions together with the caller.

They are Python threads inside one native call, without the interpreter's lock: between calls of
the model they watch for work for about a millisecond, then sleep in the kernel. They end with the
model. In a process forked off there are none, and calls run on their own thread, to the same bits.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from functools import partial
from typing import Any

import numpy as np

from nncompiler.errors import CompilerBug
from nncompiler.runtime.artifact import Artifact, Native
from nncompiler.runtime.call import aligned, pointer
from nncompiler.runtime.checks import Array
from nncompiler.runtime.manifest import POOL

#: Most threads of a model.
MOST = 256

_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


class Crew:
    """A pool of `threads` threads, the caller's among them; `artifact` has the native side."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        manifest = artifact.manifest
        function = {
            part: artifact.lookup(manifest.symbol(part))
            for part in POOL
        }
        self._memory = aligned(function["pool_bytes"]())
        if code := function["pool"](pointer(self._memory), ctypes.c_int64(threads)):
            raise CompilerBug("NN0690", f"'{manifest.symbol('pool')}' returned {code}")
        workers = [
            threading.Thread(
                target=function["worker"], args=(pointer(self._memory), ctypes.c_int64(n)),
                name=f"{manifest.name} {n}", daemon=True,
            )
            for n in range(1, threads)
        ]  # fmt: skip
        weakref.finalize(self, _stop, function["pool_stop"], self._memory, workers)
        for worker in workers:
            worker.start()
        _crews.add(self)

    def native(self, function: Native) -> Native:
        """A parallel function as one that takes no pool; it keeps the threads alive."""
        address: Any = ctypes.c_void_p(self._memory.ctypes.data)
        address.crew = self
        return partial(function, address)

    def disband(self) -> None:
        """From now on calls run on their own thread."""
        _count(self._memory)[0] = 1


def _count(memory: Array) -> Array:
    """The number of threads: what a pool begins with."""
    return memory[:8].view(np.int64)


def _stop(stop: Native, memory: Array, workers: list[threading.Thread]) -> None:
    _count(memory)[0] = 1
    stop(pointer(memory))
    for worker in workers:
        if worker is not threading.current_thread():
            worker.join()


def _forked() -> None:
    for crew in list(_crews):
        crew.disband()


os.register_at_fork(after_in_child=_forked)
