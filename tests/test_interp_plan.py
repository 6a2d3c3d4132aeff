"""The interpreter of plans: on a real arena at real offsets."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.errors import CompilerBug, UserError
from nncompiler.ir.interp_plan import run_plan
from nncompiler.ir.text import parse_plan

RANDOM = np.random.default_rng(7)


def f32(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def execute(text, state=0, **arguments):
    """Parse and run a plan; gives its state."""
    block = np.zeros(state, np.uint8) if isinstance(state, int) else state
    run_plan(parse_plan(text), block, arguments)
    return block


LOSS = """
plan @loss: arena 256 B, bound 256 B, state 64 B {
  arguments z input, y target
  check y < 10
  buffer z: f32[6,10] argument
  buffer y: i32[6] argument
  buffer loss: f32[] state @0
  buffer row: f32[6] arena @192
  buffer dz: f32[6,10] arena @0
  kernel k0
    loss[] = 0.0
    for i < 6 {
      m = max j < 10 { z[i,j] }
      s = sum j < 10 { exp(z[i,j] - m) }
      row[i] = (m + log(s) - z[i,y[i]]) / 6.0
      for j < 10 { z[i,j] = (exp(z[i,j] - m) / s - f32(j == y[i])) / 6.0 }
    }
    total = sum i < 6 { row[i] }
    loss[] = loss[] + total
}
""".replace("  buffer dz: f32[6,10] arena @0\n", "")


def test_softmax_cross_entropy():
    """The nest of the design: loss and gradient in one kernel, the gradient over the logits."""
    z, y = f32(6, 10), RANDOM.integers(0, 10, 6).astype(np.int32)
    wide = z.astype(np.float64)
    p = np.exp(wide - wide.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    state = execute(LOSS, 64, z=z, y=y)
    np.testing.assert_allclose(state[:4].view(np.float32)[0], -np.log(p[range(6), y]).mean(), 1e-5)
    p[range(6), y] -= 1
    np.testing.assert_allclose(z, p / 6, atol=1e-6)


def test_checks_come_before_any_write():
    """An index out of range is refused and nothing is written."""
    z, y = f32(6, 10), np.array([0, 1, 2, 3, 4, 10], np.int32)
    before, state = z.copy(), np.full(64, 7, np.uint8)
    with pytest.raises(UserError, match="NN0332"):
        execute(LOSS, state, z=z, y=y)
    assert (z == before).all() and (state == 7).all()


CONTRACT = """
plan @mm: arena 131072 B, bound 131072 B, state 1605632 B {
  arguments x input
  buffer x: f32[64,784] argument
  buffer W: f32[784,512] state @0
  buffer b: f32[512] constant 0x%s
  buffer %%1: f32[64,512] arena @0 strides {1,64} live k0..k1
  buffer back: f32[64,512] argument
  kernel k0: %%1
    for i < 64, j < 512 {
      acc = sum k < 784 from 0.5 { x[i,k] * W[k,j] }
      %%1[i,j] = max(acc + b[j], 0.0)
    }
    schedule contract: vector j, register i, tile 8x48, order j i | k
  kernel k1
    for i < 64, j < 512 { back[i,j] = %%1[i,j] }
}
"""


def test_contraction_with_epilogue_and_strides():
    """A product the size of a real layer: transposed buffer, constant, start value, quick."""
    x, w, b = f32(64, 784), f32(784, 512), f32(512)
    back = np.zeros((64, 512), np.float32)
    execute(CONTRACT % b.tobytes().hex(), w.view(np.uint8).reshape(-1).copy(), x=x, back=back)
    np.testing.assert_allclose(back, np.maximum(x @ w + b + 0.5, 0), atol=1e-3)


def test_convolution_with_padding():
    """Guarded loads give the fill value outside; affine forms of two axes are fine."""
    x, w = f32(5, 7), f32(3, 3)
    y = np.zeros((5, 7), np.float32)
    execute(
        """plan @c: arena 0 B, bound 0 B, state 0 B {
        buffer x: f32[5,7] argument
        buffer w: f32[3,3] argument
        buffer y: f32[5,7] argument
        kernel k0
          for h < 5, v < 7 {
            acc = sum r < 3, s < 3 {
              inside = index(h+r-1) >= 0 and index(h+r-1) < 5 and index(s+v-1) >= 0
              value = x[h+r-1,s+v-1] if inside and index(s+v-1) < 7 else 0.0
              value * w[r,s]
            }
            y[h,v] = acc
          }
        }""",
        x=x, w=w, y=y,
    )  # fmt: skip
    padded = np.pad(x, 1)
    want = sum(padded[r : r + 5, s : s + 7] * w[r, s] for r in range(3) for s in range(3))
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_ordered_loop_carries_values():
    """A cumulative sum through memory, row by row at once, element by element in order."""
    x = f32(4, 9)
    want = np.cumsum(x, 1, dtype=np.float32)
    execute(
        """plan @c: arena 0 B, bound 0 B, state 0 B {
        buffer x: f32[4,9] argument
        kernel k0
          for i < 4 { ordered for t < 8 { x[i,t+1] = x[i,t] + x[i,t+1] } }
        }""",
        x=x,
    )
    np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize("reverse", [False, True])
def test_loop_steps(reverse):
    """A plan loop runs its kernels in order of the counter, or in reverse."""
    x = np.arange(1, 6, dtype=np.float32)
    execute(
        """plan @c: arena 64 B, bound 4 B, state 0 B {
        buffer x: f32[5] argument
        buffer c: f32[] arena @0
        kernel k0
          c[] = 0.0
        loop t < 5 %s {
          kernel k1
            c[] = c[] * 10.0 + x[t]
            x[t] = c[]
        }
        }""" % ("reverse" if reverse else ""),
        x=x,
    )
    want = [54321, 5432, 543, 54, 5] if reverse else [1, 12, 123, 1234, 12345]
    assert x.tolist() == want


def test_views_alias_and_unwritten_memory_is_not_zero():
    """A view has the bytes of its base; what nobody wrote is 0xA5."""
    y = np.zeros(6, np.uint32)
    execute(
        """plan @c: arena 128 B, bound 128 B, state 0 B {
        buffer y: u32[6] argument
        buffer a: u32[2,2] arena @64
        buffer b: u32[4] view of a
        buffer never: u32[2] arena @0
        kernel k0
          for i < 2, j < 2 { a[i,j] = u32(index(2*i+j)) }
          for k < 4 { y[k] = b[k] }
          for k < 2 { y[k+4] = never[k] }
        }""",
        y=y,
    )
    assert y.tolist() == [0, 1, 2, 3, 0xA5A5A5A5, 0xA5A5A5A5]


def test_fold_that_stores_and_locals():
    """A reduction's body may write; a local keeps the value it was bound to."""
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    execute(
        """plan @c: arena 0 B, bound 0 B, state 0 B {
        buffer x: f32[5] argument
        buffer y: f32[5] argument
        kernel k0
          first = x[0]
          total = sum i < 5 {
            old = x[i]
            x[i] = old + 1.0
            y[i] = old
            old * x[i]
          }
          x[0] = total + first
        }""",
        x=x, y=y,
    )  # fmt: skip
    assert y.tolist() == [0, 1, 2, 3, 4] and x.tolist() == [40, 2, 3, 4, 5]


