"""The measurement: agreement first, then rounds in which the implementations take turns.

Within a round each contestant (an implementation with a number of threads) has one turn of 50 to
100 ms, in an order that is reversed from round to round, so that a drift of the machine's speed
cancels. A ratio is formed within a round; what is reported is the median of the ratios and their
quartiles. At n threads a peer counts with the better of its times with up to n threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.implementation import IMPLEMENTATIONS
from harness.pool import Pool, Process, WorkerFailed
from harness.workload import LOOP_STEPS, Arrays, Case, Workload, find
from nncompiler.cli.limits import LEVELS

#: Training steps whose losses must agree; enough for a wrong optimizer to show. Of large models,
#: which have more operations than this in a step, a few.
CHECK_STEPS, LARGE, LARGE_STEPS = 20, 1e9, 4
ABSOLUTE = 1e-6
#: Time for the threads of the last turn to go to sleep.
SETTLE = 0.005

Say = Callable[[str], None]
#: An implementation by name, and its number of threads.
Contestant = tuple[str, int]


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
class Limit:
    """What so many threads can do: operations/s, and bytes/s at the size of the working set."""

    peak: float
    bandwidth: float


@dataclass(slots=True)
class Result:
    """A case. `seconds` holds a figure per round; `failures` say why a contestant has none."""

    case: Case
    flops: int
    bytes: int
    limits: dict[int, Limit] = field(default_factory=dict)
    seconds: dict[Contestant, list[float]] = field(default_factory=dict)
    calls: dict[Contestant, int] = field(default_factory=dict)
    notes: dict[Contestant, str] = field(default_factory=dict)
    failures: dict[Contestant, str] = field(default_factory=dict)

    def row(self, threads: int) -> Row:
        return Row(self, threads)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: a case with a number of threads."""

    result: Result
    threads: int

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.result.case}, {threads}"

    @property
    def ours(self) -> Summary | None:
        found = self.result.seconds.get(("ours", self.threads))
        return Summary.of(found) if found else None

    @property
    def limit(self) -> float:
        """Seconds that the contractions, or the memory traffic, take at the machine's limit."""
        limit = self.result.limits[self.threads]
        return max(self.result.flops / limit.peak, self.result.bytes / limit.bandwidth)

    @property
    def roofline(self) -> float:
        """The share of the limit that ours reaches."""
        return self.limit / self.ours.median if self.ours else 0.0

    def ratio(self, contestant: Contestant) -> Summary:
        """Its time over ours, within each round."""
        ours, theirs = self.result.seconds["ours", self.threads], self.result.seconds[contestant]
        return Summary.of([t / o for t, o in zip(theirs, ours, strict=True)])

    def best(self, peer: str) -> Contestant | None:
        """The peer with the number of threads, up to ours, that suits it best."""
        every = [c for c in self.result.seconds if c[0] == peer and c[1] <= self.threads]
        return min(every, key=lambda c: statistics.median(self.result.seconds[c]), default=None)

    def fastest(self) -> Contestant | None:
        """The peer with the smallest ratio."""
        if self.ours is None:
            return None
        peers = {name for name, _ in self.result.seconds if IMPLEMENTATIONS[name].peer}
        every = [c for p in sorted(peers) if (c := self.best(p)) is not None]
        return min(every, key=lambda c: self.ratio(c).median, default=None)

    @property
    def speedup(self) -> Summary | None:
        """The fastest peer's time over ours."""
        best = self.fastest()
        return None if best is None else self.ratio(best)

    @property
    def lost(self) -> bool:
        """Whether ours is slower than a peer, or has not run."""
        return self.ours is None or (self.speedup is not None and self.speedup.median < 1)


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds for a turn, the number of rounds, and seconds for a case: then there are fewer
    rounds, but not fewer than `least`."""

    turn: float
    rounds: int
    seconds: float
    least: int


def bandwidths(pool: Pool, threads: int) -> dict[int, float]:
    """Bytes/s read by all threads together, by the size of the array that each reads."""
    worker = pool.get("limits", threads)
    found = {}
    for size in LEVELS:
        work = worker.ask("probe", name="read", size=size)
        found[size] = work / statistics.median(worker.ask("turn", calls=4) / 4 for _ in range(9))
    return found


def measure(
    pool: Pool, case: Case, contestants: Sequence[Contestant],
    memory: Mapping[int, Mapping[int, float]], folder: Path, settings: Settings, say: Say,
) -> Result:  # fmt: skip
    """All rows of a case; `contestants` begin with ours, `memory` is bytes/s by threads, size."""
    workload = find(case.workload)
    rows = case.batch * (LOOP_STEPS if case.kind == "loop" else 1)
    data = workload.data(rows, np.random.default_rng(0))
    np.savez(folder / "data.npz", **data)  # type: ignore[arg-type]
    steps = LOOP_STEPS if case.kind == "loop" else 1
    flops = steps * workload.flops("infer" if case.infers else "train", case.batch)
    result = Result(case, flops, 0)
    ready: dict[Contestant, Process] = {}
    expected: list[Any] = []
    count = {"train": LARGE_STEPS if flops > LARGE else CHECK_STEPS}.get(case.kind, 1)
    for c in contestants:
        if case.kind not in IMPLEMENTATIONS[c[0]].kinds:
            continue
        say(f"{case}: {c[0]} prepares")
        try:
            worker = prepared(pool, c, case, folder, result, bool(expected))
            values = worker.ask("values", steps=count)
            expected = expected or values
            agree(values, expected, workload.tolerance, workload.growth)
            ready[c] = worker
        except WorkerFailed as error:
            result.failures[c] = str(error)
    if any(name == "ours" for name, _ in ready):
        result.bytes = working_set(workload, case, data, folder / "weights.npz")
        for threads, speeds in memory.items():
            fits = [speed for size, speed in speeds.items() if result.bytes <= size * threads]
            result.limits[threads] = Limit(0.0, fits[0] if fits else speeds[LEVELS[-1]])
        take_turns(pool, result, ready, settings, say)
    return result


def prepared(
    pool: Pool, contestant: Contestant, case: Case, folder: Path, result: Result, weights: bool
) -> Process:
    """The contestant, ready for the case; the first is ours and gives the weights to the rest."""
    name, threads = contestant
    worker = pool.get(name, threads)
    onnx = folder / f"{case.workload}-{case.batch}.onnx"
    if not weights and name != "ours":
        raise WorkerFailed("ours has not run, which gives the weights")
    given = {
        "workload": case.workload, "batch": case.batch,
        "kind": "infer" if case.infers and name != "ours" else case.kind,
        "data": str(folder / "data.npz"), "onnx": str(onnx),
        "weights": str(folder / "weights.npz") if weights else None,
    }  # fmt: skip
    if IMPLEMENTATIONS[name].onnx and not onnx.exists():
        pool.get("export", 1).ask("prepare", **given)
    result.notes[contestant] = worker.ask("prepare", **given)
    if not weights:
        worker.ask("write_weights", path=given["weights"] or str(folder / "weights.npz"))
    return worker


def agree(
    found: list[Any], expected: list[Any], tolerance: float, growth: float = 1.0
) -> None:
    """All losses (or the output) are the same but for rounding, or `WorkerFailed`."""
    a, b = np.array(found, np.float64), np.array(expected, np.float64)
    if a.size != b.size:
        raise WorkerFailed(f"computes {a.size} values where ours computes {b.size}")
    a = a.reshape(b.shape)
    allowed = tolerance * growth ** np.arange(len(b)).reshape(-1, *[1] * (b.ndim - 1))
    wrong = ~(np.abs(a - b) <= ABSOLUTE + allowed * np.abs(b))
    if wrong.any():
        k = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise WorkerFailed(f"does not agree: value {k[0] + 1} is {a[k]:.8g}, ours {b[k]:.8g}")


def working_set(workload: Workload, case: Case, data: Arrays, weights: Path) -> int:
    """Compulsory bytes: data and parameters; in training slots too, all of it written again."""
    with np.load(weights) as file:
        parameters = sum(file[name].nbytes for name in file)
    used = {n: data[n] for n in workload.inputs} if case.infers else data
    state = parameters if case.infers else 2 * (1 + workload.optimizer.slots) * parameters
    return int(state + sum(array.nbytes for array in used.values()))


def take_turns(
    pool: Pool, result: Result, ready: dict[Contestant, Process], settings: Settings, say: Say
) -> None:
    """Fill in the times and the peaks."""
    workers = dict(ready)
    work = {}
    for threads in result.limits:
        workers["limits", threads] = limits = pool.get("limits", threads)
        work[threads] = limits.ask("probe", name="fma", size=0)
    spent = 0.0
    for c, worker in workers.items():
        result.calls[c], seconds = worker.ask("calibrate", seconds=settings.turn)
        spent += SETTLE + seconds
    rounds = max(settings.least, min(settings.rounds, int(settings.seconds / spent)))
    times: dict[Contestant, list[float]] = {c: [] for c in workers}
    for k in range(rounds):
        say(f"{result.case}: round {k + 1} of {rounds}")
        for c in list(workers) if k % 2 == 0 else reversed(workers):
            time.sleep(SETTLE)
            calls = result.calls[c]
            times[c].append(workers[c].ask("turn", calls=calls) / calls)
    for threads, limit in result.limits.items():
        peak = work[threads] / statistics.median(times.pop(("limits", threads)))
        result.limits[threads] = Limit(peak, limit.bandwidth)
    result.seconds = times
