"""The measurement: agreement first, then rounds in which the implementations take turns.

Within a round each implementation has one turn of 50 to 100 ms, in an order that is reversed from
round to round, so that a drift of the machine's speed cancels. A ratio is formed within a round;
what is reported is the median of the ratios and their quartiles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.pool import Pool, Process, WorkerFailed
from harness.workload import Arrays, Row, Workload, find

#: Array sizes that stand for the levels of memory: L1, L2, L3 and DRAM.
LEVELS = (16 << 10, 256 << 10, 8 << 20, 256 << 20)
#: Training steps whose losses must agree; enough for a wrong optimizer to show.
CHECK_STEPS = 20
RELATIVE, ABSOLUTE = 1e-4, 1e-6
#: Time for the threads of the last turn to go to sleep.
SETTLE = 0.005

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Summary:
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        return Summary(median, low, high)


@dataclass(frozen=True, slots=True)
class Timing:
    """One implementation in a row; `ratio` is its time over ours."""

    seconds: Summary
    ratio: Summary
    calls: int
    note: str


@dataclass(slots=True)
class Result:
    """A row. `failures` say why an implementation has no timing; `peak` is in operations/s."""

    row: Row
    flops: int
    bytes: int
    bandwidth: float
    peak: float = 0.0
    timings: dict[str, Timing] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """Seconds that the contractions, or the memory traffic, take at the machine's limit."""
        compute = self.flops / self.peak if self.peak else 0.0
        return max(compute, self.bytes / self.bandwidth)

    def fastest(self, peers: Sequence[str]) -> str | None:
        """The peer with the smallest ratio."""
        timed = [p for p in peers if p in self.timings]
        return min(timed, key=lambda p: self.timings[p].ratio.median, default=None)

    def loses(self, peers: Sequence[str]) -> bool:
        """Whether ours is slower than a peer, or has not run."""
        best = self.fastest(peers)
        return "ours" not in self.timings or (
            best is not None and self.timings[best].ratio.median < 1
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds for a turn, and the number of rounds."""

    turn: float
    rounds: int


def bandwidths(pool: Pool, threads: int) -> dict[int, float]:
    """Bytes/s read by all threads together, by the size of the array that each reads."""
    worker = pool.get("limits", threads)
    found = {}
    for size in LEVELS:
        work = worker.ask("probe", name="read", size=size)
        found[size] = work / statistics.median(worker.ask("turn", calls=1) for _ in range(9))
    return found


def measure(
    pool: Pool, row: Row, names: Sequence[str], memory: dict[int, float], folder: Path,
    settings: Settings, say: Say,
) -> Result:  # fmt: skip
    """A row of the table; `names` begins with 'ours'."""
    workload = find(row.workload)
    data = workload.data(row.batch, np.random.default_rng(0))
    weights, batch = str(folder / "weights.npz"), str(folder / "data.npz")
    np.savez(batch, **data)  # type: ignore[arg-type]
    failures: dict[str, str] = {}
    ready: dict[str, Process] = {}
    notes: dict[str, str] = {}
    expected: list[Any] = []
    for name in names:
        say(f"{row}: {name} prepares")
        worker = pool.get(name, row.threads)
        case = {"workload": row.workload, "kind": row.kind, "batch": row.batch, "data": batch}
        try:
            given = None if name == "ours" else weights
            notes[name] = worker.ask("prepare", **case, weights=given)
            if name == "ours":
                worker.ask("write_weights", path=weights)
            values = worker.ask("values", steps=CHECK_STEPS if row.kind == "train" else 1)
            if name == "ours":
                expected = values
            agree(values, expected)
            ready[name] = worker
        except WorkerFailed as error:
            failures[name] = str(error)
            if name == "ours":
                break  # the peers take their weights from ours
    sizes = working_set(workload, row, data, weights) if "ours" in ready else 0
    fits = [speed for size, speed in memory.items() if sizes <= size * row.threads]
    speed = fits[0] if fits else memory[LEVELS[-1]]
    flops = workload.flops(row.kind, row.batch)
    result = Result(row, flops, sizes, speed, failures=failures)
    if "ours" in ready:
        take_turns(pool, result, ready, notes, settings, say)
    return result


def agree(found: list[Any], expected: list[Any]) -> None:
    """All losses (or the output) are the same but for rounding, or `WorkerFailed`."""
    a, b = np.array(found, np.float64), np.array(expected, np.float64)
    if a.size != b.size:
        raise WorkerFailed(f"computes {a.size} values where ours computes {b.size}")
    a = a.reshape(b.shape)
    wrong = ~(np.abs(a - b) <= ABSOLUTE + RELATIVE * np.abs(b))
    if wrong.any():
        k = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise WorkerFailed(f"does not agree: value {k[0] + 1} is {a[k]:.8g}, ours {b[k]:.8g}")


def working_set(workload: Workload, row: Row, data: Arrays, weights: str) -> int:
    """Compulsory bytes: data and parameters; in training slots too, all of it written again."""
    with np.load(weights) as file:
        parameters = sum(file[name].nbytes for name in file)
    used = data if row.kind == "train" else {n: data[n] for n in workload.inputs}
    state = 2 * (1 + workload.optimizer.slots) * parameters if row.kind == "train" else parameters
    return int(state + sum(array.nbytes for array in used.values()))


def take_turns(
    pool: Pool, result: Result, ready: dict[str, Process], notes: dict[str, str],
    settings: Settings, say: Say,
) -> None:  # fmt: skip
    """Fill in the timings and the peak."""
    limits = pool.get("limits", result.row.threads)
    work = limits.ask("probe", name="fma", size=0)
    calls = {n: worker.ask("calibrate", seconds=settings.turn) for n, worker in ready.items()}
    order = [("limits", limits, 4), *((n, worker, calls[n]) for n, worker in ready.items())]
    times: dict[str, list[float]] = {name: [] for name, _, _ in order}
    for k in range(settings.rounds):
        say(f"{result.row}: round {k + 1} of {settings.rounds}")
        for name, worker, count in order if k % 2 == 0 else reversed(order):
            time.sleep(SETTLE)
            times[name].append(worker.ask("turn", calls=count) / count)
    result.peak = work / statistics.median(times["limits"])
    for name in ready:
        ratios = [t / ours for t, ours in zip(times[name], times["ours"], strict=True)]
        result.timings[name] = Timing(
            Summary.of(times[name]), Summary.of(ratios), calls[name], notes[name]
        )
