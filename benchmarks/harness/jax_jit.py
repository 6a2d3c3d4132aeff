"""JAX: one jitted function per step, or per loop of steps, the state donated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jaxlib
import numpy as np
from jax import numpy as jnp

from harness.implementation import Implementation
from harness.workload import LOOP_STEPS, Adam, Array, Arrays, Jax, Optimizer, Sgd, Workload

Tree = dict[str, Any]


class JaxJit(Implementation):
    """The state is passed as a flat list of arrays, the quickest form of argument."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        if threads == 1:
            # Otherwise a second thread computes while the first waits for the same core.
            jax.config.update("jax_cpu_enable_async_dispatch", False)

    def versions(self) -> dict[str, str]:
        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays,
        onnx: str,
    ) -> str:  # fmt: skip
        assert weights is not None
        functions = workload.jax()
        if kind == "infer":
            inputs = {name: data[name] for name in workload.inputs}
            infer: Callable[..., Any] = lambda p, **given: (p, functions.infer(p, **given))  # noqa: E731
            self.run(infer, weights, inputs, donate=False)
            return ""
        state, step = training(functions, workload.optimizer, weights)
        self.run(step if kind == "train" else looped(step, batch), state, data, donate=True)
        return "lax.scan" if kind == "loop" else ""

    def run(self, step: Callable[..., Any], state: Any, data: Arrays, donate: bool) -> None:
        self.initial, structure = jax.tree.flatten(state)
        names, given = [*data], [jax.device_put(value) for value in data.values()]

        def flat(leaves: list[Any], given: list[Any]) -> Any:
            new, result = step(structure.unflatten(leaves), **dict(zip(names, given, strict=True)))
            return (jax.tree.leaves(new), result) if donate else result

        jitted = jax.jit(flat, donate_argnums=(0,) if donate else ())

        self.state: list[Any] = []

        def train() -> None:
            self.state, self.last = jitted(self.state, given)

        def infer() -> None:
            self.last = jitted(self.state, given)

        self.call = train if donate else infer

    def reset(self) -> None:
        # A copy: jax may otherwise use, and donate, the memory of the NumPy array.
        self.state = [jnp.array(leaf, copy=True) for leaf in self.initial]
        jax.block_until_ready(self.state)

    def finish(self) -> None:
        jax.block_until_ready((self.state, self.last))

    def value(self) -> Array:
        return np.array(self.last[0] if isinstance(self.last, tuple) else self.last)


def training(
    functions: Jax, optimizer: Optimizer, weights: Arrays
) -> tuple[Any, Callable[..., Any]]:
    """The state (parameters, states, count, slots), and (state, data) to (state, loss)."""
    trained = {n: a for n, a in weights.items() if n not in functions.states}
    states = {n: weights[n] for n in functions.states}
    zeros = {n: np.zeros_like(a) for n, a in trained.items()}
    slots = tuple(dict(zeros) for _ in range(optimizer.slots))

    def step(state: Any, **data: Any) -> tuple[Any, Any]:
        parameters, states, count, slots = state

        def loss(parameters: Tree) -> tuple[Any, Tree]:
            found = functions.loss(parameters | states, **data)
            return found if functions.states else (found, {})

        (value, states), change = jax.value_and_grad(loss, has_aux=True)(parameters)
        parameters, slots = updated(optimizer, parameters, change, slots, count + 1)
        return (parameters, states, count + 1, slots), value

    return (trained, states, np.int32(0), slots), step


def updated(
    o: Optimizer, parameters: Tree, change: Tree, slots: tuple[Tree, ...], count: Any
) -> tuple[Tree, tuple[Tree, ...]]:
    """Parameters and slots after a step of the optimizer."""
    tree = partial(jax.tree.map)
    if isinstance(o, Sgd):
        if o.momentum:
            change = tree(lambda m, g: o.momentum * m + g, slots[0], change)
            slots = (change,)
        return tree(lambda w, d: w - o.lr * d, parameters, change), slots
    assert isinstance(o, Adam)
    if o.clip_norm is not None:
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(change)))
        change = tree(lambda g: g * jnp.minimum(1.0, o.clip_norm / (norm + 1e-6)), change)
    m = tree(lambda m, g: o.beta1 * m + (1 - o.beta1) * g, slots[0], change)
    v = tree(lambda v, g: o.beta2 * v + (1 - o.beta2) * g * g, slots[1], change)
    first, second = 1 - o.beta1**count, 1 - o.beta2**count

    def move(w: Any, m: Any, v: Any) -> Any:
        return w - o.lr * (m / first) / (jnp.sqrt(v / second) + o.eps)

    return tree(move, parameters, m, v), (m, v)


def looped(step: Callable[..., Any], batch: int) -> Callable[..., Any]:
    """`LOOP_STEPS` steps over as many batches as one `lax.scan`; the sum of the losses."""

    def loop(state: Any, **data: Any) -> tuple[Any, Any]:
        batches = {n: a.reshape(LOOP_STEPS, batch, *a.shape[1:]) for n, a in data.items()}

        def body(carry: Any, one: Tree) -> tuple[Any, None]:
            state, total = carry
            state, loss = step(state, **one)
            return (state, total + loss), None

        carry, _ = jax.lax.scan(body, (state, jnp.float32(0)), batches)
        return carry

    return loop
