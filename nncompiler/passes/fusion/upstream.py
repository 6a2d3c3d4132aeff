"""Upstream: a kernel that makes several arrays for another one hands over a single array that
follows from them alone.

    %a, %b = fused %x {                          %e, %y = fused %x {
      %a = exp %x                                  %a = exp %x
      %b = sin %x                                  %b = sin %x
      %y = add %a, %b                              %y = add %a, %b
      yield %a, %b, %y                ──▶          %e = mul %a, %b
    }                                              yield %e, %y
    %d = fused %a, %b, %dy {                     }
      %e = mul %a, %b                            %d = mul %e, %dy
      %d = mul %e, %dy
      yield %d
    }

So the backward pass gets the derivative of an activation, which the forward pass computes on its
way, and not what the derivative is made of. Memory never grows, and nothing but operands of the
first kernel may be involved, so that the order of kernels stays as free as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.passes.fusion.grouping import find_frame
from nncompiler.passes.fusion.regroup import body_of, fused, is_group, readers_of
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Upstream:
    """To be run behind fusion; single nodes and groups are kernels by then."""

    name: ClassVar[str] = "upstream"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        kernels = list(function.nodes)
        maker = {v: k for k, n in enumerate(kernels) for v in n.outputs}
        readers, changed = readers_of(function), False
        for k, node in enumerate(kernels):
            for p in dict.fromkeys(maker[v] for v in node.inputs if v in maker):
                while moved := _handed_over(kernels[p], kernels[k], k, readers):
                    for v in kernels[k].inputs:
                        readers[v.name].discard(k)
                    kernels[p], kernels[k] = moved
                    for v in kernels[k].inputs:
                        readers.setdefault(v.name, set()).add(k)
                    maker.update(dict.fromkeys(kernels[p].outputs, p))
                    changed = True
        return function.with_nodes(kernels) if changed else function


def _handed_over(
    first: Node, second: Node, k: int, readers: Mapping[str, set[int]]
) -> tuple[Node, Node] | None:
    """Both kernels with the value that spares most memory traffic computed in the first; None
    where none does. `k` is the number of the second among the `readers` of values."""
    read = [v for v in second.inputs if v in first.outputs]
    if len(read) < 2 or not (is_group(first) and is_group(second)):
        return None
    others = {v for v in first.outputs if readers.get(v.name, set()) - {k}}
    nodes = body_of(second)
    best: tuple[int, Node, Node] | None = None
    for cone in _cones(nodes, first, second):
        value = cone[-1].output
        after = _without(nodes, value, second.outputs)
        left = {v for n in after for v in n.inputs}
        loads = sum(v.type.nbytes for v in read if v not in left) - value.type.nbytes
        stores = sum(v.type.nbytes for v in read if v not in left and v not in others)
        stores -= value.type.nbytes
        gain = loads + stores
        if min(loads, stores) >= 0 and gain > (best[0] if best else 0):
            kept = [v for v in first.outputs if v in others or v in left]
            found = _moved(first, second, cone, after, kept)
            best = (gain, *found) if found else best
    return best[1:] if best else None


def _cones(nodes: Sequence[Node], first: Node, second: Node) -> list[list[Node]]:
    """For every value of the second kernel that the first could compute: the nodes it takes."""
    cones: dict[Value, list[Node]] = {v: [] for v in (*first.inputs, *first.outputs)}
    found = []
    for node in nodes:
        plain = lookup(node.op).kind == "map" and not lookup(node.op).leaf_only(node)
        if not plain or node.output in second.outputs or any(v not in cones for v in node.inputs):
            continue
        cone = [*dict.fromkeys(n for v in node.inputs for n in cones[v]), node]
        cones[node.output] = cone
        if any(v in first.outputs for n in cone for v in n.inputs):
            found.append(cone)
    return found


def _without(nodes: Sequence[Node], value: Value, outputs: Sequence[Value]) -> list[Node]:
    """The nodes that are still needed for `outputs` where `value` is given."""
    needed, kept = set(outputs) - {value}, []
    for node in reversed(nodes):
        if value not in node.outputs and any(v in needed for v in node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return kept[::-1]


def _moved(
    first: Node, second: Node, cone: Sequence[Node], after: Sequence[Node], kept: Sequence[Value]
) -> tuple[Node, Node] | None:
    """Both kernels anew, where each is still one nest."""
    nodes = list({n.outputs: n for n in (*body_of(first), *cone)}.values())
    outputs = [*kept, cone[-1].output]
    if find_frame(nodes, outputs) is None or find_frame(after, second.outputs) is None:
        return None
    return fused(nodes, outputs), fused(after, second.outputs)
