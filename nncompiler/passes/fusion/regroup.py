"""The function with one node for each group of nodes: kernels to be."""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.errors import Span
from nncompiler.ir.graph import Function, Node, Param, Value
from nncompiler.ir.op import lookup
from nncompiler.passes.fusion.grouping import is_loop
from nncompiler.passes.fusion.groups import Group, Groups
from nncompiler.record import replace

#: Who reads the results of a function.
CALLER = -1


def regrouped(groups: Groups) -> Function:
    """The function with one node per group, in an order that respects every need."""
    return _Regrouping(groups).function()


class _Regrouping:
    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.nodes: list[Node] = []
        self.viewed: set[int] = set()

    def function(self) -> Function:
        g, old = self.groups, self.groups.nodes
        values = {v.name: v for n in old for v in n.outputs}
        for group in self._ordered():
            for k in group.nodes:
                for v in g.inputs[k]:
                    self._emit_view(g.position.get(v))
            outputs = [values[v] for v in g.outputs_of(group)]
            self.nodes.append(fused([old[k] for k in group.nodes], outputs))
        for k, node in enumerate(old):
            if g.view[k] and node.output.name in g.results:
                self._emit_view(k)
        return replace(g.function, nodes=tuple(self.nodes))

    def _ordered(self) -> list[Group]:
        groups = self.groups.groups
        order: list[Group] = []
        placed: set[int] = set()
        waiting = sorted(groups, key=lambda g: max(groups[g].own))
        while waiting:
            ready = next(g for g in waiting if groups[g].needs <= placed)
            waiting.remove(ready)
            placed.add(ready)
            order.append(groups[ready])
        return order

    def _emit_view(self, k: int | None) -> None:
        """The views that lead to a value, in front of who reads them."""
        if k is None or not self.groups.view[k] or k in self.viewed:
            return
        self._emit_view(self.groups.position.get(self.groups.inputs[k][0]))
        self.viewed.add(k)
        self.nodes.append(self.groups.nodes[k])


def fused(nodes: Sequence[Node], outputs: Sequence[Value]) -> Node:
    """A `fused` node whose region is `nodes`; its parameters and results keep their names."""
    if len(nodes) == 1:
        return nodes[0]
    made = {v for n in nodes for v in n.outputs}
    inputs = tuple(dict.fromkeys(v for n in nodes for v in n.inputs if v not in made))
    body = Function(
        "body",
        tuple(Param("operand", v) for v in inputs),
        tuple(nodes),
        tuple((v.name, v) for v in outputs),
    )
    return Node("fused", inputs, tuple(outputs), (), body, _span(nodes))


def is_group(kernel: Node) -> bool:
    """Whether a kernel is several nodes."""
    return kernel.body is not None and not is_loop(kernel)


def readers_of(function: Function) -> dict[str, set[int]]:
    """The numbers of the kernels that read each value, by name; `CALLER` for who calls."""
    readers = {v.name: {CALLER} for _, v in function.results}
    for k, node in enumerate(function.nodes):
        for v in node.inputs:
            readers.setdefault(v.name, set()).add(k)
    return readers


def body_of(group: Node) -> tuple[Node, ...]:
    assert group.body is not None
    return group.body.nodes


def _span(nodes: Sequence[Node]) -> Span | None:
    """Where a group stems from: its first node that is more than arithmetic, or else its first.
    A constant says little, since equal ones of all lines are one."""
    spans = [(lookup(n.op).kind, n.span) for n in nodes if n.span and n.inputs]
    spans += [("map", n.span) for n in nodes if n.span]
    return next((span for kind, span in spans if kind != "map"), spans[0][1] if spans else None)
