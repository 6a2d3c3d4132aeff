"""`nncompiler.report` and `nnc report`: figures worked out by hand, and sums that must agree."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nncompiler.cli import main
from nncompiler.driver import Compilation, Options
from nncompiler.errors import Source
from nncompiler.ir.text import parse_plan
from nncompiler.passes.memory.allocation import live_bound, validate
from nncompiler.report import accounts, cost, picture, text
from nncompiler.report.cost import NOWHERE, Work
from nncompiler.report.traffic import traffic
from tests.networks import mlp

MODEL = """\
model two {
    input  x : f32[batch, 7]
    target t : f32[batch, 3]

    h = x |> dense(6) |> relu
    y = h |> dense(3)

    output y
    loss mse(y, t)
}

train {
    optimizer = sgd(lr = 0.1, momentum = 0.9)
    batch = 5
}
"""
H, Y, LOSS = 5, 6, 9


def _analyse(functions=None, source=MODEL, **sizes):
    return accounts.analyse(Compilation(Source("two.nn", source), sizes), functions)


@pytest.fixture(scope="module")
def report():
    """The report on MODEL, every function in detail."""
    return _analyse(("init", "infer", "loss", "grad", "train_step", "apply"))


def _function(report, name):
    return next(f for f in report.functions if f.name == name)


def _lines(report, function):
    profile = next(p for p in report.profiles if p.function == function)
    return {x.line: x for x in profile.lines}


def test_what_is_read_once_in_a_call(report):
    """Weights and input are far: all else is touched before the next call reads them."""
    x, h, y, first, second = 5 * 7, 5 * 6, 5 * 3, 7 * 6 + 6, 6 * 3 + 3
    infer = next(p for p in report.profiles if p.function == "infer")
    assert infer.touched == 4 * (x + h + y + first + second)
    assert [k.far for k in infer.kernels] == [4 * (x + first), 4 * second]
    step = next(p for p in report.profiles if p.function == "train_step")
    assert sum(k.far for k in step.kernels) < sum(k.far for k in infer.kernels)  # read twice


def test_hand_built_network():
    """5 rows through 7-6-4-3: 91 parameters, 390 multiply-adds forward, 390 + 180 backward."""
    options = Options(functions=("grad", "train_step", "apply"))
    compilation = Compilation(Source("mlp.nn", ""), {}, options)
    compilation.network = mlp()
    found = accounts.analyse(compilation)
    total = found.profiles[0].total
    assert found.parameters == total.parameters == 7 * 6 + 6 + 6 * 4 + 4 + 4 * 3 + 3 == 91
    assert total.forward.multiply_adds == 5 * (7 * 6 + 6 * 4 + 4 * 3) == 390
    assert total.backward.multiply_adds == 390 + 5 * (6 * 4 + 4 * 3)
    assert _function(found, "train_step").work.multiply_adds == 960
    assert _function(found, "apply").work.multiply_adds == 0


def test_parameters_by_line(report):
    """Parameters belong to the line that applies the layer."""
    lines = _lines(report, "train_step")
    assert {k: x.parameters for k, x in lines.items() if x.parameters} == {H: 48, Y: 21}
    assert report.parameters == 69 and report.parameter_bytes == report.slot_bytes == 276


def test_multiply_adds_by_line(report):
    """The first layer has no input gradient; the second has one as large as its product."""
    lines = _lines(report, "train_step")
    forward = {k: x.forward.multiply_adds for k, x in lines.items() if x.forward.multiply_adds}
    backward = {k: x.backward.multiply_adds for k, x in lines.items() if x.backward.multiply_adds}
    assert forward == {H: 5 * 42, Y: 5 * 18}
    assert backward == {H: 5 * 42, Y: 2 * 5 * 18}


def test_batch_scales_arithmetic():
    """Twice the rows, twice the multiply-adds, the same parameters."""
    once, twice = _analyse().profiles[0].total, _analyse(batch=10).profiles[0].total
    assert twice.forward.multiply_adds == 2 * once.forward.multiply_adds
    assert twice.parameters == once.parameters


def test_infer_in_detail(report):
    """Two kernels: each reads its operands once, and writes its result once."""
    profile = next(p for p in report.profiles if p.function == "infer")
    first, second = profile.kernels
    assert first.operators == ("contract", "add", "max") and first.lines == (H,)
    assert first.space.startswith("i<5, j<6 { sum k<7")
    assert first.work == Work(210, 60, 4 * (35 + 42 + 6), 4 * 30)
    assert second.work == Work(90, 15, 4 * (30 + 18 + 3), 4 * 15)
    assert first.intensity == (420 + 60) / (4 * (35 + 42 + 6 + 30))
    assert [x.kernels for x in profile.lines if x.kernels] == [("k0",), ("k1",)]
    assert all(x.backward == Work() for x in profile.lines)


def test_optimizer_goes_to_the_line_of_the_parameter(report):
    """`apply` works on the layers' lines: 4 operations, 3 reads, 2 writes for a parameter."""
    lines = _lines(report, "apply")
    assert {k for k, x in lines.items() if x.backward != Work()} == {H, Y, NOWHERE}
    for line, parameters in ((H, 48), (Y, 21)):
        assert lines[line].backward.elements == 4 * parameters
        assert lines[line].backward.written == 2 * 4 * parameters
        assert lines[line].backward.read >= 3 * 4 * parameters
    assert lines[LOSS].backward == Work()


