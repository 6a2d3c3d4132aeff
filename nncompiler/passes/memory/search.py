"""Exact search for offsets under a given capacity: a branch and bound over the skyline.

Time is cut into *sections*, the maximal sets of intervals that are live together; an interval
covers a run of consecutive sections. Offsets are assigned from the bottom up, so all that matters
of what is placed is one height per section, the skyline. A section can afford `capacity - live
bytes` of waste, its slack; a gap under an interval is paid from it, and the search backs out as
soon as a section cannot pay.

Every branch decides what lies next on one section in a valley of the skyline: one of the intervals
that fit into the valley, or nothing. These cases exclude each other, so no arrangement is seen
twice, and together they cover all arrangements in which nothing can be moved down: an exhausted
search proves that the capacity is too small.

Follows MiniMalloc (Moffitt, ASPLOS 2023) in sections, floors and slack; the branching on valleys
is that of strip packing, the choice of the valley by counted failures that of constraint solvers
(dom/wdeg). Nothing depends on clocks or on hashing: equal arguments give equal results on every
machine.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nncompiler.record import dataclass

Ints = NDArray[np.int64]

PLACED = 1 << 62  # lowest offset of an interval that is placed, height of a finished section
MAX_TOTAL = 1 << 60  # sums of sizes below this cannot overflow or be mistaken for PLACED


def sections(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """For each live range [start, end), its run [first, last) of sections.

    Only a start that is followed by an end begins a section: the live set before the next start is
    contained in it.
    """
    starts, ends = {s for s, _ in spans}, {e for _, e in spans}
    points: list[int] = []
    pending: int | None = None
    for time in sorted(starts | ends):
        if time in ends and pending is not None:
            points.append(pending)
            pending = None
        if time in starts:
            pending = time
    return [(bisect_left(points, s), bisect_left(points, e)) for s, e in spans]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found: offsets, or none; `exhausted` without offsets is a proof that there are
    none.
    """

    offsets: tuple[int, ...] | None
    exhausted: bool
    steps: int


@dataclass(slots=True)
class _Node:
    """A partial arrangement and the choices still to be tried at `section`.

    A choice (interval, offset) places the interval; (-1, height) leaves the section empty up to
    that height.
    """

    height: Ints
    lowest: Ints
    slack: Ints
    section: int = -1
    choices: tuple[tuple[int, int], ...] = ()
    tried: int = 0


