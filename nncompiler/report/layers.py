"""Layered drawing of a directed acyclic graph: ranks downwards, few crossings, straight edges.

The method of Sugiyama: edges over several ranks are cut into pieces by bends, each rank is sorted
by the mean place of its neighbours, and places are the least squares of the lengths of edges under
that order. Sizes and places are in pixels; a graph is given by numbers of its boxes.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Sequence
from itertools import pairwise
from statistics import fmean

from nncompiler.record import dataclass

Point = tuple[float, float]

_GAP = 18.0  # between boxes of a rank
_BEND_GAP = 10.0  # beside a bend
_SWEEPS = 12
_STRAIGHT = 6.0  # how much more an edge between bends wants to be straight
_LATE = 0.1  # and how much less one of a late box
_PORT = 16.0  # between edges that arrive at one box


@dataclass(frozen=True, slots=True)
class Edge:
    """From box `tail`, at `out` beside its middle, to box `head`."""

    tail: int
    head: int
    out: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """The top left corner of every box, the points an edge goes through, and the whole size."""

    corners: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def place(
    sizes: Sequence[Point], edges: Sequence[Edge], late: Collection[int], gap: float
) -> Placed:
    """Places for boxes of these sizes, every edge downwards; `gap` is between ranks.

    Boxes come in an order in which edges go forward. Those that are `late` stand just above the
    first box that needs them, rather than at the top, and beside what is not.
    """
    ranks = _ranks(len(sizes), edges, late)
    net = _Net([w for w, _ in sizes], ranks, late)
    chains = [net.chain(e) for e in edges]
    net.sort()
    middles = net.middles()
    left = min((m - w / 2 for m, w in zip(middles, net.widths, strict=True)), default=0.0)
    right = max((m + w / 2 for m, w in zip(middles, net.widths, strict=True)), default=0.0)
    middles = [m - left for m in middles]
    bands = _bands(sizes, ranks, gap)
    into = _arrivals(edges, chains, middles, net.widths)
    routes = []
    for e, chain, shift in zip(edges, chains, into, strict=True):
        x, (top, bottom) = middles[e.tail] + e.out, bands[ranks[e.tail]]
        points = [(x, top + sizes[e.tail][1]), (x, bottom)]
        for k in chain[1:-1]:
            points += [(middles[k], y) for y in bands[net.ranks[k]]]
        points.append((middles[e.head] + shift, bands[ranks[e.head]][0]))
        routes.append(tuple(dict.fromkeys(points)))
    corners = tuple((middles[k] - w / 2, bands[ranks[k]][0]) for k, (w, _) in enumerate(sizes))
    return Placed(corners, tuple(routes), right - left, bands[-1][1] if bands else 0.0)


def _arrivals(
    edges: Sequence[Edge], chains: Sequence[Sequence[int]], middles: Sequence[float],
    widths: Sequence[float],
) -> list[float]:  # fmt: skip
    """Where edges arrive, beside the middle: at one point, or side by side if more than two."""
    found = [0.0] * len(edges)
    heads: dict[int, list[int]] = {}
    for k, e in enumerate(edges):
        heads.setdefault(e.head, []).append(k)
    for head, arriving in heads.items():
        if len(arriving) > 2:
            gap = min(_PORT, widths[head] / len(arriving))
            arriving.sort(key=lambda k: middles[chains[k][-2]])
            for place, k in enumerate(arriving):
                found[k] = (place - (len(arriving) - 1) / 2) * gap
    return found


def _ranks(count: int, edges: Sequence[Edge], late: Collection[int]) -> list[int]:
    """The longest path from above; then the late ones down to the first that needs them."""
    ranks = [0] * count
    for e in sorted(edges, key=lambda e: e.tail):
        ranks[e.head] = max(ranks[e.head], ranks[e.tail] + 1)
    below: dict[int, list[int]] = {}
    for e in edges:
        below.setdefault(e.tail, []).append(e.head)
    for k in reversed(range(count)):
        if k in late and k in below:
            ranks[k] = min(ranks[head] for head in below[k]) - 1
    return ranks


def _bands(
    sizes: Sequence[Point], ranks: Sequence[int], gap: float
) -> list[tuple[float, float]]:
    """Top and bottom of each rank."""
    deep = [0.0] * (max(ranks, default=-1) + 1)
    for (_, h), r in zip(sizes, ranks, strict=True):
        deep[r] = max(deep[r], h)
    bands, y = [], 0.0
    for h in deep:
        bands.append((y, y + h))
        y += h + gap
    return bands


class _Net:
    """Boxes and bends by rank, in the order in which they stand."""

    def __init__(self, widths: list[float], ranks: list[int], late: Collection[int]) -> None:
        self.widths, self.ranks, self.boxes, self.late = widths, list(ranks), len(widths), late
        self.up: list[list[int]] = [[] for _ in widths]
        self.down: list[list[int]] = [[] for _ in widths]
        self.rows: list[list[int]] = [[] for _ in range(max(ranks, default=-1) + 1)]
        for k, r in enumerate(ranks):
            self.rows[r].append(k)

    def chain(self, e: Edge) -> list[int]:
        """The boxes and bends that an edge goes through; new bends are made."""
        found = [e.tail]
        for rank in range(self.ranks[e.tail] + 1, self.ranks[e.head]):
            bend = len(self.widths)
            self.widths.append(0.0)
            self.ranks.append(rank)
            self.up.append([])
            self.down.append([])
            self.rows[rank].append(bend)
            found.append(bend)
        found.append(e.head)
        for a, b in pairwise(found):
            self.down[a].append(b)
            self.up[b].append(a)
        return found

    def sort(self) -> None:
        """Sweeps down and up; the order with the fewest crossings is kept."""
        best, fewest = [list(row) for row in self.rows], self.crossings()
        where = [0.0] * len(self.widths)
        for sweep in range(_SWEEPS):
            downwards = sweep % 2 == 0
            near = self.up if downwards else self.down
            for row in self.rows if downwards else reversed(self.rows):
                for v, place in zip(row, self._packed(row), strict=True):
                    where[v] = fmean(where[u] for u in near[v]) if near[v] else place
                row.sort(key=where.__getitem__)
                for v, place in zip(row, self._packed(row), strict=True):
                    where[v] = place
            found = self.crossings()
            if found < fewest:
                best, fewest = [list(row) for row in self.rows], found
        self.rows = best

    def crossings(self) -> int:
        place = {v: k for row in self.rows for k, v in enumerate(row)}
        count = 0
        for row in self.rows:
            seen: list[int] = []
            for a in row:
                ends = [place[b] for b in self.down[a]]
                count += sum(len(seen) - bisect_right(seen, end) for end in ends)
                for end in ends:
                    insort(seen, end)
        return count

    def middles(self) -> list[float]:
        """Places in the order found: each rank in turn nearest to its neighbours."""
        x = [0.0] * len(self.widths)
        for row in self.rows:
            for v, place in zip(row, self._packed(row), strict=True):
                x[v] = place
        for sweep in range(4 * _SWEEPS):
            down, both = sweep % 2 == 0, sweep >= _SWEEPS
            for row in self.rows if down else reversed(self.rows):
                wanted, weights = [], []
                for v in row:
                    above, below = self.up[v] * (down or both), self.down[v] * (both or not down)
                    pulls = [(x[u], self._pull(u, v)) for u in above]
                    pulls += [(x[u], self._pull(v, u)) for u in below]
                    total = sum(w for _, w in pulls)
                    wanted.append(sum(p * w for p, w in pulls) / total if total else x[v])
                    weights.append(total or _LATE)
                for v, place in zip(row, self._apart(row, wanted, weights), strict=True):
                    x[v] = place
        return x

    def _pull(self, tail: int, head: int) -> float:
        if tail >= self.boxes and head >= self.boxes:
            return _STRAIGHT
        return _LATE if tail in self.late else 1.0

    def _distance(self, a: int, b: int) -> float:
        gap = _GAP if a < self.boxes and b < self.boxes else _BEND_GAP
        return (self.widths[a] + self.widths[b]) / 2 + gap

    def _packed(self, row: Sequence[int]) -> list[float]:
        """As near to each other as they may be, around 0."""
        places = [0.0]
        for a, b in pairwise(row):
            places.append(places[-1] + self._distance(a, b))
        return [p - places[-1] / 2 for p in places[: len(row)]]

    def _apart(
        self, row: Sequence[int], wanted: Sequence[float], weights: Sequence[float]
    ) -> list[float]:
        """The places nearest to the wanted ones, by least squares, that keep order and distance.

        Less the distances, places must not fall: neighbours that would are pooled at their mean.
        """
        packed = self._packed(row)
        pools: list[tuple[float, float, int]] = []  # mean, weight, how many
        for goal, own, weight in zip(wanted, packed, weights, strict=True):
            mean, count = goal - own, 1
            while pools and pools[-1][0] > mean:
                before, mass, many = pools.pop()
                mean = (before * mass + mean * weight) / (mass + weight)
                weight, count = mass + weight, count + many
            pools.append((mean, weight, count))
        shifts = [mean for mean, _, count in pools for _ in range(count)]
        return [own + shift for own, shift in zip(packed, shifts, strict=True)]
