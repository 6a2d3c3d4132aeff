"""nncompiler: one native call per step, or per loop of steps, its arguments bound before."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import tempfile
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

import nncompiler
from harness.implementation import Implementation
from harness.workload import Array, Arrays, Workload
from nncompiler.runtime.call import check_code, pointer

ROOT = Path(__file__).resolve().parents[2]
SEED = 1


@functools.cache
def cores() -> list[int]:
    """Those this process was given, before any thread got one of its own."""
    return sorted(os.sched_getaffinity(0))


def pin(model: str, threads: int) -> None:
    """A core for each thread of the model, the caller's first."""
    crew = [t for t in threading.enumerate() if t.name.startswith(f"{model} ")]
    named = [0, *(t.native_id or 0 for t in crew[len(crew) - threads + 1 :])]
    if len(named) <= len(cores()):
        for thread, core in zip(named, cores(), strict=False):
            os.sched_setaffinity(thread, {core})


class Prepared(Implementation):
    """`model.bind(function, ...)`, and for a loop the native loop of `model.fit`."""

    def versions(self) -> dict[str, str]:
        return {
            "nncompiler": nncompiler.__version__, "llvmlite": version("llvmlite"),
            "numpy": np.__version__, "Python": platform.python_version(),
        }  # fmt: skip

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays,
        onnx: str,
    ) -> str:  # fmt: skip
        infers = kind in ("infer", "direct")
        function = "infer" if infers else "train_step"
        compiled = functools.partial(
            nncompiler.compile, ROOT / workload.path, batch=batch, threads=self.threads,
            functions=(function,), direct=kind == "direct",
        )  # fmt: skip
        self.model = compiled()
        self.model.init(SEED)
        if weights is not None:
            self.model.load_state_dict(weights)
        self.initial = self.model.state_dict()
        if infers:  # weights are constants for the peers as well
            with tempfile.TemporaryDirectory() as folder:
                self.model.save(Path(folder) / "weights.npz")
                self.model = compiled(freeze=Path(folder) / "weights.npz")
        given = {n: data[n] for n in workload.inputs} if infers else data
        if kind == "loop":
            self.call = self.loop(batch, given)
        else:
            bound = self.model.bind(function, **given)
            result = workload.output if infers else self.model.manifest.losses[0]
            self.call, self.found = bound, bound.results[result]
        pin(self.model.manifest.name, self.threads)
        return ""

    def loop(self, batch: int, data: Arrays) -> Callable[[], None]:
        """One call of the native loop over all rows, in order."""
        entry, native = self.model.bindings.fit(batch)
        arrays = [data[a.name] for a in entry.given]
        self.found = np.zeros(1)
        rows = len(arrays[0])
        arguments = (
            *self.model.memory("train_step"), *map(pointer, arrays), None,
            ctypes.c_int64(rows), pointer(self.found),
        )  # fmt: skip

        def call() -> None:
            self.found[:] = 0
            check_code(native(*arguments), "fit", data, entry.given)
            self.found /= batch

        return call

    def reset(self) -> None:
        self.model.init(SEED)
        if not self.model.manifest.frozen:
            self.model.load_state_dict(self.initial)

    def value(self) -> Array:
        return self.found

    def weights(self) -> Arrays:
        return self.initial