class Skyline:
    """One connected problem, prepared for searches; it learns from failures which sections are
    hard.
    """

    def __init__(self, spans: Sequence[tuple[int, int]], sizes: Sequence[int]) -> None:
        runs = sections(spans)
        self.runs, self.sizes = runs, [int(size) for size in sizes]
        self.first = np.array([first for first, _ in runs], dtype=np.int64)
        self.last = np.array([last for _, last in runs], dtype=np.int64)
        self.size = np.array(self.sizes, dtype=np.int64)
        members: list[list[int]] = [[] for _ in range(int(self.last.max()))]
        for i, (first, last) in enumerate(runs):
            for section in range(first, last):
                members[section].append(i)
        counts = [len(m) for m in members]
        self.members = [np.array(m, dtype=np.int64) for m in members]
        self.flat = np.concatenate(self.members)
        self.flat_size = self.size[self.flat]
        self.begin = np.cumsum([0, *counts[:-1]])
        self.counts = np.array(counts, dtype=np.int64)
        self.load: Ints = np.add.reduceat(self.size[self.flat], self.begin)
        self.weight = np.ones(len(members))
        self.orders = self._orders(spans)

    def _orders(self, spans: Sequence[tuple[int, int]]) -> list[list[int]]:
        # Wide before large: what spans many sections cannot be fitted in later.
        # Integers, as powers of
        # floats are not the same on every machine.
        items = [(last - first, end - start, size) for (first, last), (start, end), size
                 in zip(self.runs, spans, self.sizes, strict=True)]
        return [
            [width**3 * size for width, _, size in items],
            [width**2 * size for width, _, size in items],
            [width**5 * size for width, _, size in items],
            [width * size for width, _, size in items],
            [width * life * size for width, life, size in items],
        ]

    def search(self, capacity: int, attempt: int, limit: int) -> Outcome:
        """Look for offsets with no top above `capacity`, in at most `limit` steps.

        `attempt` selects which intervals are preferred: 0 to 4 are plain orders, later ones
        disturb them.
        """
        prefer: list[float] = [float(p) for p in self.orders[attempt % len(self.orders)]]
        if attempt >= len(self.orders):
            random_state = random.Random(attempt)
            prefer = [p * (0.8 + 0.4 * random_state.random()) for p in prefer]
        self.weight = np.sqrt(self.weight)  # what failed lately counts most
        zeros = np.zeros(len(self.members), dtype=np.int64)
        root = _Node(zeros, np.zeros(len(self.sizes), dtype=np.int64), capacity - self.load)
        if not self._settle(root):
            return Outcome(None, True, 1)
        return self._descend(root, prefer, limit)

    def _descend(self, root: _Node, prefer: list[float], limit: int) -> Outcome:
        self._branch(root, prefer)
        stack, steps = [root], 0
        while stack:
            node = stack[-1]
            if node.tried == len(node.choices):
                stack.pop()
                self.weight[node.section] += 1
                continue
            if steps >= limit:
                return Outcome(None, False, steps)
            steps += 1
            choice = node.choices[node.tried]
            node.tried += 1
            child = self._apply(node, choice)
            if not self._settle(child):
                continue
            if int(child.height.min()) == PLACED:
                placed = dict(n.choices[n.tried - 1] for n in stack)
                return Outcome(tuple(placed[i] for i in range(len(self.sizes))), False, steps)
            self._branch(child, prefer)
            stack.append(child)
        return Outcome(None, True, steps)

    def _apply(self, node: _Node, choice: tuple[int, int]) -> _Node:
        interval, offset = choice
        height, lowest = node.height, node.lowest.copy()
        if interval < 0:
            covering = self.members[node.section]
            raised = lowest[covering]
            lowest[covering] = np.maximum(raised, offset)
            return _Node(height, lowest, node.slack)
        first, last = self.runs[interval]
        top = offset + self.sizes[interval]
        height = height.copy()
        height[first:last] = top
        conflicts = (self.first < last) & (self.last > first)
        np.maximum(lowest, top, out=lowest, where=conflicts)
        lowest[interval] = PLACED
        return _Node(height, lowest, node.slack)

    def _settle(self, node: _Node) -> bool:
        """Raise each section to the lowest offset any of its intervals can have; False if one
        cannot pay for it.
        """
        lowest = node.lowest[self.flat]
        floor = np.minimum.reduceat(lowest, self.begin)
        waste = np.where(floor == PLACED, 0, floor - node.height)
        node.height, node.slack = floor, node.slack - waste
        fits = lowest == np.repeat(floor, self.counts)
        filling = np.add.reduceat(np.where(fits, self.flat_size, 0), self.begin)
        lowest[fits] = PLACED
        next_floor = np.minimum.reduceat(lowest, self.begin)
        gap = np.where(next_floor == PLACED, 0, next_floor - floor - filling)
        left = node.slack - np.maximum(gap, 0)
        worst = int(left.argmin())
        if left[worst] < 0:
            self.weight[worst] += 1
            return False
        return True

    def _branch(self, node: _Node, prefer: list[float]) -> None:
        """Choose the section in a valley with the fewest choices per failure seen there, and list
        its choices.
        """
        height, lowest = node.height, node.lowest
        edges = np.flatnonzero(height[1:] != height[:-1]) + 1
        begins = np.concatenate(([0], edges))
        ends = np.concatenate((edges, [len(height)]))
        level = np.concatenate(([PLACED], height[begins], [PLACED]))
        valley = (level[1:-1] < level[:-2]) & (level[1:-1] < level[2:])
        fits = lowest[self.flat] == np.repeat(height, self.counts)
        options = np.add.reduceat(fits, self.begin, dtype=np.int64) + (node.slack > 0)
        usable = np.repeat(valley, ends - begins)
        node.section = section = int(np.where(usable, options / self.weight, np.inf).argmin())
        run = int(np.searchsorted(begins, section, "right")) - 1
        node.choices = self._choices(node, int(begins[run]), int(ends[run]), prefer)

    def _choices(
        self, node: _Node, begin: int, end: int, prefer: list[float]
    ) -> tuple[tuple[int, int], ...]:
        """The distinct intervals that fit at the bottom of the valley, best first, then the empty
        choice.
        """
        section, lowest = node.section, node.lowest
        bottom = int(node.height[section])
        covering = self.members[section]
        offsets = lowest[covering]
        fitting = covering[offsets == bottom].tolist()
        distinct = {(self.runs[i], self.sizes[i]): (i, bottom) for i in reversed(fitting)}
        choices = sorted(distinct.values(), key=lambda c: (-prefer[c[0]], c[0]))
        if node.slack[section] > 0:
            inside = (self.first < end) & (self.last > begin) & (lowest < PLACED)
            # What fills the gap's top is either standing already or will be an
            # interval of this valley.
            next_height = bottom + int(self.size[inside].min())
            above = offsets[(offsets > bottom) & (offsets < PLACED)]
            if len(above):
                next_height = min(next_height, int(above.min()))
            if next_height - bottom <= node.slack[section]:
                choices.append((-1, next_height))
        return tuple(choices)
