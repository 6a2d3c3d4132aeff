"""How compile time, memory and the time of a step grow with depth, width, batch and sequence.

    python benchmarks/scaling.py [--threads 1] [--write]

Every model is compiled without a cache in this process, after one that loads the compiler.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.tables import facts, parser, publish, table, threads

from nncompiler.cli.bench import measure
from nncompiler.cli.limits import Limits
from nncompiler.cli.profile import prepared
from nncompiler.driver import Compilation, Options, build_artifact
from nncompiler.errors import Source
from nncompiler.report import accounts
from nncompiler.runtime.artifact import open_artifact
from nncompiler.runtime.model import Model

SECONDS = 0.5
DENSE = """model dense_layers {{
    input x : f32[batch, {width}]
    target t : f32[batch, {width}]
    for i in 0..{depth} {{
        x = x |> dense({width}) |> relu
    }}
    output y = x
    loss mse(x, t)
}}
train {{
    optimizer = sgd(lr=0.01, momentum=0.9)
}}
"""
SEQUENCE = """model sequence {{
    input text : i32[batch, {time}]
    target following : i32[batch, {time}]
    logits = text |> embedding(64, 64) |> {layer} |> dense(64) as head
    output logits
    loss cross_entropy(logits, following)
}}
train {{
    optimizer = adam(lr=0.001)
}}
"""


@dataclass(frozen=True, slots=True)
class Point:
    """A model of a series."""

    series: str
    size: int
    text: str
    batch: int


def points() -> Iterator[Point]:
    for depth in (1, 2, 4, 8, 16, 32, 64):
        yield Point("depth: dense(256), batch 64", depth, DENSE.format(depth=depth, width=256), 64)
    for width in (16, 32, 64, 128, 256, 512, 1024):
        text = DENSE.format(depth=4, width=width)
        yield Point("width: 4 dense layers, batch 64", width, text, 64)
    for batch in (1, 4, 16, 64, 256, 1024):
        text = DENSE.format(depth=4, width=256)
        yield Point("batch: 4 × dense(256)", batch, text, batch)
    layers = {"lstm(128)": "lstm(128)", "transformer": "transformer_block(4, causal=true)"}
    for name, layer in layers.items():
        for length in (8, 16, 32, 64, 128, 256):
            text = SEQUENCE.format(time=length, layer=layer)
            yield Point(f"sequence: {name}, batch 8", length, text, 8)


def row(point: Point, threads: int, peak: float) -> tuple[str, ...]:
    """Compile the training step, run it."""
    options = Options(functions=("init", "train_step"))
    start = time.perf_counter()
    c = Compilation(Source("scaling.nn", point.text), {"batch": point.batch}, options)
    artifact = build_artifact([c])
    compiled = time.perf_counter() - start
    model = Model(open_artifact(artifact.so), threads=threads)
    found = measure("train_step", point.batch, prepared(model, c, "train_step"), SECONDS)
    total = accounts.analyse(c, ("train_step",)).profiles[0].total
    flops = 2 * (total.forward + total.backward).multiply_adds
    plan = c.plans["train_step"]
    return (
        str(point.size), f"{compiled:.2f}", str(len(list(plan.kernels()))),
        f"{len(artifact.so) / 1e3:.0f}", f"{plan.arena_bytes / 1e6:.2f}",
        f"{1e6 * found.median:.0f}", f"{1e6 * found.median / point.batch:.2f}",
        f"{100 * flops / found.median / peak:.0f}",
    )  # fmt: skip


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--threads", type=int, default=1, choices=threads(),
                       help="default: %(default)s")  # fmt: skip
    options = flags.parse_args()
    known, cores = facts(), sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[-options.threads :]))
    known["threads"] = str(options.threads)
    peak = Limits(options.threads).machine().peak
    known["FMA peak"] = f"{peak / 1e9:.1f} GFLOP/s"
    every = list(points())
    row(every[0], options.threads, peak)  # loads the compiler
    heads = (
        "size", "compile, s", "kernels", "artifact, kB", "arena, MB", "step, µs", "µs per row",
        "% of FMA peak",
    )  # fmt: skip
    parts = ["# Scaling\n\nThe training step of simple networks, compiled cold: medians.\n"]
    for series in dict.fromkeys(p.series for p in every):
        rows = [row(p, options.threads, peak) for p in every if p.series == series]
        parts.append(f"## By {series}\n\n" + table(heads, rows, left=0))
    publish("scaling", "\n".join(parts), options.write, known)


if __name__ == "__main__":
    main()
