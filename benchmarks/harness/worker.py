"""A worker process: `python -m harness.worker IMPLEMENTATION THREADS CORE [CORE...]`.

It reads a request per line of standard input, `{"do": method, ...}`, and answers each with a line
`{"ok": value}` or `{"error": text}`. Between requests it waits in a read and uses no core.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from itertools import repeat
from typing import Any

import numpy as np

from harness.implementation import IMPLEMENTATIONS, Implementation
from harness.workload import Arrays, find


class Worker:
    """The requests, by name."""

    def __init__(self, implementation: Implementation) -> None:
        self.it = implementation

    def versions(self) -> dict[str, str]:
        return self.it.versions()

    def prepare(
        self, workload: str, kind: str, batch: int, data: str, weights: str | None, onnx: str
    ) -> str:
        """`data` and `weights` are `.npz` files."""
        initial = None if weights is None else read(weights)
        return self.it.prepare(find(workload), kind, batch, initial, read(data), onnx)

    def write_weights(self, path: str) -> None:
        np.savez(path, **self.it.weights())  # type: ignore[arg-type]

    def probe(self, name: str, size: int) -> float:
        """Choose what `limits` measures; the work of one call."""
        return self.it.probe(name, size)  # type: ignore[attr-defined, no-any-return]

    def memory(self) -> int:
        """The largest resident set of this process so far, in bytes."""
        # Not `getrusage`: its figure is never below that of the process that started this one.
        with open("/proc/self/status") as file:
            return next(1024 * int(line.split()[1]) for line in file if line[:6] == "VmHWM:")

    def values(self, steps: int) -> list[Any]:
        """The loss or output of each of the first steps."""
        self.it.reset()
        found = []
        with self.it.context():
            for _ in range(steps):
                self.it.call()
                self.it.finish()
                found.append(self.it.value().tolist())
        return found

    def calibrate(self, seconds: float) -> tuple[int, float]:
        """How many calls take that long, after a warm-up of as long; seconds of such a turn."""
        calls = 1
        while (took := self.turn(calls)) < seconds / 2:
            calls *= 2
        each = took / calls
        calls = max(1, round(seconds / each))
        return calls, each * (calls + warm_up(calls))

    def turn(self, calls: int) -> float:
        """Seconds for so many calls from the initial state, after a few that warm the caches."""
        call = self.it.call
        self.it.reset()
        gc.collect()
        gc.disable()
        with self.it.context():
            for _ in repeat(None, warm_up(calls)):
                call()
            self.it.finish()
            start = time.perf_counter()
            for _ in repeat(None, calls):
                call()
            self.it.finish()
            took = time.perf_counter() - start
        gc.enable()
        return took


def warm_up(calls: int) -> int:
    """Calls before those that are timed."""
    return 1 + calls // 10


def read(path: str) -> Arrays:
    with np.load(path) as file:
        return dict(file)


def main() -> None:
    name, threads, *cores = sys.argv[1:]
    os.sched_setaffinity(0, {int(core) for core in cores})
    # Answers have the pipe for themselves: what a framework prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if worker is None:
                worker = Worker(IMPLEMENTATIONS[name].make(int(threads)))
            answer = {"ok": getattr(worker, request.pop("do"))(**request)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