def test_sums_agree(report):
    """Lines add up to kernels, kernels to the function, in every function."""
    for profile in report.profiles:
        lines = profile.total.forward + profile.total.backward
        kernels = sum((k.work for k in profile.kernels), Work())
        assert lines == kernels == _function(report, profile.function).work
        named = {k for x in profile.lines for k in x.kernels}
        assert named == {k.name for k in profile.kernels}


def test_fusion_figures(report):
    """Fusion leaves fewer kernels and moves fewer bytes than one kernel for each node."""
    infer = _function(report, "infer")
    assert (infer.unfused_kernels, infer.kernels, infer.groups) == (5, 2, 2)
    # contract, add, max, contract, add: operands and results of each, by hand
    unfused = (35 + 42 + 30) + (30 + 6 + 30) + (30 + 30) + (30 + 18 + 15) + (15 + 3 + 15)
    assert infer.unfused_bytes == 4 * unfused
    for f in report.functions:
        if f.name != "init":  # the draws of a parameter are one kernel with any pipeline
            assert f.kernels < f.unfused_kernels and f.work.bytes < f.unfused_bytes
        assert f.ratio <= 1.05 and f.arena_bytes >= f.bound


def test_two_objectives_keep_forward_apart():
    """A second objective's forward pass is not mistaken for the first one's backward pass."""
    source = """\
model pair {
    input x : f32[batch, 4]
    a = x |> dense(3)
    b = x |> dense(2)
    output a
    output b
    loss first = mean(a * a)
    loss second = mean(b * b)
}
train {
    optimizer = sgd(lr = 0.1)
    minimize first over a
    minimize second over b
    batch = 5
}
"""
    total = _analyse(source=source).profiles[0].total
    assert total.forward.multiply_adds == total.backward.multiply_adds == 5 * 4 * (3 + 2)


PLAN = """\
plan @f: arena 0 B, bound 0 B, state 0 B {
  arguments z input, y input, out output
  buffer z: f32[4,6] argument
  buffer y: i32[4] argument
  buffer out: f32[4,3] argument
  kernel k0
    for i < 4 {
      BODY
    }
}
"""


@pytest.mark.parametrize(("body", "read"), [
    ("for j < 3 {\n out[i,j] = z[i,j]\n }", {"z": 12}),
    ("for j < 3 {\n out[i,j] = z[i,2*j]\n }", {"z": 12}),
    ("for j < 3 {\n out[i,j] = z[i,j] + z[i,j+3]\n }", {"z": 24}),
    ("for j < 3 {\n out[i,j] = z[i,j] * z[i,j]\n }", {"z": 12}),
    ("out[i,0] = z[i,y[i]]", {"z": 4, "y": 4}),
    ("v = y[i]\n out[i,0] = z[i,v]", {"z": 4, "y": 4}),
    ("s = sum k < 6 { z[i,k] }\n out[i,0] = s", {"z": 24}),
])  # fmt: skip
def test_traffic_of_one_kernel(body, read):
    """Elements read: parts of a buffer, the same part twice, gathers."""
    plan = parse_plan(PLAN.replace("BODY", body))
    found = traffic(next(plan.kernels()), plan)
    assert dict(found.read) == {name: 4 * count for name, count in read.items()}
    assert set(found.written) == {"out"}


