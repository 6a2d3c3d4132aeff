"""The interpreter of graphs: by operator references."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.errors import CompilerBug, UserError
from nncompiler.ir.graph import Builder
from nncompiler.ir.interp import retype, run
from nncompiler.ir.text import parse_function
from nncompiler.ir.types import F32, F64, I32, TensorType

RANDOM = np.random.default_rng(7)


def f32(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


FUSED = """
graph @f {
  input %x: f32[3,4]
  %0: f32[3,4] = mul %x, 0.1
  %1: f32[3,4], %2: f32[3,4] = fused %0, %x {
    operand %a: f32[3,4]
    operand %b: f32[3,4]
    %c: f32[3,4] = add %a, %b
    %d: f32[3,4] = max %c, 0.0
    yield %d, %c
  }
  return y=%1, z=%2, x=%x
}
"""


def test_graph_with_a_body():
    """A fused node gives what its body computes, in the order of the yields."""
    x = f32(3, 4)
    got = run(parse_function(FUSED), {"x": x})
    z = x * np.float32(0.1) + x
    assert list(got) == ["y", "z", "x"]
    np.testing.assert_array_equal(got["z"], z)
    np.testing.assert_array_equal(got["y"], np.maximum(z, 0))


def test_graph_in_double():
    """With dtype=F64 every f32 becomes f64: results, casts, constants and bodies."""
    x = f32(3, 4)
    got = run(parse_function(FUSED), {"x": x}, F64)
    assert got["y"].dtype == np.float64
    scale = float(np.float32(0.1))
    np.testing.assert_array_equal(got["z"], x.astype(np.float64) * scale + x)
    cast = Builder("g")
    value = cast.emit("cast", cast.param("input", "x", TensorType(I32, (2,))), dtype="f32")
    got = run(cast.finish([("y", value)]), {"x": np.array([1, 2**24 + 1], np.int32)}, F64)
    assert got["y"].tolist() == [1.0, 2.0**24 + 1]


def test_double_keeps_the_literals_of_the_code():
    """A literal stays what it is in f32, however it was given."""
    b = Builder("f")
    x = b.param("input", "x", TensorType(F32))
    f = b.finish([("y", b.emit("mul", x, b.const(0.1, F32)))])
    got = run(f, {"x": np.array(1.0)}, F64)["y"]
    assert got == np.float32(0.1) and got != 0.1


def test_results_do_not_share_memory_with_arguments():
    """Writing into a result leaves the argument as it was."""
    x = f32(3, 4)
    got = run(parse_function(FUSED), {"x": x})["x"]
    assert not np.shares_memory(got, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({}, "needs the input '%x'"), ({"x": np.zeros(3)}, "expected '%x' of type f32[3,4]")],
)
def test_graph_arguments_are_checked(arguments, message):
    """A missing argument and a wrong shape are user errors."""
    with pytest.raises(UserError, match="NN0330") as caught:
        run(parse_function(FUSED), arguments)
    assert message in caught.value.message


def test_a_reference_that_breaks_its_type_is_a_bug():
    """The interpreter checks what references return against the node's types."""
    wrong = parse_function(FUSED.replace("%0: f32[3,4] = mul", "%0: f64[3,4] = mul"))
    with pytest.raises(CompilerBug, match="reference of 'mul' gave float32"):
        run(wrong, {"x": f32(3, 4)})


def test_retype_reaches_bodies():
    """No f32 is left after retyping."""
    from nncompiler.ir.text import print_function

    text = print_function(retype(parse_function(FUSED), F64))
    assert "f32" not in text and "f64[3,4]" in text
