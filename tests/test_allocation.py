"""Memory allocation: validity, exactness on tiny problems, determinism, the MiniMalloc problems.
"""

from __future__ import annotations

import csv
import itertools
import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompiler.errors import CompilerBug, Limitation
from nncompiler.passes.memory.allocation import (
    Interval,
    Problem,
    Solution,
    allocate,
    live_bound,
    validate,
)
from nncompiler.passes.memory.picture import svg
from nncompiler.passes.memory.search import Skyline, sections

DATA = Path(__file__).parent / "data" / "minimalloc"
SMALL_BUDGET = 300


def problem(*rows: tuple[int, int, int], alignment: int = 1) -> Problem:
    """A problem from rows of (size, start, end)."""
    return Problem(tuple(Interval(f"t{k}", *row) for k, row in enumerate(rows)), alignment)


def random_problem(
    seed: int, count: int, horizon: int, largest: int, alignment: int = 1
) -> Problem:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        start, end = sorted((rng.randrange(horizon), rng.randrange(horizon)))
        rows.append((alignment * rng.randrange(largest), start, end))
    return problem(*rows, alignment=alignment)


def training_like(depth: int, seed: int = 0) -> Problem:
    """Activations live from a forward kernel to its mirror, gradients for two kernels."""
    rng = random.Random(seed)
    rows = []
    for k in range(depth):
        size = 64 * rng.randrange(1, 200)
        rows += [(size, k, 2 * depth - k), (size, 2 * depth - k - 1, 2 * depth - k + 1)]
    return problem(*rows, alignment=64)


def load(name: str) -> tuple[Problem, int]:
    (path,) = DATA.glob(f"{name}.*.csv")
    with path.open(newline="") as file:
        rows = [[int(row[k]) for k in ("size", "lower", "upper")] for row in csv.DictReader(file)]
    return problem(*((r[0], r[1], r[2]) for r in rows)), int(path.name.split(".")[1])


def conflict(a: Interval, b: Interval) -> bool:
    return max(a.start, b.start) < min(a.end, b.end) and a.size > 0 and b.size > 0


def overlapping(p: Problem, offsets: tuple[int, ...]) -> bool:
    """The definition itself, pair by pair: the check of the checker."""
    return any(
        conflict(a, b) and x < y + b.size and y < x + a.size
        for (a, x), (b, y) in itertools.combinations(zip(p.intervals, offsets, strict=True), 2)
    )


def brute_force(p: Problem) -> int:
    """The least peak: every offset for every interval, the capacity growing from the bound."""
    used = [i for i in p.intervals if i.size and i.start < i.end]

    def fits(k: int, placed: list[tuple[Interval, int]], capacity: int) -> bool:
        return k == len(used) or any(
            all(
                not conflict(used[k], other) or x >= y + other.size or y >= x + used[k].size
                for other, y in placed
            )
            and fits(k + 1, [*placed, (used[k], x)], capacity)
            for x in range(capacity - used[k].size + 1)
        )

    return next(c for c in itertools.count(live_bound(p)) if fits(0, [], c))


