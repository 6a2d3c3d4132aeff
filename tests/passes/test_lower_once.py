"""Groups that differ in names alone: the nest of the second is that of the first under other
names, and what it would be by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.fingerprint import fingerprint, signature
from nncompiler.ir.graph import Builder, Function
from nncompiler.ir.kernel import Plan
from nncompiler.ir.text import print_plan
from nncompiler.ir.types import F32, TensorType
from nncompiler.passes.arithmetic import winograd
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.layout.batch_last import batch_last
from nncompiler.passes.layout.images import regions
from nncompiler.passes.lowering import lower_once
from nncompiler.passes.lowering.lower import lower_group
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.pipelines import OPTIMISE
from tests.differential import state_of, untransformed
from tests.networks import layout_of
from tests.random_graphs import random_function

MODELS = Path(__file__).resolve().parents[2] / "models"


class Forgetful(dict[Any, Any]):
    """Nothing was seen before."""

    def __setitem__(self, key: object, value: object) -> None:
        pass


@pytest.fixture
def lowerings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the groups that are really lowered; nothing is known at first."""
    found: list[int] = []

    def counted(nodes: Any, *rest: Any) -> Any:
        found.append(len(nodes))
        return lower_group(nodes, *rest)

    monkeypatch.setattr(lower_once, "lower_group", counted)
    monkeypatch.setattr(lower_once, "_LOWERED", {})
    return found


def alone(f: Function, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan with every group lowered by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(lower_once, "_LOWERED", Forgetful())
        return schedule(f, state_of([f], F32))


def test_a_graph_under_other_names_has_its_own_plan(
    lowerings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name of the first stays behind; little is lowered twice."""
    counts = [0, 0]
    for seed in range(60):
        for turn, prefix in enumerate(("a", "bc")):
            f = run_passes(random_function(seed, prefix=prefix), OPTIMISE)
            before = len(lowerings)
            found = schedule(f, state_of([f], F32))
            counts[turn] += len(lowerings) - before
            assert print_plan(found) == print_plan(alone(f, monkeypatch)), seed
        lower_once._LOWERED.clear()
    assert counts[0] > 100 and counts[1] < counts[0] // 4


@pytest.mark.parametrize("model", ["mixer", "char_lstm", "unet"])
def test_models_have_the_plans_that_they_would_have_anyway(
    model: str, lowerings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated blocks and loops; what is known of a renamed body is what reading it says."""
    source = read_source(str(MODELS / f"{model}.nn"))
    c = Compilation(source, {"batch": 4}, Options(functions=("train_step",)))
    f = c.optimised["train_step"]
    found = schedule(f, c.layout)
    with monkeypatch.context() as patch:
        patch.setattr(lower_once, "_LOWERED", Forgetful())
        expected = schedule(f, c.layout)
    assert print_plan(found) == print_plan(expected)
    for kernel in found.kernels():
        assert signature(kernel.body) == signature((*kernel.body,))


def chain(*names: str) -> Function:
    """exp of the first value is called as the second, used twice; then a sum called the third."""
    b = Builder("f")
    x = b.param("input", names[0], TensorType(F32, (4, 8)))
    y = b.emit("exp", x, hint=names[1])
    rows = b.emit("reduce_sum", y, axes=(1,), keepdims=True, hint=names[2])
    return b.finish([("out", b.emit("mul", y, rows)), ("more", b.emit("sub", y, rows))])


@pytest.mark.parametrize(
    "names",
    [
        ("a", "b", "b_2"), ("a", "i", "k"), ("acc", "a.2", "a_2"), ("v1", "1", "2"),
        ("x0", "j", "c"),
    ],
)
def test_names_that_come_to_the_same_are_told_apart(
    names: tuple[str, ...], lowerings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value called like an axis, a sum or another with a number: lowered by itself."""
    plain, odd = (Fuse().run(chain(*n)) for n in (("p", "q", "r"), names))
    schedule(plain, layout_of(plain))
    before = len(lowerings)
    found = schedule(odd, layout_of(odd))
    assert len(lowerings) > before
    assert print_plan(found) == print_plan(alone(odd, monkeypatch))


def test_numbers_that_are_equal_but_not_the_same_are_told_apart(lowerings: list[int]) -> None:
    """0.0 and -0.0."""

    def graph(number: float) -> Function:
        b = Builder("f")
        x = b.param("input", "x", TensorType(F32, (4,)))
        return b.finish([("y", b.emit("div", x, b.const(number, F32)))])

    plans = [schedule(Fuse().run(graph(n)), layout_of(graph(n))) for n in (0.0, -0.0)]
    assert len({fingerprint(k, p.table()) for p in plans for k in p.kernels()}) == 2


BLOCKS = """
model net {
    input x : f32[batch, 3, 6, 4]
    target y : f32[batch, 3, 6, 4]
    %s
    output out = z
    loss mean((z - y) ** 2)
}
train { optimizer = sgd(lr=0.1) batch = 8 }
"""
PARAM = "param %s : f32[3, 1, 1] = normal()"
BLOCK = "z = relu(%s |> conv2d(3, 3, padding=1, bias=false) as %s) * %s"


def transformed(names: list[str]) -> Plan:
    """A convolution for each name, times a parameter of that name."""
    lines = [PARAM % n for n in names]
    lines += [BLOCK % ("z" if k else "x", f"w{k}", n) for k, n in enumerate(names)]
    source = read_source(BLOCKS % "\n    ".join(lines))
    f = Compilation(source, {}, Options(functions=("infer",))).optimised["infer"]
    plan = schedule(f, layout_of(f))
    for region in regions(plan):
        plan = batch_last(plan, region) or plan
    return winograd.winograd(plan, untransformed)


@pytest.mark.parametrize("last", ["n", "m00", "mh11", "e"])
def test_transforms_of_equal_convolutions_differ_in_names(
    last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each transform is what it would be by itself, whatever its parameter is called."""
    names, made = ["p", "q", last], []
    real = winograd.transformed

    def counted(*rest: Any) -> Any:
        made.append(rest)
        return real(*rest)

    monkeypatch.setattr(winograd, "transformed", counted)
    found = transformed(names)
    assert 0 < len(made) < sum(b.name.endswith(".U") for b in found.buffers)
    monkeypatch.setattr(winograd, "_alike", lambda *_: None)
    assert print_plan(found) == print_plan(transformed(names))
