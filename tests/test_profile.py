"""`nnc profile` and `nnc bench`: built-in clocks, rooflines, and what a scan's kernels cost."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from nncompiler.cli import main
from nncompiler.cli.limits import FMA_STEPS, LEVELS, LONGER, Limits
from nncompiler.cli.profile import prepared, profile
from nncompiler.codegen.module.program import lower
from nncompiler.codegen.target import host
from nncompiler.driver import Compilation, Options, build_artifact, read_source
from nncompiler.driver.artifact import program
from nncompiler.errors import Source
from nncompiler.report import accounts, timing
from nncompiler.report.cost import KernelCost, Profile, Work
from nncompiler.runtime.artifact import open_artifact
from nncompiler.runtime.model import Model

SCAN = """\
model running(T = 6) {
    input  x : f32[batch, T, 5]
    target t : f32[batch, T, 4]
    hs = x |> lstm(4) as cell
    output hs
    loss mse(hs, t)
}

train {
    optimizer = sgd(lr = 0.1)
    batch = 3
}
"""
TINY = Path(__file__).resolve().parents[1] / "models" / "tiny.nn"


def _compilation(function, text=SCAN):
    return Compilation(Source("running.nn", text), {}, Options(functions=("init", function)))


def test_scan_is_charged_for_every_round():
    """The products of an LSTM are those of all its steps, and lines add up to kernels."""
    report = accounts.analyse(_compilation("infer"))
    (found,) = report.profiles
    product = next(k for k in found.kernels if k.calls == 6 and k.work.multiply_adds)
    assert product.work.multiply_adds == 6 * 3 * 4 * 16
    assert found.total.forward.multiply_adds == 6 * 3 * (5 * 16 + 4 * 16)
    assert found.total.forward == sum((k.work for k in found.kernels), Work())
    assert found.total.backward == Work()


def test_scan_in_training_is_forward_and_backward():
    """Forward work of a training step is that of the loss; the backward loop is not among it."""
    loss = accounts.analyse(_compilation("loss")).profiles[0].total
    step = accounts.analyse(_compilation("train_step")).profiles[0].total
    assert step.forward.multiply_adds == loss.forward.multiply_adds == 6 * 3 * (5 * 16 + 4 * 16)
    assert step.backward.multiply_adds == 6 * 3 * (5 * 16 + 2 * 4 * 16)


def test_kernel_times_add_up():
    """Every kernel of the plan has a time; together they are most of a call, and not more."""
    c = _compilation("train_step")
    found = profile(c, "train_step", 0.05, 1)
    plan = c.plans["train_step"]
    assert [k.cost.name for k in found.kernels] == [k.name for k in plan.kernels()]
    assert {k.cost.calls for k in found.kernels} == {1, 6}
    assert all(0 < k.fastest <= k.median for k in found.kernels)
    assert found.fastest >= 0.99 * sum(k.fastest for k in found.kernels)
    model = Model(open_artifact(build_artifact([c], timed=True).so))
    call, fastest = prepared(model, c, "train_step"), float("inf")
    for _ in range(200):
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    assert 0.1 * fastest < found.fastest < 2 * fastest


def test_waiting_counts_to_the_kernel_before():
    """Whenever workers have met, worker 0 looks at its clock."""
    path = TINY.with_name("digits_mlp.nn")
    options = Options(functions=("init", "train_step"))
    whole = program([Compilation(read_source(path), {"batch": 32}, options)])
    parts = [lower(whole, host(), timed=timed).parts["entries"] for timed in (False, True)]
    met = r"call void @nn.meet\(ptr %me\)\n"
    read = met + r".*load i64, ptr %me.*\n.*icmp eq i64 .*, 0\n.*br .*\n.*:\n  call void @nn.met\("
    assert len(re.findall(met, parts[1])) == len(re.findall(read, parts[1])) > 3
    assert "@nn.met" not in parts[0]


def test_clocks_change_no_bit():
    """A step with clocks built in leaves the state that a step without them leaves."""
    c = _compilation("train_step")
    states = []
    for timed in (False, True):
        model = Model(open_artifact(build_artifact([c], timed=timed).so))
        call = prepared(model, c, "train_step")
        model.init(3)
        for _ in range(4):
            call()
        states.append(model.state_dict())
    assert all(np.array_equal(states[0][n], states[1][n]) for n in states[0])
    assert not np.array_equal(states[1]["cell.b"], np.zeros(16, np.float32))


def test_rate_is_zero_while_timing():
    """The parameters stay as they were, so that every round does the same work."""
    c = _compilation("train_step")
    model = Model(open_artifact(build_artifact([c], timed=True).so))
    before = model.state_dict()
    call = prepared(model, c, "train_step")
    for _ in range(10):
        call()
    assert model.step == 10
    assert all(np.array_equal(before[n], a) for n, a in model.state_dict().items())


def test_roofline_by_hand():
    """The longer of multiply-adds at the peak and bytes at the bandwidth of the level they fit."""
    machine = timing.Machine(1e9, {1000: 1e9, 10**6: 1e8})
    assert machine.limit(Work(multiply_adds=500)) == 1e-6
    assert machine.limit(Work(read=800, written=200)) == 1e-6
    assert machine.limit(Work(read=2000)) == 2e-5
    assert machine.limit(Work(read=2000), calls=2) == 2e-6
    assert machine.limit(Work(read=10**7)) == 0.1
    assert machine.limit(Work(read=900), far=500, touched=2000) == 4e-7 + 5e-6
    assert machine.limit(Work(read=900), far=500, touched=1000) == 9e-7
    cost = KernelCost("k0", (1,), ("add",), "", "loops", Work(500, 0, 100, 0))
    (kernel,) = timing.timed(Profile("f", (), (cost,)), machine, [4e-6], [2e-6])
    assert (kernel.flop_rate, kernel.byte_rate, kernel.roofline) == (2.5e8, 2.5e7, 0.5)


@pytest.mark.parametrize("threads", [1, 2])
def test_probes_do_what_they_say(threads):
    """Multiply-adds arrive at the fixed point of x/2 + 1/2; the work grows with the threads."""
    limits = Limits(threads)
    call, work = limits.fma()
    call()
    steps = FMA_STEPS * (LONGER if threads > 1 else 1)
    assert work == pytest.approx(2 * limits.lanes * steps * threads, rel=1e-3)
    assert len(limits.values()) == threads and min(limits.values()) == 0.5
    call()
    assert all(array.view("float32")[0] > 0.999 for array in limits._arrays)
    call, work = limits.read(1 << 14)
    call()
    assert work == threads * (8 << 20) * (LONGER if threads > 1 else 1)


def test_machine_has_a_speed_for_every_level():
    """All rates are plausible for any processor: above 10 MFLOP/s and 10 MB/s."""
    found = Limits().machine(rounds=1)
    assert tuple(found.bandwidth) == LEVELS and found.threads == 1
    assert found.peak > 1e7 and min(found.bandwidth.values()) > 1e7


def test_command_line(capsys):
    """A row for each kernel, slowest first, with its source line; JSON has the same."""
    assert main(["profile", str(TINY), "--seconds", "0.01"]) == 0
    text = capsys.readouterr().out
    assert "tiny.train_step, batch 4, 1 thread" in text and "6: h1 = x |> dense(3)" in text
    assert main(["profile", str(TINY), "--seconds", "0.01", "--function", "infer", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["function"] == "infer" and found["rounds"] >= 10
    medians = [k["median"] for k in found["kernels"]]
    assert medians == sorted(medians, reverse=True)
    assert sum(k["share"] for k in found["kernels"]) == pytest.approx(1, abs=0.2)
    assert {k["multiply_adds"] for k in found["kernels"]} == {4 * 2 * 3, 4 * 3 * 2, 4 * 2}


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["--function", "fly"], 2, "NN0914"),
        (["--function", "init,infer"], 2, "NN0916"),
        (["--seconds", "0"], 2, "NN0904"),
        (["--threads", "0"], 2, "NN0904"),
    ],
)
def test_wrong_command_lines(capsys, words, code, error):
    """What cannot be is refused before anything is compiled."""
    assert main(["profile", str(TINY), *words]) == code
    assert error in capsys.readouterr().err


def test_every_function_can_be_profiled():
    """Also those without data (init) and those that take gradients (apply)."""
    c = Compilation(Source("running.nn", SCAN), {}, Options())
    for function in c.available():
        one = _compilation(function)
        found = profile(one, function, 0.001, 1)
        assert found.function == function and found.kernels and found.median > 0


def test_bench_times_every_function(capsys):
    """A row for each function, each with median between the fastest and the upper quartile."""
    assert main(["bench", str(TINY), "--seconds", "0.001", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["functions"]
    names = ["init", "infer", "loss", "grad", "train_step", "apply"]
    assert [t["function"] for t in found] == names
    for t in found:
        assert 0 < t["fastest"] <= t["low"] <= t["median"] <= t["high"]
        assert t["per_second"] == pytest.approx(1 / t["median"]) and t["calls"] >= 10
    assert main(["bench", str(TINY), "--seconds", "0.001", "--function", "infer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("infer ")


def test_bench_measures_what_it_calls():
    """A call that sleeps a millisecond is measured as one that takes about that."""
    from nncompiler.cli.bench import measure

    found = measure("f", 3, lambda: time.sleep(1e-3), 0.01)
    assert 1e-3 <= found.fastest <= found.median < 0.1
    assert found.rows == 3


@pytest.mark.parametrize("verb", ["bench", "profile", "report"])
def test_function_that_is_there_where_it_is_named(verb, capsys):
    """`input_grad` is left out of a model otherwise."""
    seconds = [] if verb == "report" else ["--seconds", "0.001"]
    assert main([verb, str(TINY), "--function", "input_grad", *seconds]) == 0
    assert "input_grad" in capsys.readouterr().out


def test_bench_refuses_unknown_functions(capsys):
    """As `nnc report` does."""
    assert main(["bench", str(TINY), "--function", "infer,fly"]) == 2
    assert "NN0914" in capsys.readouterr().err
