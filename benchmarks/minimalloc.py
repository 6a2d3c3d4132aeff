"""Peak memory on the eleven MiniMalloc problems as a Markdown table: greedy and `allocate`."""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from nncompiler.passes.memory.allocation import (
    DEFAULT_BUDGET,
    Greedy,
    Interval,
    Problem,
    allocate,
    live_bound,
    validate,
)

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "tests" / "data" / "minimalloc"


def load(path: Path) -> Problem:
    """The problem in a MiniMalloc file: rows of id, lower, upper, size."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("size", "lower", "upper")
    return Problem(tuple(Interval(row["id"], *(int(row[k]) for k in keys)) for row in rows))


def greedy_by_size(problem: Problem) -> int:
    """The peak of first fit, the largest interval first."""
    sizes = [i.size for i in problem.intervals]
    greedy = Greedy([(i.start, i.end) for i in problem.intervals], sizes)
    offsets = greedy.place(greedy.orders()["size"], best_fit=False)
    return max(offset + size for offset, size in zip(offsets, sizes, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    steps = "search steps (default: %(default)s)"
    parser.add_argument("--budget", type=int, default=DEFAULT_BUDGET, help=steps)
    parser.add_argument("names", nargs="*", help="instances, such as A D (default: all)")
    options = parser.parse_args()
    heads = ["instance", "buffers", "live bound", "capacity", "greedy by size", "ours"]
    heads += ["ours / bound", "strategy", "seconds"]
    print("| " + " | ".join(heads) + " |")
    print("|---|---:|---:|---:|---:|---:|---:|---|---:|")
    for path in sorted(DATA.glob("*.csv")):
        name, capacity = path.name.split(".")[:2]
        if options.names and name not in options.names:
            continue
        problem = load(path)
        begin = time.perf_counter()
        solution = allocate(problem, options.budget)
        seconds = time.perf_counter() - begin
        if faults := validate(problem, solution):
            raise SystemExit(f"{path.name}: {faults[0]}")
        bound = live_bound(problem)
        cells = [name, len(problem.intervals), bound, capacity]
        cells += [greedy_by_size(problem), solution.peak]
        cells += [f"{solution.peak / bound:.4f}", solution.strategy, f"{seconds:.2f}"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