def test_picture_is_the_plan():
    """The drawn placement is valid, and has the peak and the bound of the plan."""
    plan = Compilation(Source("two.nn", MODEL), {"batch": 64}).plans["train_step"]
    problem, solution = picture.placement(plan)
    assert problem.intervals and validate(problem, solution) == []
    assert (solution.peak, live_bound(problem)) == (plan.arena_bytes, plan.bound)
    root = ElementTree.fromstring(picture.memory_svg(plan, "two"))
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == len(problem.intervals)


def test_text_fits_and_shows_the_figures(report):
    """At most 100 columns; the lines with their figures as they were worked out."""
    shown = text.render(report).split("\n")
    assert max(map(len, shown)) <= text.WIDTH
    begin = next(k for k, x in enumerate(shown) if x.startswith("train_step, line by line"))
    row = next(x for x in shown[begin:] if x.startswith("   6  y = h |> dense(3)"))
    assert row.split()[6:9] == ["21", "90", "180"]


def test_ranges_of_kernels():
    """Three or more in a row are shortened."""
    assert text.ranges(["k3", "k0", "k4", "k5", "k10", "k11"]) == "k0 k3-k5 k10 k11"


def test_long_lines_are_wrapped():
    """Source that is too long for its column goes on in the next row, none of it lost."""
    long = MODEL.replace("x |> dense(6) |> relu", "x |> dense(6) |> relu |> identity |> identity")
    shown = text.render(_analyse(source=long, batch=1_000_000))
    assert "|> identity" in shown and "…" not in shown


def test_command_line(tmp_path, capsys):
    """JSON on stdout agrees with the analysis; the picture is written beside it."""
    file, drawing = tmp_path / "two.nn", tmp_path / "memory.svg"
    file.write_text(MODEL)
    code = main(["report", str(file), "--batch", "8", "--json", "--memory-svg", str(drawing)])
    assert code == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["sizes"] == {"batch": 8} and tree["profiles"][0]["function"] == "train_step"
    line = tree["profiles"][0]["lines"][Y - 1]
    assert line["parameters"] == 21 and line["forward"]["multiply_adds"] == 8 * 18
    assert tree == json.loads(json.dumps(cost.record(_analyse_file(file, 8))))
    assert ElementTree.parse(drawing).getroot().tag.endswith("svg")


def _analyse_file(path: Path, batch: int):
    return accounts.analyse(Compilation(Source(str(path), path.read_text()), {"batch": batch}))


@pytest.mark.parametrize(("arguments", "code"), [
    (["--function", "training"], "NN0914"),
    (["--function", "infer,grad", "--memory-svg", "-"], "NN0916"),
    (["--json", "--memory-svg", "-"], "NN0921"),
])  # fmt: skip
def test_wrong_command_lines(arguments, code, tmp_path, capsys):
    """Refused as usage errors, with nothing on stdout."""
    file = tmp_path / "two.nn"
    file.write_text(MODEL)
    assert main(["report", str(file), *arguments]) == 2
    out, err = capsys.readouterr()
    assert code in err and out == ""


@pytest.mark.parametrize(("function", "batch", "channels", "n"), [
    ("infer", 1, 32, 16), ("infer", 4, 64, 8), ("grad", 32, 32, 8), ("grad", 32, 64, 8),
])  # fmt: skip
def test_transforms_count_once(function, batch, channels, n):
    """Kernels that compute a convolution together, tile by tile or all tiles at once, and the
    gradient of its weights, count what the direct form does."""
    source = Source("net.nn", f"""model net {{
        input x : f32[batch, {channels}, {n}, {n}]
        z = x |> conv2d({channels}, 3, padding=1) |> conv2d({channels}, 3, padding=1)
        output out = z
        loss mean(z * z)
    }}""")
    found = []
    for direct in (True, False):
        options = Options(functions=(function,), direct=direct, cpu="x86-64-v3")
        found.append(accounts.analyse(Compilation(source, {"batch": batch}, options)).profiles[0])
    plain, transformed = found
    assert len(transformed.kernels) > len(plain.kernels)
    assert transformed.total.forward.multiply_adds == plain.total.forward.multiply_adds
    assert transformed.total.backward.multiply_adds == plain.total.backward.multiply_adds
    assert transformed.total.forward.elements == plain.total.forward.elements
