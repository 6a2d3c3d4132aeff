"""A model as the table of its calls: what stands in the source, what comes out, what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from nncompiler.errors import Span
from nncompiler.ir.graph import Function, Node, Value
from nncompiler.record import dataclass
from nncompiler.report.cost import Work
from nncompiler.report.shares import arithmetic


@dataclass(frozen=True, slots=True)
class Call:
    """One call in the source: its text, the last value it makes, the parameters it is the first
    to read, and its arithmetic in the forward pass, before any optimisation."""

    text: str
    line: int
    result: Value
    parameters: tuple[Value, ...]
    work: Work

    @property
    def size(self) -> int:
        """Elements of the parameters."""
        return sum(v.type.size for v in self.parameters)


def call_text(span: Span) -> str:
    """What stands at a place of the source, as far as its first line; empty if unknown."""
    if span.source is None:
        return ""
    line = span.source.line(span.line)
    return line[span.column - 1 : span.column - 1 + span.width].strip()


def runs(nodes: Iterable[Node]) -> list[tuple[Span, list[Node]]]:
    """Nodes of one place in the source that follow each other, constants left out.

    A layer that is used twice makes two runs.
    """
    shown = (n for n in nodes if n.op != "constant")
    groups = ((span, list(group)) for span, group in groupby(shown, key=lambda n: n.span))
    return [(span, group) for span, group in groups if span is not None]


def calls(function: Function) -> tuple[Call, ...]:
    """The calls of a function in order; what has no place in the source is left out."""
    free = set(function.params_of("param"))
    found = []
    for span, nodes in runs(function.nodes):
        held = [v for v in dict.fromkeys(v for n in nodes for v in n.inputs) if v in free]
        free.difference_update(held)
        found.append(
            Call(call_text(span), span.line, nodes[-1].outputs[-1], tuple(held), _work(nodes))
        )
    return tuple(found)


def _work(nodes: Iterable[Node]) -> Work:
    """The arithmetic of nodes; a region's as often as it runs."""
    total = Work()
    for node in nodes:
        if node.body is None:
            total += arithmetic(node)
        else:
            rounds, once = _rounds(node), _work(node.body.nodes)
            total += Work(rounds * once.multiply_adds, rounds * once.elements)
    return total


def _rounds(node: Node) -> int:
    extent = dict(node.attrs).get("extent", 1)
    return extent if isinstance(extent, int) else 1
