"""What a call costs, from Python and from C, on a model that does next to nothing.

    python benchmarks/overhead.py [--rounds 41] [--write]

`models/tiny.nn` with batch 4. The ways to call it take turns.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness.tables import ROOT, facts, parser, positive, publish, table

import nncompiler
from nncompiler.api import build, request

MODEL = ROOT / "models" / "tiny.nn"
CALLS = 20_000
PROGRAM = r"""
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "tiny.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int count, char **words) {
    long calls = count > 1 ? atol(words[1]) : 0;
    static _Alignas(64) char state[65536], arena[65536];
    float x[8] = {0, 0, 0, 1, 1, 0, 1, 1}, t[4] = {0, 1, 1, 0}, loss = 0, y[4];
    if (tiny_state_bytes() > sizeof state || tiny_arena_bytes() > sizeof arena) return 1;
    if (tiny_init(state, 1)) return 1;
    for (int round = 0; round < 2; round++) {
        double start = now();
        for (long k = 0; k < calls; k++)
            if (tiny_train_step_b4(state, arena, x, t, &loss)) return 1;
        double middle = now();
        for (long k = 0; k < calls; k++)
            if (tiny_infer_b4(state, arena, x, y)) return 1;
        if (round) printf("%.17g %.17g\n", (middle - start) / calls, (now() - middle) / calls);
    }
    return 0;
}
"""
#: Microseconds of a training step, by way of calling.
TARGETS = {"Python, checked": 4.0, "Python, prepared": 1.5, "C": 0.4}


def c_program(folder: Path) -> list[str]:
    """The command of a C program on the compiled model, or nothing without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return []
    library, source, made = folder / "tiny.so", folder / "calls.c", folder / "calls"
    batch = ((("batch", 4),),)
    built = build(request(MODEL, bindings=batch, functions=("init", "train_step", "infer")))
    library.write_bytes(built.so)
    (folder / "tiny.h").write_text(built.header)
    source.write_text(PROGRAM)
    subprocess.run(
        [compiler, "-std=c11", "-O2", f"-I{folder}", str(source), str(library),
         f"-Wl,-rpath,{folder}", "-o", str(made)], check=True,
    )  # fmt: skip
    return [str(made), str(CALLS)]


def python_calls() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """A training step and inference, by way of calling."""
    model = nncompiler.compile(MODEL, batch=4, functions=("train_step", "infer"))
    x = np.random.default_rng(0).random((4, 2), np.float32)
    t = np.ones((4, 1), np.float32)
    return {
        "Python, checked": (lambda: model.train_step(x=x, t=t), lambda: model.predict(x)),
        "Python, prepared": (model.bind("train_step", x=x, t=t), model.bind("infer", x=x)),
    }


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--rounds", type=positive, default=41, help="default: %(default)s")
    options = flags.parse_args()
    known = facts() | {"rounds": str(options.rounds)}
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        program, calls = c_program(Path(folder)), python_calls()
        names = [*calls, *(["C"] if program else [])]
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name, (train, infer) in calls.items():
                found[name].append((seconds(train), seconds(infer)))
            if program:
                run = subprocess.run(program, capture_output=True, text=True, check=True)
                train_seconds, infer_seconds = map(float, run.stdout.split())
                found["C"].append((train_seconds, infer_seconds))
    rows = []
    for name, times in found.items():
        step, infer = (1e6 * statistics.median(t) for t in zip(*times, strict=True))
        shown = f"{step:.2f}"
        marked = f"**{shown}**" if step > TARGETS[name] else shown
        rows.append((name, marked, str(TARGETS[name]), f"{infer:.2f}"))
    text = "# Calls\n\n`tiny` (2-3-2-1) with batch 4: median microseconds of a call, with what it "
    text += "computes. *Checked* is `model.train_step(...)` and `model.predict(...)`, *prepared* "
    text += "is `model.bind(...)`. Targets that are missed are bold.\n\n"
    if not program:
        text += "There is no C compiler on this machine, so the row of C is lacking.\n\n"
    publish("calls", text + table(("from", "train_step", "target", "infer"), rows),
            options.write, known)  # fmt: skip


if __name__ == "__main__":
    main()
