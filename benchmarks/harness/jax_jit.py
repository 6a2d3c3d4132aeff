"""JAX: one jitted function per step, the state donated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jaxlib
import numpy as np
from jax import numpy as jnp

from harness.implementation import Implementation
from harness.workload import Array, Arrays, Sgd, Workload


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
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays
    ) -> str:
        assert weights is not None
        functions = workload.jax()
        if kind == "train":
            slots = [weights] * workload.optimizer.slots
            state = (weights, *(jax.tree.map(np.zeros_like, s) for s in slots))
            step = training_step(functions.loss, workload.optimizer)
            self.run(step, state, [*data], [*data.values()], donate=True)
        else:
            inputs = [data[name] for name in workload.inputs]
            infer: Callable[..., Any] = lambda p, **given: (p, functions.infer(p, **given))  # noqa: E731
            self.run(infer, weights, [*workload.inputs], inputs, donate=False)
        return ""

    def run(
        self, step: Callable[..., Any], state: Any, names: list[str], values: list[Array],
        donate: bool,
    ) -> None:  # fmt: skip
        self.initial, structure = jax.tree.flatten(state)
        given = [jax.device_put(value) for value in values]

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
        return np.array(self.last)


def training_step(loss: Callable[..., Any], optimizer: Sgd) -> Callable[..., Any]:
    """(state, data) to (state, loss); the state is the parameters and the optimizer's slots."""

    def step(state: tuple[Any, ...], **data: Any) -> tuple[tuple[Any, ...], Any]:
        value, change = jax.value_and_grad(partial(loss, **data))(state[0])
        slots = state[1:]
        if optimizer.momentum:
            change = jax.tree.map(lambda m, g: optimizer.momentum * m + g, slots[0], change)
            slots = (change,)
        return (jax.tree.map(lambda w, d: w - optimizer.lr * d, state[0], change), *slots), value

    return step
