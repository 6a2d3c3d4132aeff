"""What makes `init` fit the state: its results become updates, each with a node of its own.

    return h1.W=%9, h1.b=%11  ──▶  param %h1.W: ..., param %h1.b: ...
                                   return update.h1.W=%9, update.h1.b=%11
"""

from __future__ import annotations

from nncompiler.ir.graph import Function, Node, Param, Value
from nncompiler.record import replace


def writing(init: Function) -> Function:
    """`init` with its results as updates of the parameters, which the schedule writes in place."""
    params = tuple(Param("param", Value(name, value.type)) for name, value in init.results)
    results = tuple((f"update.{name}", value) for name, value in init.results)
    return replace(init, params=init.params + params, results=results)


def apart(init: Function) -> Function:
    """`init` with a node for each result: it has no arena for what two parameters share."""
    makers, nodes, results = init.definitions(), list(init.nodes), []
    taken: set[Value] = set()
    for name, value in init.results:
        if value in taken:
            copy = Value(f"{value.name}.{name}", value.type)
            nodes.append(_renamed(makers[value], value, copy))
            value = copy
        taken.add(value)
        results.append((name, value))
    return replace(init, nodes=tuple(nodes), results=tuple(results))


def _renamed(node: Node, old: Value, new: Value) -> Node:
    """`node` with its result called `new`, in its body too: that is where a group makes it."""

    def swap(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(new if v == old else v for v in values)

    body = node.body
    if body is not None:
        inner = [replace(n, inputs=swap(n.inputs), outputs=swap(n.outputs)) for n in body.nodes]
        results = tuple((name, new if v == old else v) for name, v in body.results)
        body = replace(body, nodes=tuple(inner), results=results)
    return replace(node, outputs=swap(node.outputs), body=body)
