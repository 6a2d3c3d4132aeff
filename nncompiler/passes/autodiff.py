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

Only nodes on a path from a wanted parameter to the result are visited, no zero tensors are made, and unbroadcasting
happens here, once, for every operator. The output is plain graph, so it can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nncompiler.errors import UserError
from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.op import lookup


def differentiate(
    function: Function, loss: str, wanted: Sequence[Value], name: str = "grad", prefix: str = "grad."
) -> Function:
    """`function` with the gradient of result `loss` with respect to each of `wanted` as further results.

    The new results are called `prefix` + the value's name and have the value's type; a value the loss does not depend
    on gets zeros. Source: Baydin et al. 2018, reverse accumulation. `UserError` NN0401 when the result is no scalar.
    """
    b = Builder.extending(function, name)
    root = function.result(loss)
    cotangents = backpropagate(b, function.nodes, {root: _seed(b, root, loss)}, wanted)
    results = list(function.results)
    for value in wanted:
        found = cotangents.get(value)
        results.append((prefix + value.name, b.full(0.0, value.type) if found is None else found))
    return b.finish(results)


def _seed(b: Builder, root: Value, loss: str) -> Value:
    if root.type.shape != () or not root.dtype.is_float:
        raise UserError("NN0401", f"expected a float scalar to differentiate, but '{loss}' is {root.type}")
    return b.const(1.0, root.dtype)


def backpropagate(
    b: Builder, nodes: Sequence[Node], seeds: dict[Value, Value], wanted: Sequence[Value]
) -> dict[Value, Value]:
    """The sweep: from cotangents of some values to those of `wanted` (and of everything between)."""
    active = _depends_on(nodes, wanted)
    sums: dict[Value, Value] = dict(seeds)
    for node in reversed(nodes):
        operator = lookup(node.op)
        if not operator.differentiable or not any(v in active for v in node.inputs):
            continue
        given = tuple(sums.get(v) for v in node.outputs)
        if all(g is None for g in given):
            continue
        with b.at(node.span):
            start = len(b.nodes)
            found = operator.gradient(b, node, given)
            wanted_here = [(v, c) for v, c in zip(node.inputs, found, strict=True) if c and v in active]
            _prune(b, start, {c for _, c in wanted_here})
            for value, cotangent in wanted_here:
                cotangent = unbroadcast(b, cotangent, value)
                sums[value] = b.emit("add", sums[value], cotangent) if value in sums else cotangent
    return sums


def _depends_on(nodes: Sequence[Node], wanted: Sequence[Value]) -> set[Value]:
    """Float values through which a derivative with respect to `wanted` can flow."""
    active = set(wanted)
    for node in nodes:
        if lookup(node.op).differentiable and any(v in active for v in node.inputs):
            active.update(v for v in node.outputs if v.dtype.is_float)
    return active


def _prune(b: Builder, start: int, needed: set[Value]) -> None:
    """Drop what a gradient rule emitted for operands whose cotangent nobody asked for."""
    kept: list[Node] = []
    for node in reversed(b.nodes[start:]):
        # constants are shared by the whole builder, so they stay
        if node.op == "constant" or any(v in needed for v in node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    b.nodes[start:] = reversed(kept)


def unbroadcast(b: Builder, cotangent: Value, value: Value) -> Value:
    """Sum a cotangent over the axes along which `value` was broadcast, and give it the value's shape."""
    if cotangent.shape == value.shape:
        return cotangent
    lead = len(cotangent.shape) - len(value.shape)
    if lead < 0:
        return b.emit("broadcast", cotangent, shape=value.shape)
    stretched = tuple(range(lead)) + tuple(
        d + lead for d, n in enumerate(value.shape) if n == 1 and cotangent.shape[d + lead] != 1
    )
    if stretched:
        cotangent = b.emit("reduce_sum", cotangent, axes=stretched, keepdims=False)
    if cotangent.shape != value.shape:
        missing_only = cotangent.type.size == value.type.size
        cotangent = b.emit("reshape" if missing_only else "broadcast", cotangent, shape=value.shape)
    return cotangent




@dataclass(frozen=True, slots=True)
class Autodiff:
    """As a pass: the gradient of the result `loss` with respect to every parameter of kind `of`."""

    name: ClassVar[str] = "autodiff"
    loss: str = "loss"
    of: str = "param"

    def run(self, function: Function) -> Function:
        return differentiate(function, self.loss, function.params_of(self.of), function.name)
