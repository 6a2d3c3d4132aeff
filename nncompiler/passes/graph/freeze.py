"""Parameters as constants: what follows from them alone is computed while the model is compiled.

    param %W, %variance, %table                        param %W, %7, %9
    %7 = rsqrt %variance
    %8 = mul %x, %7                          ──▶       %8 = mul %x, %7
    %9 = contract %table, %W {i k, k j -> i j}
    %10 = gather %9, %text                             %10 = gather %9, %text

New parameters take the place of old ones. What only moves data stays, and what would be much
larger than its operands. Values are those of the operators' references, so that results are those
of the model up to rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from nncompiler.ir.graph import Builder, Function, Node, Param, Value
from nncompiler.ir.interp import evaluate_node
from nncompiler.ir.op import lookup
from nncompiler.ir.types import Array
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.record import dataclass, field, replace

#: How many times as large as its operands together a value may be.
_GROWTH = 2


def freeze(function: Function, values: Mapping[str, Array]) -> tuple[Function, dict[str, Array]]:
    """The function of fewer, new parameters and their values; `values` are those of the old
    parameters by name, whoever reads them.
    """
    function = _arranged(function, values.keys())
    facts = _Constants.of(function, values)
    nodes = [n for n in function.nodes if not facts.follows(n)]
    for value in (*(v for n in nodes for v in n.inputs), *(v for _, v in function.results)):
        facts.need(value)
    nodes = [n for n in function.nodes if n in facts.moved or not facts.follows(n)]
    params = [p for p in function.params if p.value not in facts.values or p.value in facts.needed]
    old = {p.value for p in params}
    params += [Param("param", v) for v in facts.needed if v not in old]
    found = replace(function, params=tuple(params), nodes=tuple(nodes))
    return found, {v.name: np.array(a, order="C") for v, a in facts.needed.items()}


def _arranged(function: Function, names: Collection[str]) -> Function:
    """`function` with nodes of which more follows from parameters with these names alone, where
    that is not much larger than all of these."""
    b = Builder(function.name)
    new = {p.value: b.param(p.kind, p.value.name, p.value.type) for p in function.params}
    constants = {v for v in new.values() if v.name in names}
    held = sum(v.type.size for v in constants)
    definitions = dict[Value, Node]()
    for node in function.nodes:
        seen, inputs = len(b.nodes), [new[v] for v in node.inputs]
        with b.at(node.span):
            probe = replace(node, inputs=tuple(inputs))
            better = lookup(node.op).by_constants(b, probe, definitions, constants)
            tables = [n for n in b.nodes[seen:] if constants.issuperset(n.inputs)]
            small = sum(v.type.size for n in tables for v in n.outputs) <= _GROWTH * held
            outputs = (better,) if better is not None and small else b.copy(node, inputs)
        new.update(zip(node.outputs, outputs, strict=True))
        for made in b.nodes[seen:]:
            definitions.update((v, made) for v in made.outputs)
            if _computable(made) and constants.issuperset(made.inputs):
                constants.update(made.outputs)
    return DeadCode().run(b.finish([(name, new[v]) for name, v in function.results]))


def _computable(node: Node) -> bool:
    """Whether a node of constants is one, too."""
    size = sum(v.type.size for v in node.outputs)
    return node.body is None and size <= max(1, _GROWTH * sum(v.type.size for v in node.inputs))


@dataclass(slots=True)
class _Constants:
    """`values` of all that follows from parameters; those that what does not follow has `needed`,
    and the nodes that it has as they are: they have only `moved` data."""

    values: dict[Value, Array]
    makers: dict[Value, Node] = field(default_factory=dict)
    needed: dict[Value, Array] = field(default_factory=dict)
    moved: set[Node] = field(default_factory=set)

    @classmethod
    def of(cls, function: Function, values: Mapping[str, Array]) -> _Constants:
        found = cls({v: values[v.name] for v in function.params_of("param", "state")})
        for node in function.nodes:
            if _computable(node) and found.values.keys() >= set(node.inputs):
                evaluate_node(node, found.values)
                found.makers.update((v, node) for v in node.outputs)
        return found

    def follows(self, node: Node) -> bool:
        return all(v in self.makers for v in node.outputs)

    def need(self, value: Value) -> None:
        if value not in self.values:
            return
        maker = self.makers.get(value)
        if maker is None or (maker.inputs and not _moves(maker)):
            self.needed[value] = self.values[value]
        else:
            self.moved.add(maker)
            for v in maker.inputs:
                self.need(v)


def _moves(node: Node) -> bool:
    operator = lookup(node.op)
    return operator.cheap or operator.kind == "view"
