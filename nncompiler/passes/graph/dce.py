"""Dead code elimination: nodes whose results nobody needs disappear.

    %0: f32[4] = exp %x                %1: f32[4] = neg %x
    %1: f32[4] = neg %x       ──▶      return y=%1
    return y=%1

A loop loses the stacks nobody reads, the carries that only feed themselves, and the operands its
body does not use.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.ops.scan import scan_parts
from nncompiler.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class DeadCode:
    """Keep only nodes a result depends on. Parameters stay: they are the interface."""

    name: ClassVar[str] = "dce"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        needed = {value.name for _, value in function.results}  # strings keep their hash
        kept: list[Node] = []
        for node in reversed(function.nodes):
            if not needed.isdisjoint([v.name for v in node.outputs]):
                after = prune_scan(node, needed) if node.op == "scan" else node
                kept.append(after)
                needed.update([v.name for v in after.inputs])
        nodes = tuple(reversed(kept))
        same = len(nodes) == len(function.nodes) and all(
            a is b for a, b in zip(nodes, function.nodes, strict=True)
        )
        return function if same else function.with_nodes(nodes)


def prune_scan(node: Node, needed: Collection[str]) -> Node:
    """A scan without the results nobody needs and what only they need; the same node when all is
    `needed` (names of values)."""
    s = scan_parts(node)
    stacks = [j for j in range(len(s.out_axes)) if node.outputs[s.carries + j].name in needed]
    carries = [j for j in range(s.carries) if node.outputs[j].name in needed]
    steps, carried, shared = s.split(s.params)
    while True:
        results = [s.next_carries[j] for j in carries] + [s.step_results[j] for j in stacks]
        used = _used(s.body, results)
        more = [j for j in range(s.carries) if j in carries or carried[j] in used]
        if more == carries:
            break
        carries = more
    sequences = [j for j, p in enumerate(steps) if p in used]
    captured = [j for j, p in enumerate(shared) if p in used]
    before = (len(steps), s.carries, len(shared), len(s.out_axes))
    if before == (len(sequences), len(carries), len(captured), len(stacks)):
        return node
    chosen = (
        {steps[j] for j in sequences}
        | {carried[j] for j in carries}
        | {shared[j] for j in captured}
    )
    body = replace(
        s.body,
        params=tuple(p for p in s.body.params if p.value in chosen),
        nodes=tuple(n for n in s.body.nodes if any(v in used for v in n.outputs)),
        results=tuple(
            [s.body.results[j] for j in carries] + [s.body.results[s.carries + j] for j in stacks]
        ),
    )
    given = s.split(node.inputs)
    inputs = (
        [given[0][j] for j in sequences]
        + [given[1][j] for j in carries]
        + [given[2][j] for j in captured]
    )
    attrs = dict(node.attrs) | {
        "axes": tuple(s.axes[j] for j in sequences),
        "carries": len(carries),
        "out_axes": tuple(s.out_axes[j] for j in stacks),
    }
    outputs = [node.outputs[j] for j in carries] + [node.outputs[s.carries + j] for j in stacks]
    return replace(
        node,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        attrs=tuple(sorted(attrs.items())),
        body=body,
    )


def _used(body: Function, results: list[Value]) -> set[Value]:
    """Everything in the body that `results` depend on, themselves included."""
    used = set(results)
    for node in reversed(body.nodes):
        if any(v in used for v in node.outputs):
            used.update(node.inputs)
    return used
