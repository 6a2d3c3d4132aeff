"""Reverse-mode differentiation: appends to a function the gradient of one scalar result.

Before, `loss` of a network with one weight; after `differentiate(f, "loss", ["w"])`:

    graph @loss {                               graph @grad {
      input %x: f32[4,3]                          input %x: f32[4,3]
      param %w: f32[3]                            param %w: f32[3]
      %0: f32[4,3] = mul %x, %w                   %0: f32[4,3] = mul %x, %w
      %1: f32[] = reduce_sum %0                   %1: f32[] = reduce_sum %0
      return loss=%1                              %2: f32[4,3] = broadcast 1.0
    }                                             %3: f32[4,3] = mul %2, %x
                                                  %4: f32[3] = reduce_sum %3 {axes=[0]}
                                                  return loss=%1, grad.w=%4
                                                }

Only nodes on a path from a wanted parameter to the result are visited and no zero tensors are
made (`ir.sweep`). The output is plain graph, so it can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nncompiler.errors import UserError
from nncompiler.ir.graph import Builder, Function, Value
from nncompiler.ir.model import Network
from nncompiler.ir.sweep import backpropagate
from nncompiler.passes.graph.narrow import Narrow
from nncompiler.record import dataclass, replace


def differentiate(
    function: Function,
    loss: str,
    wanted: Sequence[Value],
    name: str = "grad",
    prefix: str = "grad.",
) -> Function:
    """`function` with the gradient of result `loss` with respect to each of `wanted` as further
    results.

    The new results are called `prefix` + the value's name and have the value's type; a value the
    loss does not depend on gets zeros. Source: Baydin et al. 2018, reverse accumulation.
    `UserError` NN0401 when the result is no scalar.
    """
    b = Builder.extending(function, name)
    root = function.result(loss)
    cotangents = backpropagate(b, function.nodes, {root: _seed(b, root, loss)}, wanted)
    results = list(function.results)
    for value in wanted:
        found = cotangents.get(value)
        results.append((prefix + value.name, b.full(0.0, value.type) if found is None else found))
    return b.finish(results)


def input_grad(network: Network) -> Function:
    """The losses in prediction, and of each the gradient for every float input it reads:
    `grad.INPUT`, or `grad.LOSS.INPUT` where there are several losses."""
    plain = Narrow().run(network.function("loss"))
    losses = tuple((n, v) for n, v in plain.results if n in network.losses)
    found = replace(plain, results=losses)
    wanted = [v for v in plain.params_of("input") if v.dtype.is_float]
    for name in network.losses:
        prefix = "grad." if len(network.losses) == 1 else f"grad.{name}."
        found = differentiate(found, name, wanted, "input_grad", prefix)
    return found


def _seed(b: Builder, root: Value, loss: str) -> Value:
    if root.type.shape != () or not root.dtype.is_float:
        raise UserError(
            "NN0401", f"expected a float scalar to differentiate, but '{loss}' is {root.type}"
        )
    return b.const(1.0, root.dtype)


@dataclass(frozen=True, slots=True)
class Autodiff:
    """As a pass: the gradient of the result `loss` with respect to every parameter of kind
    `of`."""

    name: ClassVar[str] = "autodiff"
    nested: ClassVar[bool] = False
    loss: str = "loss"
    of: str = "param"

    def run(self, function: Function) -> Function:
        return differentiate(function, self.loss, function.params_of(self.of), function.name)