triples = st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(0, 8))
triples_to_rows = triples.map(lambda r: (r[0], r[1], r[1] + r[2]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(triples_to_rows, max_size=14), st.sampled_from([1, 8, 64]))
def test_no_two_live_intervals_overlap(raw: list[tuple[int, int, int]], alignment: int) -> None:
    """Any solution is valid, by the validator and by the definition, and not below the bound."""
    p = problem(*((size * alignment, a, b) for size, a, b in raw), alignment=alignment)
    s = allocate(p, SMALL_BUDGET)
    assert validate(p, s) == []
    assert not overlapping(p, s.offsets)
    assert s.peak >= live_bound(p)


@pytest.mark.parametrize("seed", range(30))
def test_larger_random_problems_are_valid(seed: int) -> None:
    """Sixty intervals, greedy and searched: valid, and the search is never worse than greedy."""
    p = random_problem(seed, 60, 50, 100, alignment=16)
    greedy, searched = allocate(p, 0), allocate(p, SMALL_BUDGET)
    assert validate(p, greedy) == validate(p, searched) == []
    assert not overlapping(p, searched.offsets)
    assert live_bound(p) <= searched.peak <= greedy.peak


@pytest.mark.parametrize("seed", range(40))
def test_tiny_problems_are_solved_exactly(seed: int) -> None:
    """Six intervals: the peak is the least of all arrangements."""
    p = random_problem(seed, 6, 7, 9)
    assert allocate(p, 2000).peak == brute_force(p)


@pytest.mark.parametrize(
    "rows",
    [
        (
            (1, 0, 1), (3, 0, 1), (2, 1, 2), (2, 0, 2), (2, 2, 3),
            (2, 2, 3), (3, 3, 4), (1, 0, 4), (2, 1, 5), (2, 4, 5),
            (1, 3, 6), (2, 4, 6), (3, 5, 6), (1, 5, 6),
        ),
        (
            (1, 0, 1), (3, 0, 1), (2, 1, 2), (2, 0, 2), (3, 2, 3),
            (1, 0, 3), (2, 3, 4), (2, 1, 4), (2, 3, 5), (1, 4, 5),
            (1, 2, 6), (3, 4, 6), (1, 5, 6), (2, 5, 6),
        ),
    ],
)
def test_exactness_where_the_bound_cannot_be_reached(
    rows: tuple[tuple[int, int, int], ...],
) -> None:
    """The optimum lies one unit above the bound: the search proves it and stops early."""
    p = problem(*rows)
    s = allocate(p, 3000)
    assert live_bound(p) == 7
    assert s.peak == brute_force(p) == 8


def test_empty_and_degenerate_problems() -> None:
    """No intervals, no bytes, no lifetime: a peak of 0."""
    for p in (problem(), problem((0, 0, 5), (0, 2, 3)), problem((8, 3, 3))):
        s = allocate(p)
        assert s.peak == live_bound(p) == 0
        assert validate(p, s) == []
        assert s.offsets == (0,) * len(p.intervals)


def test_live_bound() -> None:
    """Half-open ranges: what ends when another starts is not live with it."""
    assert live_bound(problem((10, 0, 2), (20, 2, 4), (5, 1, 3))) == 25
    assert live_bound(problem((7, 3, 3))) == 0


def test_components_share_the_memory() -> None:
    """Intervals between which nothing is live use the same bytes."""
    p = problem((10, 0, 3), (20, 1, 3), (30, 3, 6), (5, 7, 9), (25, 7, 9))
    s = allocate(p)
    assert s.peak == 30
    assert validate(p, s) == []


def test_huge_sizes() -> None:
    """What no machine can address is a limitation, not a wrap-around."""
    assert allocate(problem((1 << 90, 0, 2), (3 << 90, 1, 3))).peak == 1 << 92
    with pytest.raises(Limitation, match="NN0473"):
        allocate(problem((1 << 60, 0, 1), (1, 0, 1)))


@pytest.mark.parametrize(
    ("row", "alignment", "code"),
    [
        ((8, 0, 1), 0, "NN0470"),
        ((-8, 0, 1), 1, "NN0471"),
        ((12, 0, 1), 8, "NN0471"),
        ((8, 2, 1), 8, "NN0472"),
    ],
)
def test_broken_problems_are_refused(row: tuple[int, int, int], alignment: int, code: str) -> None:
    """Negative or unaligned sizes and reversed ranges are bugs of the caller."""
    with pytest.raises(CompilerBug, match=code):
        problem(row, alignment=alignment)


def test_validator_reports_each_kind_of_error() -> None:
    """Wrong length, overlap, alignment, negative offset, wrong peak."""
    p = problem((8, 0, 4), (8, 2, 6), alignment=8)
    assert validate(p, Solution((0, 8), 16, "")) == []
    assert validate(p, Solution((0,), 8, "")) == ["expected 2 offsets, but found 1"]
    assert validate(p, Solution((0, 0), 8, "")) == ["t0 and t1 overlap at offset 0, time 2"]
    assert "not a non-negative multiple of 8" in validate(p, Solution((0, 12), 20, ""))[0]
    assert "not a non-negative multiple of 8" in validate(p, Solution((-8, 0), 8, ""))[0]
    assert validate(p, Solution((0, 8), 24, "")) == ["expected a peak of 16, but found 24"]


@pytest.mark.parametrize("seed", range(60))
def test_validator_agrees_with_the_definition(seed: int) -> None:
    """On planted errors: one interval of a valid solution is moved to a random place."""
    rng = random.Random(seed)
    p = random_problem(seed, 25, 20, 50)
    offsets = list(allocate(p, 0).offsets)
    for _ in range(20):
        moved = offsets.copy()
        moved[rng.randrange(25)] = rng.randrange(300)
        pairs = zip(moved, p.intervals, strict=True)
        top = max(x + i.size for x, i in pairs if i.size and i.start < i.end)
        assert bool(validate(p, Solution(tuple(moved), top, ""))) == overlapping(p, tuple(moved))


def test_search_proves_infeasibility() -> None:
    """Below the bound at once; an exhausted search is a proof, a step limit is not."""
    sky = Skyline([(0, 2), (1, 3)], [2, 3])
    assert sky.search(4, 0, 100).exhausted
    found = sky.search(5, 0, 100)
    assert found.offsets is not None and sorted(found.offsets) in ([0, 2], [0, 3])
    assert not sky.search(5, 0, 1).exhausted


def test_sections_are_the_maximal_live_sets() -> None:
    """A start followed by a start opens no section of its own."""
    assert sections([(0, 4), (1, 2), (3, 5)]) == [(0, 2), (0, 1), (1, 2)]


def test_same_result_in_another_process() -> None:
    """Results do not depend on hash seeds or on what ran before."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_allocation as t;"
        "print(t.allocate(t.random_problem(5, 50, 40, 99), 500))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent.parent)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "77")
    }
    assert runs == {f"{allocate(random_problem(5, 50, 40, 99), 500)}\n"}


@pytest.mark.parametrize("depth", [10, 60, 150])
def test_training_like_problems_reach_the_bound_without_search(depth: int) -> None:
    """Forward and backward live ranges nest: greedy placement is optimal there."""
    p = training_like(depth)
    s = allocate(p, 0)
    assert s.peak == live_bound(p)
    assert s.strategy.startswith("greedy")


@pytest.mark.parametrize("name", "ABCDEFGHIJK")
def test_minimalloc_problems(name: str) -> None:
    """Within 10 % of the capacity that the problem asks for."""
    p, capacity = load(name)
    s = allocate(p, 40_000 if name == "K" else 20_000)
    assert validate(p, s) == []
    assert s.peak <= 1.10 * capacity


def test_svg_is_well_formed_and_complete() -> None:
    """One titled rectangle for each interval that occupies memory; names are escaped."""
    p = Problem((Interval("a<b>&", 64, 0, 3), Interval("c", 128, 1, 4), Interval("none", 0, 0, 1)))
    root = ET.fromstring(svg(p, allocate(p), title="plan"))
    titles = [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any(t.startswith("a<b>&") and "64" in t for t in titles)
    assert len([t for t in titles if "live" in t]) == 2
    assert ET.fromstring(svg(problem(), allocate(problem()))).tag.endswith("svg")
