"""The benchmark's harness: agreement, ratios, order of rows, targets, and workers end to end."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from nncompiler.driver import Compilation, Options, read_source
from nncompiler.errors import Source
from nncompiler.report import accounts

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The harness is a script's folder, not a package of the project."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    own = ("harness", "workloads", "contraction")
    for name in [n for n in sys.modules if n.split(".")[0] in own]:
        del sys.modules[name]


@pytest.mark.parametrize(("script", "words", "message"), [
    ("run", "--model nosuch", "expected one of"), ("run", "--threads 0", "expected one of"),
    ("compile_time", "--model nosuch", "expected one of"),
    ("compile_time", "--rounds 0", "expected an integer from 1"),
    ("startup", "--model mlp,", "expected one of"),
    ("startup", "--rounds x", "expected an integer from 1"),
    ("overhead", "--rounds -1", "expected an integer from 1"),
    ("contraction", "--threads 0", "invalid choice"),
    ("scaling", "--threads 999", "invalid choice"),
])  # fmt: skip
def test_wrong_options_are_told(script: str, words: str, message: str) -> None:
    """Before anything is measured, in a line, with the exit code for usage."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}.py", *words.split()], cwd=ROOT,
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_kernels_between_meetings_belong_together() -> None:
    """A barrier before a loop is one before its first kernel, in its first round only: there a
    later round goes on with what the one before ended with.
    """
    from contraction import stretches

    from nncompiler.ir.kernel import Kernel, Loop

    one, met = Kernel("k", ()), Kernel("k", (), barrier=True)
    assert stretches((one, Loop("t", 2, (met, one, met)), one, met)) == [0, 1, 1, 2, 2, 3]
    assert stretches((one, Loop("t", 2, (one, met, one)), one, met)) == [0, 0, 0, 0, 0, 2]
    inside = Loop("u", 2, (one, met), barrier=True)
    assert stretches((one, Loop("t", 2, (inside, met, one)), met)) == [0, 1, 1, 3, 3, 4]


def test_calls_with_a_late_thread_say_nothing_of_kernels() -> None:
    """In one the first kernel took long and the others did the second meanwhile."""
    import numpy as np

    from nncompiler.cli.profile import undisturbed

    calls = np.full((40, 2), 2.0)
    calls[7] = 9.0, 0.001
    calls[[3, 30]] = (1.0, 1.5), (1.0, 1.3)
    assert undisturbed(calls).tolist() == [1.0, 1.4]


def result(seconds: dict[str, list[float]], model: str = "mlp", kind: str = "train") -> Any:
    """A case with the seconds of each contestant, such as 'jax@2', round by round."""
    from harness.measure import Limit, Result
    from harness.workload import Case

    found = Result(Case(model, kind, 4), 2_000_000, 1000)
    found.limits = {1: Limit(1e11, 1e10), 2: Limit(2e11, 2e10)}
    for name, times in seconds.items():
        contestant = name.partition("@")[0], int(name.partition("@")[2])
        found.seconds[contestant] = times
        found.calls[contestant], found.notes[contestant] = 1, ""
    return found


def report(*results: Any, threads: tuple[int, ...] = (1,)) -> Any:
    """A report of these results."""
    from harness.measure import LEVELS
    from harness.report import Report

    memory = {n: dict.fromkeys(LEVELS, 1e10) for n in threads}
    return Report(results, memory, {}, {}, ("torch", "jax"), False)


def test_agreement() -> None:
    """What differs by more than rounding, or is not a number, is refused."""
    from harness.measure import agree
    from harness.pool import WorkerFailed

    agree([1.0, 2.0], [1.0, 2.00001], 1e-4)
    agree([[[0.5, 0.5]]], [[[0.5, 0.5]]], 1e-4)
    with pytest.raises(WorkerFailed, match=r"value 2 is 2\.001, ours 2"):
        agree([1.0, 2.001], [1.0, 2.0], 1e-4)
    agree([1.0, 2.001], [1.0, 2.0], 1e-3)
    agree([1.0, 2.0, 3.003], [1.0, 2.0, 3.0], 1e-4, growth=4)
    with pytest.raises(WorkerFailed, match="value 2 is 2.001"):
        agree([1.0, 2.001, 3.003], [1.0, 2.0, 3.0], 1e-4, growth=4)
    with pytest.raises(WorkerFailed, match="does not agree"):
        agree([float("nan")], [1.0], 1e-4)
    with pytest.raises(WorkerFailed, match="computes 1 values where ours computes 2"):
        agree([1.0], [1.0, 2.0], 1e-4)


