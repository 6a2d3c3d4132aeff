"""Random graphs through the whole compiler: ``python -m tests.fuzz_graphs --count 2000``.

For every seed: compiled results = interpreted ones (`differential.differences`), and gradients =
directional central differences in f64. ``--off PASS`` leaves a pass out; ``--each-off`` leaves
out each pass in turn; ``--threads N`` shares every kernel that can be shared among so many;
``--cpu`` and ``--planned-for`` name levels for code and for plans, such as x86-64-v2. What is done
where it pays is done wherever it can be, but ``--as-planned``. With ``--guard``, code that touches
what lies ``behind`` or ``ahead`` of an array or buffer ends the process; the seed is the last one
said.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from nncompiler.codegen.target import NAMES, select
from nncompiler.ir.graph import Function
from nncompiler.ir.interp import run
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F64
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.manager import Pass
from nncompiler.passes.pipelines import OPTIMISE
from tests.differential import Compiled, differences
from tests.networks import read_state
from tests.random_graphs import random_function

BATCH = 25
#: Calls on one state of graphs that carry any.
CALLS = 3


def without(name: str) -> tuple[Pass, ...]:
    """The pipeline with one pass left out; for fusion that means one kernel per node."""
    return tuple(
        Fuse(max_nodes=1) if p.name == name == "fuse" else p
        for p in OPTIMISE
        if p.name != name or name == "fuse"
    )


def compare(
    seeds: Sequence[int],
    pipeline: Sequence[Pass] = OPTIMISE,
    threads: int = 1,
    cpu: str = "host",
    planned_for: str | None = None,
    as_planned: bool = False,
    guard: str | None = None,
) -> Iterator[str]:
    """Problems of the graphs of these seeds, compiled together."""
    functions = [random_function(s, prefix=f"s{s}_") for s in seeds]
    targets = {"target": select(cpu), "planned_for": select(planned_for or cpu)}
    compiled = Compiled(
        functions, pipeline, threads=threads, as_planned=as_planned, guard=guard, **targets)
    for seed, f in zip(seeds, functions, strict=True):
        if guard:  # the process may end here
            print(f"seed {seed}", end="\r", file=sys.stderr, flush=True)
        for call, problem in _calls(compiled, f, seed):
            yield f"seed {seed}, call {call}: {problem}"


def _calls(compiled: Compiled, f: Function, seed: int) -> Iterator[tuple[int, str]]:
    """Problems of one call, or of several with other inputs on one state where there is one."""
    values = random_arguments(f, seed)
    state = compiled.memory(values)
    carried = [v.name for v in f.params_of("param", "state", "slot")]
    for call in range(CALLS if f.params_of("state") else 1):
        if call:
            fresh = random_arguments(f, seed + call)
            held = {n: read_state(compiled.layout, state, n) for n in carried}
            values = {**fresh, **held}
        found = compiled.run(f.name, values, state)
        for problem in differences(f, values, found):
            yield call, problem
        untouched = [n for n in carried if f"update.{n}" not in found]
        for n in untouched:
            if not np.array_equal(read_state(compiled.layout, state, n), values[n]):
                yield call, f"{n} was written"


def check_gradient(seed: int) -> Iterator[str]:
    """The gradient of a graph against a central difference along a random direction."""
    f = random_function(seed, prefix="")
    grads = [(n, n.removeprefix("grad.")) for n, _ in f.results if n.startswith("grad.")]
    if not grads:
        return
    values = {
        k: np.asarray(v, np.float64) if v.dtype.kind == "f" else v
        for k, v in random_arguments(f, seed).items()
    }
    generator = np.random.default_rng(seed)
    direction = {w: generator.standard_normal(values[w].shape) for _, w in grads}
    found = run(f, values, F64)
    slope = sum(float(np.sum(found[g] * direction[w])) for g, w in grads)

    def loss(h: float) -> float:
        moved = {w: values[w] + h * d for w, d in direction.items()}
        return float(run(f, {**values, **moved}, F64)["loss"])

    estimates = [(loss(h) - loss(-h)) / (2 * h) for h in (1e-4, 1e-5, 1e-6)]
    best = min(abs(e - slope) for e in estimates)
    one_sided = [(loss(1e-5) - loss(0.0)) / 1e-5, (loss(0.0) - loss(-1e-5)) / 1e-5]
    kink = abs(one_sided[0] - one_sided[1]) > 1e-2 * (1 + abs(slope))
    if best > 1e-5 * (1 + abs(slope)) and not kink:
        yield f"seed {seed}: slope {slope:.9g}, differences {[f'{e:.9g}' for e in estimates]}"


def sweep(
    first: int,
    count: int,
    pipeline: Sequence[Pass],
    gradients: bool,
    threads: int = 1,
    cpu: str = "host",
    planned_for: str | None = None,
    as_planned: bool = False,
    guard: str | None = None,
) -> list[str]:
    problems: list[str] = []
    for start in range(first, first + count, BATCH):
        seeds = range(start, min(first + count, start + BATCH))
        problems += compare(seeds, pipeline, threads, cpu, planned_for, as_planned, guard)
        if gradients:
            problems += [p for s in seeds for p in check_gradient(s)]
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--off", choices=[p.name for p in OPTIMISE])
    parser.add_argument("--each-off", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu", choices=NAMES, default="host")
    parser.add_argument("--planned-for", choices=NAMES)
    parser.add_argument("--as-planned", action="store_true")
    parser.add_argument("--guard", choices=["behind", "ahead"])
    options = parser.parse_args(arguments)
    left_out = [p.name for p in OPTIMISE] if options.each_off else [options.off]
    failed = 0
    for name in left_out:
        start = time.perf_counter()
        problems = sweep(
            options.first,
            options.count,
            without(name) if name else OPTIMISE,
            gradients=name is None and options.threads == 1 and not options.guard,
            threads=options.threads,
            cpu=options.cpu,
            planned_for=options.planned_for,
            as_planned=options.as_planned,
            guard=options.guard,
        )
        print("\n".join(problems))
        what = f"without {name}" if name else "every pass on"
        seconds = time.perf_counter() - start
        print(f"{options.count} graphs, {what}: {len(problems)} problems, {seconds:.0f} s")
        failed += len(problems)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
