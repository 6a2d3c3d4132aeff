"""Static memory allocation: one offset for each live range, and a peak as low as can be found.

A pure algorithm, independent of any IR. An interval occupies `size` bytes in every instant of
[start, end); two intervals that are live together must not overlap in memory. The peak cannot be
lower than the largest sum of live bytes, `live_bound`, and a solution that reaches it is optimal.

`allocate` first tries greedy placements, which reach the bound for most programs. Where they do
not, it narrows the gap between the bound and the best peak with an exact search
(`search`). The result depends on the problem and the budget only: budgets are counted
in steps, never in seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from nncompiler.errors import CompilerBug, Limitation
from nncompiler.passes.memory.search import MAX_TOTAL, Skyline, sections
from nncompiler.record import dataclass

DEFAULT_BUDGET = 40_000
_PAIRS_PER_STEP = 8192  # a step on a larger problem costs more of the budget: it takes longer


@dataclass(frozen=True, slots=True)
class Interval:
    """`size` bytes (a multiple of the problem's alignment), live in [start, end)."""

    name: str
    size: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Intervals to be placed at offsets that are multiples of `alignment`."""

    intervals: tuple[Interval, ...]
    alignment: int = 1

    def __post_init__(self) -> None:
        if self.alignment < 1:
            found = f"but found {self.alignment}"
            raise CompilerBug("NN0470", f"expected an alignment of at least 1, {found}")
        for i in self.intervals:
            if i.size < 0 or i.size % self.alignment:
                found = f"but found {i.size} bytes for {i.name}"
                raise CompilerBug("NN0471", f"expected a multiple of {self.alignment}, {found}")
            if i.end < i.start:
                found = f"but found [{i.start}, {i.end}) for {i.name}"
                raise CompilerBug("NN0472", f"expected a live range, {found}")


@dataclass(frozen=True, slots=True)
class Solution:
    """The offset of each interval, the bytes needed in all, and the strategy that found them."""

    offsets: tuple[int, ...]
    peak: int
    strategy: str


def _occupies(i: Interval) -> bool:
    return i.size > 0 and i.start < i.end


def live_bound(problem: Problem) -> int:
    """The largest sum of bytes that are live at the same time: no solution has a lower peak."""
    change: Counter[int] = Counter()
    for i in problem.intervals:
        change[i.start] += i.size
        change[i.end] -= i.size
    live = bound = 0
    for time in sorted(change):
        live += change[time]
        bound = max(bound, live)
    return bound


def validate(problem: Problem, solution: Solution) -> list[str]:
    """What is wrong with a solution, in words; empty when it is valid.

    One sweep over time with the live intervals sorted by offset. While no overlap has been found,
    an interval can only overlap its two neighbours; so each first overlap is reported, though not
    every pair of a heap of them.
    """
    intervals, offsets = problem.intervals, solution.offsets
    if len(offsets) != len(intervals):
        return [f"expected {len(intervals)} offsets, but found {len(offsets)}"]
    problems = []
    for i, offset in zip(intervals, offsets, strict=True):
        if offset < 0 or offset % problem.alignment:
            wanted = f"a non-negative multiple of {problem.alignment}"
            problems.append(f"{i.name}: offset {offset} is not {wanted}")
    used = [offset + i.size for i, offset in zip(intervals, offsets, strict=True) if _occupies(i)]
    top = max(used, default=0)
    if top != solution.peak:
        problems.append(f"expected a peak of {top}, but found {solution.peak}")
    return problems + _overlaps(intervals, offsets)


def _overlaps(intervals: Sequence[Interval], offsets: Sequence[int]) -> list[str]:
    # At equal times, ends (0) come before starts (1): live ranges are half open.
    events = []
    for k, i in enumerate(intervals):
        if _occupies(i):
            events += [(i.start, 1, k), (i.end, 0, k)]
    problems = []
    live: list[tuple[int, int]] = []
    for time, starts, k in sorted(events):
        entry = (offsets[k], k)
        at = bisect_left(live, entry)
        if not starts:
            del live[at]
            continue
        around = live[max(0, at - 1) : at] + [entry] + live[at : at + 1]
        for below, above in pairwise(around):
            if below[0] + intervals[below[1]].size > above[0]:
                a, b = intervals[below[1]].name, intervals[above[1]].name
                problems.append(f"{a} and {b} overlap at offset {above[0]}, time {time}")
        insort(live, entry)
    return problems


def allocate(problem: Problem, budget: int = DEFAULT_BUDGET) -> Solution:
    """The best solution found in `budget` search steps; 0 means greedy placement only.

    A step takes about 0.1 ms. The result is the same on every machine and in every run.
    """
    used = [k for k, i in enumerate(problem.intervals) if _occupies(i)]
    if not used:
        return Solution((0,) * len(problem.intervals), 0, "empty")
    unit = math.gcd(*(problem.intervals[k].size for k in used))
    # Working in units of the common divisor of all sizes loses nothing, and is a multiple of
    # the alignment.
    total = sum(problem.intervals[k].size for k in used) // unit
    if total >= MAX_TOTAL:
        limit = f"{MAX_TOTAL} units of {unit} bytes"
        raise Limitation("NN0473", f"expected fewer than {limit}, but found {total}")
    groups = _components(problem.intervals, used)
    parts = [_Part(g, [problem.intervals[k] for k in g], unit) for g in groups]
    floor = live_bound(problem) // unit
    for part in parts:
        part.place_greedily(floor)
    parts.sort(key=lambda p: -p.peak)
    for left, part in zip(range(len(parts), 0, -1), parts, strict=True):
        budget -= part.improve(floor, budget // left)
        floor = max(floor, part.peak)
    offsets = [0] * len(problem.intervals)
    for part in parts:
        for k, offset in zip(part.indices, part.offsets, strict=True):
            offsets[k] = offset * unit
    highest = max(parts, key=lambda p: p.peak)
    return Solution(tuple(offsets), highest.peak * unit, highest.strategy)


def _components(intervals: Sequence[Interval], used: Iterable[int]) -> list[list[int]]:
    """Groups of intervals between which nothing is live; each can be placed on its own."""
    groups: list[list[int]] = []
    end = None
    for k in sorted(used, key=lambda k: (intervals[k].start, k)):
        if end is None or intervals[k].start >= end:
            groups.append([])
            end = intervals[k].end
        groups[-1].append(k)
        end = max(end, intervals[k].end)
    return groups


class _Part:
    """A connected component in units, with its best placement so far."""

    def __init__(self, indices: list[int], intervals: Sequence[Interval], unit: int) -> None:
        self.indices = indices
        self.spans = [(i.start, i.end) for i in intervals]
        self.sizes = [i.size // unit for i in intervals]
        self.offsets: tuple[int, ...] = ()
        self.peak = MAX_TOTAL
        self.strategy = ""

    def _keep(self, offsets: Sequence[int], strategy: str) -> None:
        peak = max(offset + size for offset, size in zip(offsets, self.sizes, strict=True))
        if peak < self.peak:
            self.offsets, self.peak, self.strategy = tuple(offsets), peak, strategy

    def place_greedily(self, enough: int) -> None:
        """Try the greedy strategies until one has a peak of at most `enough`."""
        greedy = Greedy(self.spans, self.sizes)
        orders = greedy.orders()
        for fit in ("first", "best"):
            for name, order in orders.items():
                offsets = greedy.place(order, fit == "best", self.peak)
                if offsets is not None:
                    self._keep(offsets, f"greedy by {name}, {fit} fit")
                if self.peak <= enough:
                    return

    def improve(self, enough: int, budget: int) -> int:
        """Search for a peak nearer to `enough`; the steps spent.

        Every second search aims at the floor. The others aim between the floor and the best peak:
        nearer to the floor after a find, nearer to the peak after a failure. A proof that an aim
        is too low raises the floor.
        """
        if self.peak <= enough or budget <= 0:
            return 0
        skyline = Skyline(self.spans, self.sizes)
        price = 1 + len(skyline.flat) // _PAIRS_PER_STEP
        spent, attempt, limit, share = 0, 0, 500 + len(self.sizes), 32
        while self.peak > enough and spent + price <= budget:
            between = attempt % 2
            aim = enough + between * ((self.peak - 1 - enough) * share // 64)
            outcome = skyline.search(aim, attempt, min(limit, (budget - spent) // price))
            spent += price * max(1, outcome.steps)
            if outcome.offsets is not None:
                self._keep(outcome.offsets, "search")
                share = share // 2 if between else share
            elif outcome.exhausted:
                enough = aim + 1
            elif between:
                share = (share + 64) // 2
            attempt += 1
            limit += limit // 32
        return spent


class Greedy:
    """Places intervals one after the other, each into a gap between those that are placed already.
    """

    def __init__(self, spans: Sequence[tuple[int, int]], sizes: Sequence[int]) -> None:
        self.runs = sections(spans)
        self.spans, self.sizes = spans, sizes

    def orders(self) -> dict[str, list[int]]:
        """The orders of placement, by name, the one that does best most often first."""
        first = np.array([first for first, _ in self.runs])
        last = np.array([last for _, last in self.runs])
        conflicts = [int(((first < b) & (last > a)).sum()) for a, b in self.runs]
        life = [end - start for start, end in self.spans]
        size = self.sizes
        keys: dict[str, Callable[[int], tuple[int, int]]] = {
            "size": lambda k: (-size[k], -life[k]),
            "area": lambda k: (-size[k] * life[k], -size[k]),
            "lifetime": lambda k: (-life[k], -size[k]),
            "conflicts": lambda k: (-conflicts[k], -size[k]),
            "start": lambda k: (self.spans[k][0], -size[k]),
        }
        return {name: sorted(range(len(size)), key=key) for name, key in keys.items()}

    def place(self, order: Sequence[int], best_fit: bool, below: int) -> list[int] | None:
        """Offsets when intervals are placed in `order`, into the lowest or the tightest gap that
        is large enough; None as soon as the peak is not `below` this.
        """
        # Columns sorted by offset; rows: first and last section, offset, top.
        table = np.zeros((4, len(order)), dtype=np.int64)
        offsets = [0] * len(order)
        for m, k in enumerate(order):
            (a, b), size = self.runs[k], self.sizes[k]
            low, top = table[2:, :m].compress((table[0, :m] < b) & (table[1, :m] > a), axis=1)
            floors = np.zeros(len(low) + 1, dtype=np.int64)
            np.maximum.accumulate(top, out=floors[1:])
            gaps = np.full(len(low) + 1, MAX_TOTAL)
            gaps[:-1] = low - floors[:-1]
            fitting = (gaps >= size).nonzero()[0]
            gap = fitting[gaps[fitting].argmin()] if best_fit else fitting[0]
            offsets[k] = offset = int(floors[gap])
            if offset + size >= below:
                return None
            at = int(table[2, :m].searchsorted(offset))
            table[:, at + 1 : m + 1] = table[:, at:m]
            table[:, at] = a, b, offset, offset + size
        return offsets
