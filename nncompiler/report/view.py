"""A function as a directed graph of networkx, for analyses of one's own: longest chains, cuts,
what follows from what. A view: nothing of the compiler keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncompiler.ir.graph import Function, Node
from nncompiler.ir.ops.scan import scan_parts
from nncompiler.passes.fusion.grouping import is_loop
from nncompiler.report.shares import arithmetic

if TYPE_CHECKING:
    from networkx import DiGraph


def digraph(function: Function) -> DiGraph:
    """Parameters and nodes, each called as its first value is, in an order in which they can run.

    They have an `op` (of parameters their kind), the `line` of the source or None, the `bytes` of
    their values and the `flops` that make them, of all rounds of a loop together. Edges go from
    what makes a value to what reads it, with the `bytes` of all values that go along them. The
    attribute `results` of the graph has the results: name to node.
    """
    from networkx import DiGraph

    found = DiGraph(name=function.name)
    makers: dict[str, str] = {}
    for param in function.params:
        name = makers[param.value.name] = param.value.name
        found.add_node(name, op=param.kind, line=None, bytes=param.value.type.nbytes, flops=0)
    for node in function.nodes:
        name = node.outputs[0].name
        makers |= dict.fromkeys((v.name for v in node.outputs), name)
        size = sum(v.type.nbytes for v in node.outputs)
        line = None if node.span is None else node.span.line
        found.add_node(name, op=node.op, line=line, bytes=size, flops=_flops(node))
        for value in dict.fromkeys(node.inputs):
            maker = makers[value.name]
            moved = found.get_edge_data(maker, name, {"bytes": 0})["bytes"] + value.type.nbytes
            found.add_edge(maker, name, bytes=moved)
    found.graph["results"] = {name: makers[v.name] for name, v in function.results}
    return found


def _flops(node: Node) -> int:
    if node.body is None:
        return arithmetic(node).flops
    rounds = scan_parts(node).extent if is_loop(node) else 1
    return rounds * sum(map(_flops, node.body.nodes))
