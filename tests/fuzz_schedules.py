"""Random schedules through code generation: ``python -m tests.fuzz_schedules --count 2000``.

A seed is a nest (`random_nests`), its schedule, and the level of processor that code is made for.
The schedule is one that tiling chose, for any level; one with a thing changed; or as wild as text
may be. What the verifier of schedules accepts must compile and give what the interpreter gives;
that it refuses what tiling chose is a problem too. `--kind` is where the schedules are from. Some
loops are shared out among workers, whose parts run one after the other, in any order. With
`--guard`, code that touches what lies behind or ahead of an array ends the process; the seed is
the last one said.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import Target, host, select
from nncompiler.ir.body import extents, stores
from nncompiler.ir.interp_kernel import run_kernel
from nncompiler.ir.kernel import Buffer, Kernel, Schedule
from nncompiler.ir.nests import contraction
from nncompiler.ir.verify_schedule import verify_schedule
from nncompiler.ir.workers import chain, shared_loops, split_problem
from nncompiler.passes.tiling.tile import choose_schedule
from nncompiler.record import replace
from tests.guarded import guarded
from tests.nest_harness import Compiled as Harness
from tests.nest_harness import buffer, run
from tests.random_nests import NESTS, Arrays, Maker

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
#: Differences that rounding explains, of the largest magnitude or 1, in f32 and f64.
LIMIT = 2e-5, 1e-12
KINDS = ("chosen", "varied", "wild", "wild")


def levels() -> list[Target]:
    """Those that this machine runs."""
    return [select(name) for name in LEVELS[: LEVELS.index(host().cpu) + 1]]


# --- schedules -----------------------------------------------------------------------------------


def wild(nest: Kernel, r: Random) -> Schedule:
    """Any schedule that text can give, more often one that means something."""
    form, names = contraction(nest), [*extents(nest)]
    if form is None or r.random() < 0.1:
        return _loops(nest, names, r)
    parallel = [a.name for a in form.parallel]
    summed = [*dict.fromkeys(a.name for p in form.products for a in p.reduction)]
    vector = r.choice(names)
    register = r.choice([*parallel, *parallel, None])
    lanes = (vector, register) if register and r.random() < 0.2 else (vector,)
    r.shuffle(parallel)
    r.shuffle(summed)
    order = [*parallel, *summed]
    if r.random() < 0.25:
        r.shuffle(order)
    if r.random() < 0.2:
        order.insert(r.randrange(len(order) + 1), r.choice(order))
    if r.random() < 0.1 and order:
        order.remove(r.choice(order))
    tile = r.choice((1, 2, 3, 4, 5, 6, 8, 14)), r.choice((1, 2, 3, 4, 8, 12, 16, 24, 32, 48, 64))
    pack = r.choice((0, 0, tile[1], 2 * tile[1], 3 * tile[1], 7, 16, 40))
    unroll = r.choice((1, 1, 2, 3, 4))
    return Schedule("contract", lanes, register, tile, tuple(order), pack, unroll)


def _loops(nest: Kernel, names: list[str], r: Random) -> Schedule:
    """Lanes, order and steps side by side of plain loops, or of a copy that turns."""
    order = tuple(r.sample(names, len(names)))
    vector = tuple(r.sample(names, r.choice((0, 1, 1, 2))))
    if r.random() < 0.15 and len(names) > 1:
        return Schedule("turn", order[:1], order[1], order=order)
    unroll = r.choice((1, 2, 4))
    return Schedule("loops", vector, r.choice(names) if unroll > 1 else None, order=order,
                    unroll=unroll)  # fmt: skip


def varied(schedule: Schedule, nest: Kernel, r: Random) -> Schedule:
    """A chosen schedule with one thing changed."""
    rows, across = schedule.tile or (1, 1)
    match r.randrange(6):
        case 0:
            return replace(schedule, tile=(r.choice((1, 2, rows + 1)), across))
        case 1:
            return replace(schedule, tile=(rows, r.choice((across + 1, 2 * across, 4, 8, 12, 24))))
        case 2:
            return replace(schedule, pack=r.choice((0, across, 2 * across, 5, 100)))
        case 3:
            return replace(schedule, order=tuple(r.sample(schedule.order, len(schedule.order))))
        case 4:
            return replace(schedule, unroll=r.choice((1, 2, 3, 4)))
        case _:
            return replace(schedule, vector=(r.choice([*extents(nest)]),))


# --- what is done with them ----------------------------------------------------------------------


def made(seed: int, kinds: Sequence[str] = KINDS) -> tuple[Kernel, Arrays, Target, bool]:
    """A nest with its schedule, its arrays, the level to compile for, and whether the schedule is
    one that tiling chose."""
    r = Random(seed)
    m = Maker(r)
    nest = r.choice(NESTS)(m)
    planned, target = r.choice([select(x) for x in LEVELS]), r.choice(levels())
    kind = r.choice(kinds)
    if kind == "wild":
        return replace(nest, schedule=wild(nest, r)), m.arrays, target, False
    table = {n: buffer(n, a) for n, a in m.arrays.items()}
    schedule = choose_schedule(nest, table, planned.machine)
    if kind == "varied" and schedule.strategy == "contract":
        return replace(nest, schedule=varied(schedule, nest, r)), m.arrays, target, False
    return replace(nest, schedule=schedule), m.arrays, target, True


def shared(nest: Kernel, table: Mapping[str, Buffer], r: Random) -> Kernel:
    """The kernel with some of its outermost loops shared out, if workers may do so."""
    loops = shared_loops(nest, table)
    most = min((len(chain(loop, nest.schedule)) for loop in loops), default=0)
    if not most:
        return nest
    names = tuple(a.name for a in chain(loops[0], nest.schedule))[: r.randint(1, most)]
    found = replace(nest, schedule=replace(nest.schedule, parallel=names))
    return nest if split_problem(found, table) else found


def run_parts(nest: Kernel, target: Target, arrays: Arrays, r: Random) -> None:
    """Three calls run the parts of a kernel, each some of them."""
    table = {n: buffer(n, a) for n, a in arrays.items()}
    code = emit_kernel(nest, table, target, "kernel")
    code = replace(code, counters=(*code.counters, "range", "parts"))
    cuts = [0, *sorted(r.sample(range(1, 7), 2)), 7]
    calls = [*zip(cuts, cuts[1:], strict=False)]
    for first, last in r.sample(calls, len(calls)):
        some = {"range": first | last << 32, "parts": 7}
        Harness.of_code(code, target, some)(**arrays)


def difference(nest: Kernel, arrays: Arrays, target: Target, r: Random) -> str | None:
    """How a compiled run differs from an interpreted one, if it does."""
    stored = {s.buffer for s in stores(nest)}
    expected: Mapping[str, np.ndarray] = {
        n: np.array(a, np.float64) if n in stored else a.astype(np.float64)
        for n, a in arrays.items()
    }
    run_kernel(nest, expected, {})
    if nest.schedule.parallel:
        run_parts(nest, target, arrays, r)
    else:
        run(nest, target, **arrays)
    for name in sorted(stored):
        found, wanted = arrays[name], expected[name]
        limit = LIMIT[found.dtype == np.float64] * max(1.0, np.max(np.abs(wanted), initial=0.0))
        error = np.max(np.abs(found - wanted), initial=0.0)
        if not error <= limit:
            return f"{name} differs by {error:.3g} at {np.argmax(np.abs(found - wanted))}"
    return None


def outcome(seed: int, kinds: Sequence[str] = KINDS, guard: str | None = None) -> tuple[str, str]:
    """``right``, ``refused`` or ``problem``; and what it is."""
    nest, arrays, target, chosen = made(seed, kinds)
    if guard:
        arrays = {n: guarded(a, guard == "ahead") for n, a in arrays.items()}
        print(f"seed {seed}", end="\r", file=sys.stderr, flush=True)
    r = Random(seed)
    if r.random() < 0.3 and not verify_schedule(nest, extents(nest), ()):
        nest = shared(nest, {n: buffer(n, a) for n, a in arrays.items()}, r)
    about = f"{nest.schedule}, {extents(nest)}, {target.cpu}"
    if found := verify_schedule(nest, extents(nest), ()):
        return "problem" if chosen else "refused", f"{found[0].message}: {about}"
    try:
        problem = difference(nest, arrays, target, r)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        problem = f"{type(error).__name__} at {place}: {str(error).splitlines()[:1]}"
    if problem is not None:
        return "problem", f"{problem}: {about}"
    return "right", nest.schedule.strategy


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--kind", choices=sorted(set(KINDS)))
    parser.add_argument("--guard", choices=["behind", "ahead"])
    options = parser.parse_args(arguments)
    kinds = [options.kind] if options.kind else KINDS
    start, counts = time.perf_counter(), Counter[str]()
    for seed in range(options.first, options.first + options.count):
        verdict, detail = outcome(seed, kinds, options.guard)
        counts[verdict if verdict != "right" else f"right {detail}"] += 1
        if verdict == "problem":
            print(f"seed {seed}: {detail}", flush=True)
    seconds = time.perf_counter() - start
    print(", ".join(f"{n} {what}" for what, n in sorted(counts.items())), f"in {seconds:.0f} s")
    return int(counts["problem"] > 0)


if __name__ == "__main__":
    sys.exit(main())
