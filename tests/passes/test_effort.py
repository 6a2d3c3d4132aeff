"""What is found out once stays so: counts of work that grow when it is done again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompiler.driver import Compilation, decode_source
from nncompiler.errors import Source
from nncompiler.ir.graph import Builder, Function, Node
from nncompiler.ir.interp import run
from nncompiler.ir.op import lookup
from nncompiler.ir.types import F32, TensorType
from nncompiler.lang.elaborate import network, scope
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.graph.factor import Factor

MODEL = """model m {
    input x : f32[batch, 6]
    target y : f32[batch, 3]
    output z = x |> dense(3)
    loss mse(z, y)
}
train { optimizer = sgd(lr=0.1)  batch = 4 }
"""
STEPS = """model m {
    input x : f32[batch, time, 6]
    output z = mean(x, axis=1) |> dense(3)
    output w = mean(x, axis=0)
}
"""


def source(text: str) -> Source:
    return decode_source(text.encode(), "m.nn")


def test_fusion_asks_for_dimensions_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that grows by forty nodes one by one does not ask each again for every new one."""
    b = Builder("chain")
    x = b.param("input", "x", TensorType(F32, (8, 16)))
    value = x
    for _ in range(40):
        value = b.emit("add", b.emit("mul", value, x), value)
    asked: list[Node] = []
    for name in ("add", "mul"):
        operator: Any = type(lookup(name))
        whole = operator.dims

        def counted(self: Any, node: Node, whole: Any = whole) -> Any:
            asked.append(node)
            return whole(self, node)

        monkeypatch.setattr(operator, "dims", counted)
    after = Fuse().run(b.finish([("y", value)]))
    assert len(after.nodes) == 1
    assert len(asked) == 80


@pytest.mark.parametrize("twice", [True, False])
@pytest.mark.parametrize("total", [True, False])
def test_a_power_has_few_factors(total: bool, twice: bool) -> None:
    """Of squares of squares, the sum of forty has as many factors as two has to the fortieth."""

    def power(times: int) -> Function:
        b = Builder("power")
        x, a = (b.param("input", n, TensorType(F32, s)) for n, s in (("x", (4, 5)), ("a", (5,))))
        for _ in range(times):
            x = b.emit("mul", x, x) if twice else b.emit("mul", b.emit("mul", x, a), x)
        x = b.emit("reduce_sum", x, axes=(0,), keepdims=False) if total else x
        return b.finish([("y", x)])

    assert len(Factor().run(power(40)).nodes) < 200
    rng = np.random.default_rng(0)
    given = {"x": rng.uniform(0.9, 1.1, (4, 5)), "a": rng.uniform(0.9, 1.1, 5)}
    for times in (2, 6, 7):
        before, after = (run(f, given)["y"] for f in (power(times), Factor().run(power(times))))
        assert np.allclose(after, before, 1e-5)


@pytest.mark.parametrize(("text", "runs"), [(MODEL, 2), (STEPS, 3)])
def test_the_body_of_a_model_runs_few_times(
    text: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once as it is and once with larger sizes, which also tells what the batch changes; with
    further free sizes, a third time for that."""
    count, whole = [0], network._frame

    def counted(*args: Any, **named: Any) -> Any:
        count[0] += 1
        return whole(*args, **named)

    monkeypatch.setattr(network, "_frame", counted)
    c = Compilation(source(text), {} if text is MODEL else {"batch": 4, "time": 5})
    assert c.batched == (("x", "y", "z") if text is MODEL else ("x", "z"))
    assert count[0] == runs


def test_only_what_is_used_of_the_library_is_parsed() -> None:
    """A definition is parsed when it is first used, and by itself."""
    scope.stdlib_definition.cache_clear()
    assert Compilation(source(MODEL)).network.parameters
    assert scope.stdlib_definition.cache_info().currsize == 2


@pytest.mark.parametrize("path", sorted(scope.STDLIB.glob("*.nn")), ids=lambda p: p.stem)
def test_definitions_of_the_library_are_where_they_are(path: Path) -> None:
    """Each has the place it has in its file, and the index lacks none."""
    found = {}
    for name, (file, _) in scope.stdlib_index().items():
        item = scope.stdlib_definition(name).item
        assert item.span.file == file
        if file == f"stdlib/{path.name}":
            found[item.span.line] = name
    lines = path.read_text("utf-8").split("\n")
    heads = {n: line.replace("(", " ").split()[1] for n, line in enumerate(lines, 1)
             if line.startswith(("fn ", "layer "))}
    assert found == heads
