"""The benchmark's harness: agreement, ratios, order of rows, probes, and workers end to end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The harness is a script's folder, not a package of the project."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("harness", "workloads")]:
        del sys.modules[name]


def report(**seconds: dict[str, float]) -> Any:
    """A report of rows by model, each with the seconds of its implementations."""
    from harness.measure import Result, Summary, Timing
    from harness.report import Report
    from harness.workload import Row

    results = []
    for model, times in seconds.items():
        result = Result(Row(model, "train", 4, 1), 2_000_000, 1000, 1e10, peak=1e11)
        for name, time in times.items():
            ratio = time / times["ours"]
            exact = Summary(time, time, time), Summary(ratio, ratio, ratio)
            result.timings[name] = Timing(*exact, 1, "")
        results.append(result)
    return Report(results, {}, {}, {}, ("torch", "jax"), False)


def test_agreement() -> None:
    """What differs by more than rounding, or is not a number, is refused."""
    from harness.measure import agree
    from harness.pool import WorkerFailed

    agree([1.0, 2.0], [1.0, 2.00001])
    agree([[[0.5, 0.5]]], [[[0.5, 0.5]]])
    with pytest.raises(WorkerFailed, match=r"value 2 is 2\.001, ours 2"):
        agree([1.0, 2.001], [1.0, 2.0])
    with pytest.raises(WorkerFailed, match="does not agree"):
        agree([float("nan")], [1.0])
    with pytest.raises(WorkerFailed, match="computes 1 values where ours computes 2"):
        agree([1.0], [1.0, 2.0])


def test_lost_and_won() -> None:
    """A row is lost to the fastest peer, and where ours has no figure."""
    rows = report(
        won={"ours": 1e-3, "torch": 3e-3, "jax": 2e-3},
        lost={"ours": 1e-3, "torch": 3e-3, "jax": 0.9e-3},
        alone={"ours": 1e-3}, failed={},
    )  # fmt: skip
    found = [(r.fastest(rows.peers), r.loses(rows.peers)) for r in rows.results]
    assert found == [("jax", False), ("jax", True), (None, False), (None, True)]


def test_table() -> None:
    """The ratio is to the fastest peer; the limit is the longer of contractions and bytes."""
    from harness.report import as_markdown

    times = {"ours": 100e-6, "checked": 101e-6, "torch": 3e-3, "jax": 90e-6}
    text = as_markdown(report(model=times))
    row = next(line for line in text.splitlines() if "model, train, 4" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "**model, train, 4** (slower)"
    assert cells[2:6] == ["100", "101", "3000", "90"]
    assert cells[6:] == ["0.90 (0.90–0.90)", "20", "20"]


def test_chart_is_xml() -> None:
    """The chart has a bar for every timing but the checked call, and one line at the limit."""
    from harness.chart import bars

    text = bars(report(model={"ours": 1e-3, "checked": 2e-3, "torch": 3e-3, "jax": 2e-3}, none={}))
    tree = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert len(tree.findall(f"{space}rect[@rx]")) == 3
    assert len(tree.findall(f"{space}line")) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_probes_do_what_they_say(threads: int) -> None:
    """Multiply-adds arrive at the fixed point of x/2 + 1/2; the work grows with the threads."""
    from harness.limits import Limits

    limits = Limits(threads)
    work = limits.probe("fma")
    limits.call()
    assert work > 1e6 * threads
    assert all(array[: 8 * limits.lanes].min() > 0.999 for array in limits.arrays)
    assert limits.probe("read", 1 << 14) == threads * (32 << 20)
    limits.call()


def test_workers_take_turns(tmp_path: Path) -> None:
    """Both ways to call the compiled model agree and get a time, in processes of their own."""
    from harness.measure import Settings, measure
    from harness.pool import Pool
    from harness.workload import Row, names

    assert {"mlp", "tiny"} <= set(names())
    memory = {1 << 28: 1e10}
    with Pool([min(os.sched_getaffinity(0))]) as pool:
        settings = Settings(turn=0.001, rounds=2)
        row = Row("tiny", "train", 4, 1)
        result = measure(pool, row, ["ours", "checked"], memory, tmp_path, settings, print)
    assert result.failures == {}
    assert result.timings["ours"].ratio.median == 1
    assert result.timings["checked"].seconds.median > 0
    assert result.peak > 1e8 and result.limit > 0


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """An error in a worker is one line; a process that has ended is started anew."""
    from harness.pool import Pool, WorkerFailed

    with Pool([min(os.sched_getaffinity(0))]) as pool:
        worker = pool.get("limits", 1)
        with pytest.raises(WorkerFailed, match="AttributeError"):
            worker.ask("nonsense")
        assert pool.get("limits", 1) is worker
        worker.process.kill()
        with pytest.raises(WorkerFailed, match="the process ended with code -9"):
            worker.ask("versions")
        assert "LLVM" in pool.get("limits", 1).ask("versions")