def test_ratios_are_paired() -> None:
    """A ratio is formed within a round: a machine that slows down changes none."""
    row = result({"ours@1": [1.0, 2.0, 8.0], "jax@1": [3.0, 6.0, 24.0]}).row(1)
    assert row.ratio(("jax", 1)).median == row.ratio(("jax", 1)).high == 3
    assert row.ours.median == 2 and not row.lost


def test_peers_count_with_their_better_number_of_threads() -> None:
    """With two threads, a peer that is faster with one counts with that; with one it must not use
    two."""
    times = {"ours@1": [2.0], "ours@2": [1.0], "torch@1": [3.0], "torch@2": [5.0]}
    found = result(times | {"jax@1": [9.0], "jax@2": [4.0]})
    assert found.row(2).best("torch") == ("torch", 1) and found.row(2).best("jax") == ("jax", 2)
    assert found.row(2).fastest() == ("torch", 1) and found.row(2).speedup.median == 3
    assert found.row(1).fastest() == ("torch", 1) and found.row(1).speedup.median == 1.5
    assert found.row(1).best("jax") == ("jax", 1)


def test_lost_rows_come_first() -> None:
    """Then those below their target, unless they are near the machine's limit."""
    won = result({"ours@1": [1e-3], "torch@1": [3e-3], "jax@1": [2e-3]})
    lost = result({"ours@1": [1e-3], "torch@1": [3e-3], "jax@1": [0.9e-3]}, "gpt")
    below = result({"ours@1": [1e-3], "jax@1": [1.1e-3]}, "lenet")
    near = result({"ours@1": [22e-6], "jax@1": [23e-6]}, "resnet20")
    failed = result({}, "tiny")
    rows = report(won, below, near, lost, failed).rows
    assert [r.result.case.workload for r in rows] == ["gpt", "tiny", "lenet", "mlp", "resnet20"]
    assert [r.lost for r in rows] == [True, True, False, False, False]
    assert near.row(1).roofline == pytest.approx(20 / 22)
    alone = result({"ours@1": [1.0]}, "gpt", "infer")
    assert [r.result.case.workload for r in report(alone, below).rows] == ["lenet", "gpt"]


def test_geometric_means() -> None:
    """Of the training rows 2 and 8 it is 4; a row without a ratio leaves none."""
    from harness.report import means

    rows = [result({"ours@1": [1.0], "jax@1": [r]}) for r in (2.0, 8.0)]
    assert list(means(report(*rows))) == [("train", 1, pytest.approx(4.0), 2.0)]
    assert list(means(report(*rows, result({})))) == [("train", 1, None, 2.0)]


def test_every_case_has_a_target() -> None:
    """The targets name cases that exist, and inference of any workload has one."""
    from harness.implementation import KINDS
    from harness.targets import CASES, target
    from harness.workload import cases, names

    every = cases(names(), KINDS)
    assert {(c.workload, c.kind) for c in every} >= set(CASES)
    for case in every:
        assert target(result({}, case.workload, case.kind).row(2)) > 0
    assert target(result({}, "lenet").row(2)) == 5.0
    assert target(result({}, "mlp", "infer").row(1)) == 1.0


