"""The graph of a scan's body under construction: a value from outside becomes an operand on use.

Names are unique over a region and what surrounds it, so that a value tells where it belongs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nncompiler.ir.graph import Attr, Builder, Function, Param, Value
from nncompiler.ir.types import TensorType
from nncompiler.record import dataclass, field


@dataclass(slots=True)
class Region(Builder):
    """A builder inside the builder `outer`; `extent` is the number of steps."""

    outer: Builder = field(kw_only=True)
    extent: int = field(kw_only=True)
    own: set[Value] = field(default_factory=set)
    #: Operands for the steps of sequences, each with the sequence and its axis.
    steps: list[tuple[Value, Value, int]] = field(default_factory=list)
    carries: list[Value] = field(default_factory=list)
    captured: dict[Value, Value] = field(default_factory=dict)

    @classmethod
    def inside(cls, outer: Builder, extent: int) -> Region:
        return cls("body", outer=outer, extent=extent, _names=outer._names, _next=outer._next)

    def step_of(self, sequence: Value, axis: int, hint: str) -> Value:
        """One step of `sequence`: its `axis` taken away."""
        shape = (*sequence.shape[:axis], *sequence.shape[axis + 1 :])
        step = self.operand(hint, sequence.type.with_shape(shape))
        self.steps.append((step, sequence, axis))
        return step

    def carry(self, name: str, type: TensorType) -> Value:
        self.carries.append(self.operand(name, type))
        return self.carries[-1]

    def operand(self, hint: str, type: TensorType) -> Value:
        value = Builder.operand(self, hint, type)
        self.own.add(value)
        return value

    def local(self, value: Value) -> Value:
        """`value` as it is called in here."""
        if value in self.own:
            return value
        if value not in self.captured:
            hint = value.name if value.name.isidentifier() else "captured"
            self.captured[value] = self.operand(hint, value.type)
        return self.captured[value]

    def emit_many(self, op: str, inputs: Sequence[Value], attrs: Mapping[str, Attr] | None = None,
                  *, body: Function | None = None, hint: str | None = None) -> tuple[Value, ...]:
        inputs = [self.local(v) for v in inputs]
        outputs = Builder.emit_many(self, op, inputs, attrs, body=body, hint=hint)
        self.own.update(outputs)
        return outputs

    def body(self, results: Sequence[tuple[str, Value]]) -> Function:
        """The function: operands are steps, carries, then what is captured."""
        found = [(name, self.local(value)) for name, value in results]
        operands = [*(step for step, _, _ in self.steps), *self.carries, *self.captured.values()]
        params = tuple(Param("operand", v) for v in operands)
        return Function(self.name, params, tuple(self.nodes), tuple(found))
