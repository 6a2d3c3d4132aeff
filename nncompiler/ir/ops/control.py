"""Operators that own a body. `fused` computes the results of its body in one kernel."""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.ir.graph import Function, Node
from nncompiler.ir.op import Operator, Sample, expect, expect_inputs, lookup
from nncompiler.ir.types import Array, TensorType


def body_of(node: Node) -> Function:
    expect(node.body is not None, f"'{node.op}' needs a body")
    assert node.body is not None
    return node.body


class Fused(Operator):
    """A group of nodes for one kernel: its operands are the body's parameters, in order."""

    name = "fused"
    kind = "region"
    differentiable = False

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        body = body_of(node)
        expect_inputs(node, len(body.params))
        for given, param in zip(node.inputs, body.params, strict=True):
            expect(
                given.type == param.value.type,
                f"the body of 'fused' takes {param.value}: {param.value.type}, "
                f"but {given} is {given.type}",
            )
        return tuple(value.type for _, value in body.results)

    def reference(self, node: Node, *inputs: Array) -> tuple[Array, ...]:
        from nncompiler.ir.interp import evaluate

        return evaluate(body_of(node), inputs)

    def samples(self) -> Sequence[Sample]:
        return ()

    def operations(self, node: Node) -> int:
        return sum(lookup(n.op).operations(n) for n in body_of(node).nodes)
