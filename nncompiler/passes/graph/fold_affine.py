"""Scales and shifts behind a contraction, folded into its weights: batch normalisation as it is in
inference.

    %0 = contract %x, %w {...}             %s = mul %gain, %rsqrt      vectors, from parameters
    %1 = sub %0, %mean                     %t = sub %shift, %mean*%s   and states alone
    %2 = mul %1, %rsqrt          ──▶       %v = mul %w, %s
    %3 = mul %2, %gain                     %0 = contract %x, %v {...}
    %4 = add %3, %shift                    %4 = add %0, %t

Everything but `%x` must follow from parameters and states. Where the weights have more elements
than the result, they stay as they are and the scale is one product behind the contraction. Only
functions that neither differentiate nor update are changed; results are equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.ops.contract import spec_of
from nncompiler.record import dataclass

#: Results that say that a function trains.
_TRAINING = ("update.", "grad.")


@dataclass(frozen=True, slots=True)
class FoldAffine:
    """Chains of at least two links, one of them a scale, behind a contraction with weights."""

    name: ClassVar[str] = "fold-affine"
    nested: ClassVar[bool] = False

    def run(self, function: Function) -> Function:
        if any(name.startswith(_TRAINING) for name, _ in function.results):
            return function
        fixed = _fixed(function)
        users, results = function.users(), {v for _, v in function.results}
        only = {v: u[0] for v, u in users.items() if len(u) == 1 and v not in results}
        chains = {c[-1]: c for n in function.nodes if (c := _chain(n, only, fixed))}
        return _rebuilt(function, chains, fixed) if chains else function


def _fixed(function: Function) -> set[Value]:
    """What follows from parameters, states and constants alone by elementwise work."""
    found = set(function.params_of("param", "state"))
    for node in function.nodes:
        kind = lookup(node.op).kind
        if kind in ("map", "view") and all(v in found for v in node.inputs):
            found.update(node.outputs)
    return found


def _chain(start: Node, only: dict[Value, Node], fixed: set[Value]) -> list[Node]:
    """A contraction with weights and the links behind it, each the only reader of the one before;
    empty where folding gains nothing."""
    if lookup(start.op).kind != "contract" or not start.output.dtype.is_float:
        return []
    if [v in fixed for v in start.inputs].count(True) != 1 or len(start.inputs) != 2:
        return []
    chain, scales = [start], 0
    while (link := only.get(chain[-1].output)) is not None:
        found = _link(Builder("probe"), link, chain[-1].output, fixed)
        if found is None or link.output.shape != start.output.shape:
            break
        chain.append(link)
        scales += found[0] is not None
    return chain if scales and len(chain) > 2 else []


def _link(
    b: Builder, node: Node, value: Value, fixed: set[Value]
) -> tuple[Value | None, Value | None] | None:
    """Scale and shift of a node that is affine in `value`, all else being fixed."""
    if node.inputs.count(value) != 1 or any(v not in fixed for v in node.inputs if v != value):
        return None
    return lookup(node.op).affine(b, node, node.inputs.index(value))


def _rebuilt(function: Function, chains: dict[Node, list[Node]], fixed: set[Value]) -> Function:
    b = Builder(function.name)
    new = {p.value: b.param(p.kind, p.value.name, p.value.type) for p in function.params}
    for node in function.nodes:
        with b.at(node.span):
            if node in chains:
                new[node.output] = _folded(b, chains[node], new, fixed)
            else:
                copied = b.copy(node, [new[v] for v in node.inputs])
                new.update(zip(node.outputs, copied, strict=True))
    return b.finish([(name, new[v]) for name, v in function.results])


def _folded(
    b: Builder, chain: Sequence[Node], new: dict[Value, Value], fixed: set[Value]
) -> Value:
    """The value of the last link: (contraction of scaled weights) + shift, or
    contraction * scale + shift."""
    start, *links = chain
    scale: Value | None = None
    shift: Value | None = None
    value = start.output
    for link in links:
        given = tuple(new.get(v, v) for v in link.inputs)
        moved = Node(link.op, given, link.outputs, link.attrs, None, link.span)
        found = lookup(link.op).affine(b, moved, link.inputs.index(value))
        assert found is not None
        factor, term = found
        if factor is not None:
            scale = factor if scale is None else b.emit("mul", scale, factor)
            shift = None if shift is None else b.emit("mul", shift, factor)
        if term is not None:
            shift = term if shift is None else b.emit("add", shift, term)
        value = link.output
    assert scale is not None
    k = 0 if start.inputs[0] in fixed else 1
    inputs = [new[v] for v in start.inputs]
    weights = _scaled(b, start, k, inputs[k], scale)
    inputs[k] = inputs[k] if weights is None else weights
    (result,) = b.copy(start, inputs)
    result = b.emit("mul", result, scale) if weights is None else result
    return result if shift is None else b.emit("add", result, shift)


def _scaled(b: Builder, node: Node, k: int, weights: Value, scale: Value) -> Value | None:
    """Operand `k` times a scale of the result, where it runs over axes that the operand has."""
    if weights.type.size > node.output.type.size:
        return None
    spec = spec_of(node)
    lead = node.output.type.rank - scale.type.rank
    moving = [spec.output[lead + d] for d, n in enumerate(scale.shape) if n != 1]
    own = [form.single for form in spec.operands[k]]
    if any(own.count(axis) != 1 for axis in moving):
        return None
    vector = b.emit("reshape", scale, shape=tuple(n for n in scale.shape if n != 1))
    order = sorted(range(len(moving)), key=lambda m: own.index(moving[m]))
    vector = b.emit("transpose", vector, perm=tuple(order)) if len(order) > 1 else vector
    shape = tuple(
        n if axis in moving else 1 for axis, n in zip(own, weights.shape, strict=True)
    )
    return b.emit("mul", weights, b.emit("reshape", vector, shape=shape))
