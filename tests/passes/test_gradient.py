"""Autodiff: against central differences, its economy, and gradients of gradients."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.errors import UserError
from nncompiler.ir.graph import Builder, Function
from nncompiler.ir.interp import run
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F32, F64, TensorType
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.passes.graph.simplify import Simplify
from nncompiler.passes.training.autodiff import differentiate
from tests.networks import mlp


def check_by_differences(
    f: Function, name: str, values: dict, wanted: list[str], step: float = 1e-5
) -> None:
    """Every element of every gradient against a central difference, in f64."""
    g = differentiate(f, name, [p.value for p in f.params if p.value.name in wanted])
    found = run(g, values, F64)
    for w in wanted:
        base = np.asarray(values[w], np.float64)
        for at in np.ndindex(base.shape):
            moved = []
            for sign in (1, -1):
                other = base.copy()
                other[at] += sign * step
                moved.append(float(run(f, {**values, w: other}, F64)[name]))
            assert found[f"grad.{w}"][at] == pytest.approx(
                (moved[0] - moved[1]) / (2 * step), rel=1e-6, abs=1e-8
            )


def test_network_gradient_matches_central_differences() -> None:
    """Every parameter of a three-layer perceptron."""
    network = mlp()
    f = network.function("objective")
    check_by_differences(f, "loss", random_arguments(f, 3), [n for n, _ in network.parameters])


@pytest.mark.parametrize(
    "shapes", [((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3, 4), (3, 1)), ((), (2, 2)), ((1,), (5,))]
)
def test_unbroadcasting(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """A broadcast operand's gradient has the operand's shape and the sum of the right elements."""
    b = Builder("f")
    x, y = (b.param("param", n, TensorType(F64, s)) for n, s in zip("xy", shapes, strict=True))
    product = b.emit("mul", b.emit("mul", x, y), y)
    f = b.finish(
        [
            (
                "loss",
                b.emit(
                    "reduce_sum", product, axes=tuple(range(product.type.rank)), keepdims=False
                ),
            )
        ]
    )
    check_by_differences(f, "loss", random_arguments(f, 1), ["x", "y"])


def test_gradient_of_gradient() -> None:
    """d2/dx2 of sum(x ** 3 + sin x) is 6 x - sin x."""
    b = Builder("f")
    x = b.param("param", "x", TensorType(F64, (4,)))
    cube = b.emit("mul", b.emit("mul", x, x), x)
    f = b.finish(
        [
            (
                "loss",
                b.emit(
                    "reduce_sum", b.emit("add", cube, b.emit("sin", x)), axes=(0,), keepdims=False
                ),
            )
        ]
    )
    first = differentiate(f, "loss", [x])
    total = Builder.extending(first)
    s = total.emit("reduce_sum", first.result("grad.x"), axes=(0,), keepdims=False)
    second = differentiate(total.finish([("s", s)]), "s", [x], prefix="second.")
    at = np.array([-1.5, 0.25, 1.0, 2.0])
    assert run(second, {"x": at})["second.x"] == pytest.approx(6 * at - np.sin(at), rel=1e-12)


def test_no_work_for_what_nobody_asked_for() -> None:
    """Differentiating with respect to the last bias alone makes no contraction beyond the forward
    ones."""
    network = mlp()
    f = network.function("objective")
    bias = next(p.value for p in f.params if p.value.name == "d2.b")
    g = DeadCode().run(Simplify().run(differentiate(f, "loss", [bias])))
    assert sum(n.op == "contract" for n in g.nodes) == 3


def test_no_input_gradient_in_training() -> None:
    """A full gradient makes 3 forward, 3 weight and 2 input products: the first layer's input
    gets none."""
    network = mlp()
    f = network.function("objective")
    g = differentiate(f, "loss", [p.value for p in f.params if p.kind == "param"])
    assert sum(n.op == "contract" for n in g.nodes) == 8


def test_independent_parameter_gets_zeros() -> None:
    """A parameter the loss does not read has an all-zero gradient of its type."""
    b = Builder("f")
    x, unused = (
        b.param("param", "x", TensorType(F32, (2,))),
        b.param("param", "u", TensorType(F32, (2, 3))),
    )
    f = b.finish([("loss", b.emit("reduce_sum", x, axes=(0,), keepdims=False))])
    found = run(differentiate(f, "loss", [x, unused]), {"x": np.ones(2), "u": np.ones((2, 3))})
    assert np.array_equal(found["grad.u"], np.zeros((2, 3))) and np.array_equal(
        found["grad.x"], [1, 1]
    )


def test_stop_gradient_stops() -> None:
    """d/dx of x * stop_gradient(x) is x, not 2 x."""
    b = Builder("f")
    x = b.param("param", "x", TensorType(F64, (3,)))
    y = b.emit("mul", x, b.emit("stop_gradient", x))
    f = b.finish([("loss", b.emit("reduce_sum", y, axes=(0,), keepdims=False))])
    at = np.array([1.0, -2.0, 3.0])
    assert np.array_equal(run(differentiate(f, "loss", [x]), {"x": at})["grad.x"], at)


def test_only_scalars_are_differentiated() -> None:
    """A result that is not a float scalar is refused by name and type."""
    b = Builder("f")
    x = b.param("param", "x", TensorType(F32, (3,)))
    with pytest.raises(UserError, match=r"NN0401.*'y' is f32\[3\]"):
        differentiate(b.finish([("y", x)]), "y", [x])
