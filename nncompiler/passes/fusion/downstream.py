"""Downstream: what follows cheaply from other arrays that a kernel reads or stores is not stored
as well; who reads it computes it.

    %c, %r, %n, %y = fused %x {                  %c, %r, %y = fused %x {
      ...                                          ...
      %n = mul %c, %r                              %n = mul %c, %r
      %y = mul %n, %gain                           %y = mul %n, %gain
      yield %c, %r, %n, %y                ──▶      yield %c, %r, %y
    }                                            }
    %g = fused %n, %dy {                         %g = fused %c, %r, %dy {
      %a = mul %n, %dy                             %n = mul %c, %r
      %g = reduce_sum %a                           %a = mul %n, %dy
      yield %g                                     %g = reduce_sum %a
    }                                              yield %g
                                                 }

So the backward pass of a normalisation reads the centred values alone, and one gradient where that
of its output is needed with and without the gain; or not even these, where a mean is of so many
elements that it is stored instead. In all, less memory is written and read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import ClassVar

from nncompiler.ir.analysis import UPDATE
from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.passes.fusion.grouping import expensive, find_frame
from nncompiler.passes.fusion.regroup import CALLER, body_of, fused, is_group, readers_of
from nncompiler.record import dataclass

#: An array is made again with what is stored for that where so many elements share one of it.
_SPREAD = 1024


@dataclass(frozen=True, slots=True)
class Downstream:
    """To be run behind fusion; single nodes and groups are kernels by then."""

    name: ClassVar[str] = "downstream"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        kernels = list(function.nodes)
        readers, changed = readers_of(function), False
        maker = {v.name: k for k, n in enumerate(kernels) for v in n.outputs}
        written = {
            name.removeprefix(UPDATE): maker.get(v.name, 0)
            for name, v in function.results
            if name.startswith(UPDATE)
        }
        copied = _copied(kernels)
        for k, node in enumerate(kernels):
            for value in node.outputs if is_group(node) else ():
                by = sorted(readers.get(value.name, {CALLER}))
                if CALLER in by:
                    continue
                old = {name for name, writer in written.items() if writer <= by[-1]}
                moved = _left_to(kernels[k], value, [kernels[r] for r in by], old, copied)
                if moved is None:
                    continue
                changed = True
                copied.add(value.name)
                for r, new in zip((k, *by), moved, strict=True):
                    kernels[r] = new
                    for v in new.inputs:
                        readers.setdefault(v.name, set()).add(r)
        return function.with_nodes(kernels) if changed else function


def _copied(kernels: Sequence[Node]) -> set[str]:
    """What several kernels make, each for itself, such as constants."""
    nodes = (n for k in kernels for n in (body_of(k) if is_group(k) else (k,)))
    times = Counter(v.name for n in nodes for v in n.outputs)
    return {name for name, n in times.items() if n > 1}


def _left_to(
    first: Node,
    value: Value,
    readers: Sequence[Node],
    overwritten: Collection[str],
    copied: Collection[str],
) -> list[Node] | None:
    """The first kernel without `value`, then the readers, which compute it; None where they
    cannot, as operands are `overwritten` by then or `copied` in kernels that do not say so, or
    where that spares no memory traffic."""
    made = next(n for n in body_of(first) if value in n.outputs)
    operator = lookup(made.op)
    if operator.kind != "map" or operator.leaf_only(made) or expensive(made):
        return None
    if not made.inputs or any(v.name in overwritten for v in made.inputs):
        return None
    if not all(map(is_group, readers)):
        return None
    given = {*first.outputs, *first.inputs}
    stored = [v for v in dict.fromkeys(made.inputs) if v not in given]
    if any(v.name in copied or v.type.size * _SPREAD > value.type.size for v in stored):
        return None
    spared = value.type.nbytes - sum(v.type.nbytes for v in stored)
    for reader in readers:
        more = {v for v in made.inputs if v not in reader.inputs}
        spared += value.type.nbytes - sum(v.type.nbytes for v in more)
    if spared <= 0:
        return None
    left = [(body_of(first), [*(v for v in first.outputs if v != value), *stored])]
    left += [((made, *body_of(reader)), list(reader.outputs)) for reader in readers]
    if any(find_frame(nodes, outputs) is None for nodes, outputs in left):
        return None
    return [fused(nodes, outputs) for nodes, outputs in left]
