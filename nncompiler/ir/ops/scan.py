"""`scan`: a body applied along an axis, carrying values from one step to the next; it stays a
loop down to machine code.

    %ys, %last = scan %xs, %zero, %w {axes=[1], carries=1, extent=64, out_axes=[0], reverse=false}
    {
      operand %x: f32[32,8]          // one step of xs: its axis 1 taken away
      operand %h: f32[32,16]         // the carry
      operand %w: f32[8,16]          // captured: the same in every step
      …
      yield h=%next, y=%next         // the carries' next values, then what is stacked
    }

Operands and results: first the sequences (one per entry of `axes`), then the carries, then what
is captured; the results are the carries after the last step, then the stacks (one per entry of
`out_axes`, the axis the steps run along).
`reverse` runs the steps from the last to the first; a stack's element t is always that of step t.
With `recompute=true` the gradient keeps the carries alone and computes what else it reads again,
step by step; the scan that does so bears the attribute too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncompiler.ir.graph import Attr, Builder, Function, Node, Value
from nncompiler.ir.op import Operator, Sample, expect, expect_inputs, lookup
from nncompiler.ir.ops.common import Cotangents, Grads, attribute, integer
from nncompiler.ir.ops.control import body_of
from nncompiler.ir.types import Array, TensorType
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class ScanParts:
    """The operands, parameters and results of a scan by role."""

    node: Node
    body: Function
    extent: int
    axes: tuple[int, ...]
    carries: int
    out_axes: tuple[int, ...]

    @property
    def reverse(self) -> bool:
        return bool(self.node.attr("reverse"))

    @property
    def recompute(self) -> bool:
        return bool(attribute(self.node, "recompute", False))

    def split(
        self, values: Sequence[Value]
    ) -> tuple[tuple[Value, ...], tuple[Value, ...], tuple[Value, ...]]:
        """Operands, or parameters of the body, as (sequences or their steps, carries,
        captured)."""
        x, c = len(self.axes), len(self.axes) + self.carries
        return tuple(values[:x]), tuple(values[x:c]), tuple(values[c:])

    @property
    def params(self) -> tuple[Value, ...]:
        return tuple(p.value for p in self.body.params)

    @property
    def next_carries(self) -> tuple[Value, ...]:
        return tuple(v for _, v in self.body.results[: self.carries])

    @property
    def step_results(self) -> tuple[Value, ...]:
        """What is stacked, per step."""
        return tuple(v for _, v in self.body.results[self.carries :])


def scan_parts(node: Node) -> ScanParts:
    return ScanParts(
        node,
        body_of(node),
        integer(node, "extent"),
        node.ints("axes"),
        integer(node, "carries"),
        node.ints("out_axes"),
    )


def stepped(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape of one step of a sequence."""
    return (*shape[:axis], *shape[axis + 1 :])


def stacked(shape: tuple[int, ...], axis: int, extent: int) -> tuple[int, ...]:
    """The shape of `extent` steps along `axis`."""
    return (*shape[:axis], extent, *shape[axis:])


class Scan(Operator):
    """A body applied along an axis, carrying values from one step to the next."""

    name = "scan"
    kind = "region"
    loops = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        s = scan_parts(node)
        expect(s.extent >= 1, f"'scan' expected an extent of 1 or more, but found {s.extent}")
        expect_inputs(node, len(s.body.params))
        expect(
            len(s.body.results) == s.carries + len(s.out_axes),
            "'scan' expected a result per carry and stack",
        )
        sequences, carries, _ = s.split(node.inputs)
        for value, axis in zip(sequences, s.axes, strict=True):
            fits = 0 <= axis < value.type.rank and value.shape[axis] == s.extent
            expect(
                fits, f"'scan' over {s.extent} steps along axis {axis} does not fit {value.type}"
            )
        steps = [
            v.type.with_shape(stepped(v.shape, a)) for v, a in zip(sequences, s.axes, strict=True)
        ]
        given = [*steps, *(v.type for v in node.inputs[len(steps) :])]
        for type, param in zip(given, s.params, strict=True):
            expect(
                type == param.type,
                f"the body of 'scan' takes {param}: {param.type}, but is given {type}",
            )
        for value, after in zip(carries, s.next_carries, strict=True):
            expect(
                value.type == after.type, f"the carry {value.type} of 'scan' becomes {after.type}"
            )
        stacks = zip(s.step_results, s.out_axes, strict=True)
        return (
            *(v.type for v in carries),
            *(v.type.with_shape(stacked(v.shape, a, s.extent)) for v, a in stacks),
        )

    def reference(self, node: Node, *inputs: Array) -> tuple[Array, ...]:
        from nncompiler.ir.interp import evaluate

        s = scan_parts(node)
        x, c = len(s.axes), len(s.axes) + s.carries
        carry, rows = list(inputs[x:c]), dict[int, tuple[Array, ...]]()
        order = range(s.extent)
        for t in reversed(order) if s.reverse else order:
            steps = [np.take(a, t, axis) for a, axis in zip(inputs[:x], s.axes, strict=True)]
            found = evaluate(s.body, [*steps, *carry, *inputs[c:]])
            carry, rows[t] = list(found[: s.carries]), found[s.carries :]
        stacks = [np.stack([rows[t][j] for t in order], axis) for j, axis in enumerate(s.out_axes)]
        return (*carry, *stacks)

    def samples(self) -> Sequence[Sample]:
        return ()

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        from nncompiler.ir.ops.scan_gradient import scan_gradient

        return scan_gradient(b, node, cotangents)

    def operations(self, node: Node) -> int:
        s = scan_parts(node)
        return s.extent * sum(lookup(n.op).operations(n) for n in s.body.nodes)


def emit_scan(
    b: Builder,
    body: Function,
    sequences: Sequence[tuple[Value, int]],
    carries: Sequence[Value],
    captured: Sequence[Value],
    out_axes: Sequence[int],
    extent: int,
    reverse: bool = False,
    recompute: bool = False,
) -> tuple[Value, ...]:
    """Append a scan; `sequences` come with the axis to step along. Gives the last carries, then
    the stacks."""
    attrs: dict[str, Attr] = {
        "axes": tuple(a for _, a in sequences), "carries": len(carries), "extent": extent,
        "out_axes": tuple(out_axes), "reverse": reverse,
    }  # fmt: skip
    if recompute:
        attrs["recompute"] = True
    operands = [*(v for v, _ in sequences), *carries, *captured]
    return b.emit_many("scan", operands, attrs, body=body)