def test_table() -> None:
    """The ratio is to the fastest peer; the limit is the longer of contractions and bytes."""
    from harness.report import as_json, as_markdown

    times = {"ours@1": [100e-6], "torch@1": [3e-3], "jax@1": [90e-6], "jax@2": [50e-6]}
    found = report(result(times))
    text = as_markdown(found)
    row = next(line for line in text.splitlines() if "mlp, train, 4" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "**mlp, train, 4** (slower)"
    assert cells[1:5] == ["1", "100", "3000", "90"]
    assert cells[5:] == ["0.90 (0.90–0.90)", "1.15", "20", "20"]
    assert "| training | 1 | 0.90 | 2.0 |" in text
    (record,) = json.loads(as_json(found))["rows"]
    assert record["fastest_peer"] == "jax@1" and record["lost"] and not record["met"]
    assert set(record["timings"]) == {"ours@1", "torch@1", "jax@1"}


def test_two_threads_show_which_figure_counts() -> None:
    """A figure taken with two threads is marked."""
    from harness.report import as_markdown

    times = {"ours@1": [2e-4], "ours@2": [1e-4], "jax@1": [4e-4], "jax@2": [3e-4]}
    text = as_markdown(report(result(times), threads=(1, 2)))
    assert "| mlp, train, 4 | 2 | 100 | – | 300² | 3.00" in text
    assert "| mlp, train, 4 | 1 | 200 | – | 400 | 2.00" in text


def test_chart_is_xml() -> None:
    """The chart has a bar for every timing of a row, and one line at the limit."""
    from harness.chart import bars

    times = {"ours@1": [1e-3], "torch@1": [3e-3], "jax@1": [2e-3]}
    text = bars(report(result(times), result({})))
    tree = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert len(tree.findall(f"{space}rect[@rx]")) == 3
    assert len(tree.findall(f"{space}line")) == 1


@pytest.mark.parametrize("name", ["mlp", "autoencoder", "lenet", "char_lstm", "gpt"])
def test_operations_are_those_of_the_graph(name: str) -> None:
    """The multiply-adds by formula are those of our contractions in inference; a training step has
    a little more where it sums gradients of a table, or pads, by contraction, and less where it
    multiplies a table instead of the rows gathered from it. Of LeNet, the last rows and columns of
    convolutions that no window of the pooling reads are left out.
    """
    from harness.workload import find

    infer = {"lenet": 0.89855}.get(name, 1.0)
    below = {"char_lstm": 0.81, "lenet": 0.95}.get(name, 1.0)
    workload = find(name)
    for kind, batch in workload.cases:
        function = {"train": "train_step", "infer": "infer"}[kind]
        source = read_source(ROOT / workload.path)
        c = Compilation(source, {"batch": batch}, Options(functions=("init", function)))
        (profile,) = accounts.analyse(c, (function,)).profiles
        total = profile.total.forward + profile.total.backward
        share = 2 * total.multiply_adds / workload.flops(kind, batch)
        if kind == "infer":
            assert share == pytest.approx(infer, abs=1e-5)
        else:
            assert below <= share < 1.07


def test_contractions_have_kernels_of_their_own() -> None:
    """Each form of the table is found by the elements of its result, on the line that asks."""
    contraction = importlib.import_module("contraction")
    plans: dict[str, list[int]] = {}
    for form in contraction.forms():
        if form.text not in plans:
            c = contraction.compiled(Source("form.nn", form.text), {}, "grad")
            (profile,) = accounts.analyse(c, ("grad",)).profiles
            line = form.text.splitlines().index(form.line) + 1
            kernels = zip(profile.kernels, c.plans["grad"].kernels(), strict=True)
            plans[form.text] = [
                contraction.points(kernel) for cost, kernel in kernels
                if line in cost.lines and cost.work.multiply_adds
            ]  # fmt: skip
        assert form.points in plans[form.text], form.title
        plans[form.text].remove(form.points)
    assert len(plans) == 7


def test_workers_take_turns(tmp_path: Path) -> None:
    """A step and a native loop of steps agree with themselves and get times, in processes."""
    from harness.measure import LEVELS, Settings, measure
    from harness.pool import Pool
    from harness.workload import LOOP_STEPS, Case, names

    assert names()[0] == "tiny" and "resnet20" in names()
    memory = {1: dict.fromkeys(LEVELS, 1e10)}
    settings = Settings(turn=0.001, rounds=2, seconds=1, least=2)
    found = {}
    with Pool([min(os.sched_getaffinity(0))]) as pool:
        for kind in ("train", "loop"):
            case = Case("tiny", kind, 4)
            found[kind] = measure(pool, case, [("ours", 1)], memory, tmp_path, settings, print)
    for kind, one in found.items():
        assert one.failures == {} and len(one.seconds["ours", 1]) == 2, kind
        assert one.limits[1].peak > 1e8 and one.row(1).limit > 0
    assert found["loop"].flops == LOOP_STEPS * found["train"].flops
    # of the better round each: a turn as short as that may wait for the core longer than it takes
    best = {kind: min(one.seconds["ours", 1]) for kind, one in found.items()}
    assert best["loop"] > 100 * best["train"]


def test_a_peer_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failure is told, and the rest of the row is measured."""
    from harness import pool
    from harness.measure import LEVELS, Settings, measure
    from harness.workload import Case

    monkeypatch.setattr(pool, "PEERS", Path("/bin/false"))
    settings = Settings(turn=0.001, rounds=2, seconds=1, least=2)
    memory = {1: dict.fromkeys(LEVELS, 1e10)}
    names = [("ours", 1), ("torch", 1), ("ort", 1)]
    with pool.Pool([min(os.sched_getaffinity(0))]) as workers:
        case = Case("tiny", "infer", 1)
        found = measure(workers, case, names, memory, tmp_path, settings, print)
    assert list(found.failures) == [("torch", 1), ("ort", 1)]
    assert found.failures["torch", 1].startswith("the process ended with code 1")
    assert list(found.seconds) == [("ours", 1)] and not found.row(1).lost


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
