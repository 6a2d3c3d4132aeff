"""Random well-typed graphs, for comparing passes, plans and compiled code with the interpreter.

A graph is made of steps (`random_steps`), and some have a block as networks do (`random_blocks`).
"""

from __future__ import annotations

import math
import random

from nncompiler.ir.graph import Builder, Function, Value
from nncompiler.ir.types import F32, DType, TensorType, scalar
from nncompiler.passes.training.autodiff import differentiate
from tests.random_blocks import blocks
from tests.random_steps import MAX_ELEMENTS, STEPS, Maker

EXTENTS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)


def random_function(seed: int, dtype: DType = F32, prefix: str = "") -> Function:
    """A function of one to three inputs and parameters, and of what some blocks add; results are
    some values, a scalar loss, and in half of the cases its gradients, more often where there are
    blocks; in half of these updates in place of the parameters. A third of the functions carry one
    or two states from call to call. Names of parameters begin with `prefix`.
    """
    rng = random.Random(seed)
    m = Maker(rng, dtype, Builder(f"g{seed}"))
    shapes = _related_shapes(rng)
    params = []
    for k, shape in enumerate(shapes):
        kind = "param" if k % 2 else "input"
        v = m.b.param(kind, f"{prefix}{'w' if k % 2 else 'x'}{k}", TensorType(dtype, shape))
        m.keep(v)
        m.exact.add(v)
        if kind == "param":
            params.append(v)
    states = _states(m, seed, prefix)
    steps = [s for weight, s in STEPS for _ in range(weight)]
    for _ in range(rng.randint(3, 14)):
        rng.choice(steps)(m)
    weights = blocks(m, seed, prefix)
    params += weights
    loss = _loss(m)
    results = [
        (f"{prefix}out{k}", v) for k, v in enumerate(rng.sample(m.pool, min(2, len(m.pool))))
    ]
    kept = [(f"update.{s.name}", _next_state(m, s, states)) for s in states]
    f = m.b.finish([*results, ("loss", loss), *kept])
    if rng.random() < (0.8 if weights else 0.5):
        f = differentiate(f, "loss", params, f.name)
        if rng.random() < 0.5:
            f = _updated(f, params)
    return f


def _states(m: Maker, seed: int, prefix: str) -> list[Value]:
    """States of shapes the parameters have; drawn apart, so that other graphs stay as they are."""
    rng = random.Random(f"state {seed}")
    count = rng.choice([0, 0, 0, 0, 1, 2])
    found = []
    for k in range(count):
        like = rng.choice(found if found and rng.random() < 0.5 else m.pool)
        found.append(m.b.param("state", f"{prefix}s{k}", like.type))
    m.pool += found
    m.exact.update(found)
    return found


def _next_state(m: Maker, state: Value, states: list[Value]) -> Value:
    """A running average of some value of the state's shape, of the state itself where there is
    none; or another state, as it was."""
    rng = random.Random(state.name)
    others = [v for v in states if v.type == state.type and v != state]
    like = [v for v in m.pool if v.type == state.type and v not in states] + 3 * others
    if not like:
        return m.b.emit("tanh", state)
    source = rng.choice(like)
    if source in states and rng.random() < 0.5:
        return source
    part = m.b.emit("mul", m.b.emit("tanh", source), m.number(0.25))
    return m.b.emit("add", m.b.emit("mul", state, m.number(0.75)), part)


def _related_shapes(rng: random.Random) -> list[tuple[int, ...]]:
    """Two to four shapes over few extents, so that operands often fit each other."""
    extents = [rng.choice(EXTENTS) for _ in range(3)]
    shapes = []
    for _ in range(rng.randint(2, 4)):
        rank = rng.choice([0, 1, 2, 2, 2, 3])
        shape = tuple(rng.choice(extents) for _ in range(rank))
        shapes.append(shape if math.prod(shape) <= MAX_ELEMENTS else shape[:2])
    return shapes


def _loss(m: Maker) -> Value:
    """A scalar over the most recent values."""
    total = m.number(0.0)
    for v in [v for v in m.pool if v.dtype == m.dtype][-3:]:
        s = (
            m.b.emit("reduce_sum", v, axes=tuple(range(v.type.rank)), keepdims=False)
            if v.type.rank
            else v
        )
        total = m.b.emit("add", total, m.b.emit("mul", s, m.number(1.0 / max(1, v.type.size))))
    assert total.type == scalar(m.dtype)
    return total


def _updated(f: Function, params: list[Value]) -> Function:
    """Gradient descent: `update.NAME` instead of the gradients."""
    b = Builder.extending(f)
    kept = [(n, v) for n, v in f.results if not n.startswith("grad.")]
    for p in params:
        step = b.emit("mul", f.result(f"grad.{p.name}"), b.const(0.1, p.dtype))
        kept.append((f"update.{p.name}", b.emit("sub", p, step)))
    return b.finish(kept)