def test_large_nests_run_in_parts(monkeypatch):
    """The limit on points at once changes nothing but memory."""
    from nncompiler.ir import interp_kernel

    monkeypatch.setattr(interp_kernel, "POINTS", 4)
    z, y = f32(6, 10), np.zeros(6, np.int32)
    first, again = z.copy(), z.copy()
    execute(LOSS, 64, z=first, y=y)
    monkeypatch.undo()
    execute(LOSS, 64, z=again, y=y)
    np.testing.assert_allclose(first, again, rtol=1e-6)


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_iteration_by_iteration(order):
    """A sound plan gives the same in any order; carried values keep theirs."""
    z, y = f32(6, 10), RANDOM.integers(0, 10, 6).astype(np.int32)
    one, all_at_once = z.copy(), z.copy()
    states = [np.zeros(64, np.uint8) for _ in range(2)]
    run_plan(parse_plan(LOSS), states[0], {"z": one, "y": y}, order)
    run_plan(parse_plan(LOSS), states[1], {"z": all_at_once, "y": y})
    np.testing.assert_allclose(one, all_at_once, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(*(s[:4].view(np.float32) for s in states), rtol=1e-6)
    x = np.arange(5, dtype=np.float32)
    text = """plan @c: arena 0 B, bound 0 B, state 0 B {
      buffer x: f32[5] argument
      kernel k0
        b, at = argmax i < 5 {
          x[i] = x[i] + 1.0
          x[i], i
        }
        ordered for i < 4 { x[i+1] = x[i] + x[i+1] }
        x[0] = f32(at)
    }"""
    run_plan(parse_plan(text), np.zeros(0, np.uint8), {"x": x}, order)
    assert x.tolist() == [4, 3, 6, 10, 15]


def test_a_write_in_place_that_gets_in_the_way_shows():
    """A transposition over itself is right all at once, and wrong iteration by iteration."""
    text = """plan @c: arena 0 B, bound 0 B, state 0 B {
      buffer x: f32[3,3] argument
      kernel k0
        for i < 3, j < 3 { x[i,j] = x[j,i] }
    }"""
    results = []
    for order in (None, "forward", "backward"):
        x = np.arange(9, dtype=np.float32).reshape(3, 3)
        run_plan(parse_plan(text), np.zeros(0, np.uint8), {"x": x}, order)
        results.append((x == np.arange(9).reshape(3, 3).T).all())
    assert results == [True, False, False]


@pytest.mark.parametrize("n", [0, 1])
def test_empty_and_single_extents(n):
    """Sums over nothing give zero, extent-1 axes work in products."""
    x, w, y = f32(3, n), f32(n, 2), np.ones((3, 2), np.float32)
    want = x @ w
    execute(
        f"""plan @c: arena 0 B, bound 0 B, state 0 B {{
        buffer x: f32[3,{n}] argument
        buffer w: f32[{n},2] argument
        buffer y: f32[3,2] argument
        kernel k0
          for i < 3, j < 2 {{
            a = sum k < {n} {{ x[i,k] * w[k,j] }}
            b = max k < {n} {{ x[i,k] }}
            y[i,j] = a + select(b == -inf, 0.0, 0.0)
          }}
        }}""",
        x=x, w=w, y=y,
    )  # fmt: skip
    np.testing.assert_allclose(y, want, rtol=1e-6)


@pytest.mark.parametrize("statement", ["y[i] = x[i+1]", "y[i+1] = x[i]", "y[i] = x[n[0] + i]"])
def test_outside_is_a_bug(statement):
    """A load or a store outside of its buffer is caught, affine or gathered."""
    with pytest.raises(CompilerBug, match="outside of"):
        execute(
            f"""plan @c: arena 0 B, bound 0 B, state 0 B {{
            buffer x: f32[4] argument
            buffer y: f32[4] argument
            buffer n: i32[1] argument
            kernel k0
              for i < 4 {{ {statement} }}
            }}""",
            x=f32(4), y=f32(4), n=np.ones(1, np.int32),
        )  # fmt: skip


@pytest.mark.parametrize(
    "x", [None, np.zeros(4), np.zeros(5, np.float32), np.zeros(8, np.float32)[::2]]
)
def test_plan_arguments_are_checked(x):
    """Missing, wrong dtype, wrong shape and not contiguous: each a user error."""
    with pytest.raises(UserError, match="NN0331"):
        execute(
            "plan @c: arena 0 B, bound 0 B, state 0 B { buffer x: f32[4] argument }",
            **({} if x is None else {"x": x}),
        )
