"""`nnc bench`: the time of each function of a model on random data."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from nncompiler.api import model_of
from nncompiler.cli import options
from nncompiler.cli.output import print_json, say_tuned, table
from nncompiler.cli.profile import prepared
from nncompiler.record import dataclass

#: Seconds that one reading of the clock spans at least, and readings at least and at most.
SPAN = 100e-6
READINGS = 10, 10_000


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "bench", "Run each function of a model on random data and print how long a "
        "call takes: median, fastest and quartiles.",
    )  # fmt: skip
    parser.add_argument("file", help="a .nn file")
    options.add_functions(parser, "default: all that the model has")
    options.add_model(parser)
    options.add_timing(parser)
    options.add_target(parser)
    options.add_json(parser)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call, of a function that takes `rows` rows (0: its sizes are fixed)."""

    function: str
    rows: int
    calls: int
    median: float
    fastest: float
    low: float
    high: float


def run(args: argparse.Namespace) -> None:
    compilation, named = options.functions_among(args, options.compilation_of(args))
    functions = named or compilation.available()
    wanted = options.request_of(args, functions=functions)
    model, built = model_of(wanted, cache=not args.no_cache, threads=args.threads)
    say_tuned(built.stages)
    found = []
    for name in functions:
        model.init(0)
        call = prepared(model, compilation, name)
        rows = 0 if name == "init" else model.bindings.any(name).rows
        found.append(measure(name, rows, call, args.seconds))
    if args.json:
        sizes = dict(compilation.network.sizes)
        print_json({
            "file": args.file, "model": model.name, "sizes": sizes, "threads": args.threads,
            "functions": [_record(t) for t in found],
        })  # fmt: skip
    else:
        print(_table(found))


def measure(name: str, rows: int, call: Callable[[], None], seconds: float) -> Timing:
    """Readings of the clock around several calls each, until so much time has passed."""
    import numpy as np

    several = _several(call)
    found: list[float] = []
    least, most = READINGS
    end = time.perf_counter() + seconds
    while len(found) < least or (time.perf_counter() < end and len(found) < most):
        start = time.perf_counter()
        for _ in range(several):
            call()
        found.append((time.perf_counter() - start) / several)
    low, median, high = np.quantile(found, (0.25, 0.5, 0.75)).tolist()
    return Timing(name, rows, len(found) * several, median, min(found), low, high)


def _several(call: Callable[[], None]) -> int:
    """How many calls one reading spans; they warm the caches up."""
    calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        if time.perf_counter() - start >= SPAN:
            return calls
        calls *= 2


def _record(t: Timing) -> dict[str, object]:
    return {
        "function": t.function, "rows": t.rows, "calls": t.calls, "median": t.median,
        "fastest": t.fastest, "low": t.low, "high": t.high, "per_second": 1 / t.median,
    }  # fmt: skip


def _table(found: Sequence[Timing]) -> str:
    rows = [("function", "median", "fastest", "quartiles", "calls/s", "rows/s", "calls")]
    for t in found:
        spread = f"{_time(t.low)} – {_time(t.high)}"
        rate = f"{t.rows / t.median:,.0f}" if t.rows else ""
        calls = f"{1 / t.median:,.0f}" if t.median < 0.1 else f"{1 / t.median:.2f}"
        rows.append(
            (t.function, _time(t.median), _time(t.fastest), spread, calls, rate, f"{t.calls:,}")
        )
    return table(rows, right=(1, 2, 3, 4, 5, 6))


def _time(seconds: float) -> str:
    """With three digits: `213 ns`, `1.94 µs`."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
