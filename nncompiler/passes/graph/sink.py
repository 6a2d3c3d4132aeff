"""Sequences that loops take step by step are made in the step, where that takes little to read.

    %1 = gather %table, %text {axis=0}              %3 = scan %text, %h, %table, %b {
    %2 = add %1, %b                                   operand %text.step
    %3 = scan %2, %h {                                operand %h
      operand %step                      ──▶          operand %table
      operand %h                                      operand %b
      …                                               %0 = gather %table, %text.step {axis=0}
    }                                                 %step = add %0, %b
                                                      …
                                                    }

The rows of an embedding, or of its product with the weights of a recurrence, are then read from
the table as they are wanted, not copied to a sequence before.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from nncompiler.ir.graph import Function, Node, Param, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.ops.scan import scan_parts, stepped
from nncompiler.ir.scalar import PRIMITIVES
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.record import dataclass, field, replace

#: How many times as many elements a sequence must have as what its steps are made of, of which
#: each step has its own.
_FEWER = 4


@dataclass(frozen=True, slots=True)
class Sink:
    """To be run before fusion, which joins what is made in the step with what reads it."""

    name: ClassVar[str] = "sink"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        if not any(lookup(n.op).loops for n in function.nodes):
            return function
        readers = Counter([v.name for n in function.nodes for v in n.inputs])
        readers.update([v.name for _, v in function.results])
        makers = {v.name: n for n in function.nodes for v in n.outputs}
        nodes = [
            _sunk(n, makers, readers) if lookup(n.op).loops else n for n in function.nodes
        ]
        if all(a is b for a, b in zip(nodes, function.nodes, strict=True)):
            return function
        return DeadCode().run(function.with_nodes(nodes))


def _sunk(loop: Node, makers: dict[str, Node], readers: Counter[str]) -> Node:
    """The loop with those of its sequences made in it that may be."""
    s = scan_parts(loop)
    names = {v.name for v in (*s.params, *(v for n in s.body.nodes for v in n.outputs))}
    for j, (value, axis) in enumerate(zip(loop.inputs, s.axes, strict=False)):
        step = _Step(makers, readers, set(names))
        step.make(value, axis, s.params[j])
        own = sum(v.type.size for v, _, _ in step.sequences)
        if step.nodes and _FEWER * own <= value.type.size:
            return _sunk(_with(loop, j, step), makers, readers)
    return loop


@dataclass(slots=True)
class _Step:
    """The `nodes` that make one step of a sequence, of further `sequences` (with their axis) and
    of values that are `captured`; these with what they are called in the body, whose `names` are
    taken."""

    makers: dict[str, Node]
    readers: Counter[str]
    names: set[str]
    nodes: list[Node] = field(default_factory=list)
    sequences: list[tuple[Value, int, Value]] = field(default_factory=list)
    captured: list[tuple[Value, Value]] = field(default_factory=list)

    def make(self, value: Value, axis: int, result: Value | None = None) -> Value:
        """One step of `value`, which is to be `result`."""
        made = result or self._fresh(value, stepped(value.shape, axis))
        maker = self.makers.get(value.name)
        along = None
        if maker is not None and self.readers[value.name] == 1 and _light(maker):
            along = lookup(maker.op).along(maker, axis)
        if maker is None or along is None:
            self.sequences.append((value, axis, made))
            return made
        inputs = [
            self._whole(v) if d is None else self.make(v, d)
            for v, d in zip(maker.inputs, along, strict=True)
        ]
        self.nodes.append(replace(maker, inputs=tuple(inputs), outputs=(made,)))
        return made

    def _whole(self, value: Value) -> Value:
        self.captured.append((value, made := self._fresh(value, value.shape)))
        return made

    def _fresh(self, value: Value, shape: tuple[int, ...]) -> Value:
        name, count = f"{value.name}.step", 0
        while name in self.names:
            count += 1
            name = f"{value.name}.step{count}"
        self.names.add(name)
        return Value(name, value.type.with_shape(shape))


def _light(node: Node) -> bool:
    primitive = PRIMITIVES.get(node.op)
    return lookup(node.op).kind == "map" and not (primitive and primitive.transcendental)


def _with(loop: Node, j: int, step: _Step) -> Node:
    """The loop without its sequence `j`, whose steps are made in the body."""
    s = scan_parts(loop)
    (xs, carries, captured), (steps, carried, shared) = s.split(loop.inputs), s.split(s.params)
    kept = [k for k in range(len(xs)) if k != j]
    params = (
        *(steps[k] for k in kept), *(v for _, _, v in step.sequences), *carried, *shared,
        *(v for _, v in step.captured),
    )  # fmt: skip
    inputs = (
        *(xs[k] for k in kept), *(v for v, _, _ in step.sequences), *carries, *captured,
        *(v for v, _ in step.captured),
    )  # fmt: skip
    axes = (*(s.axes[k] for k in kept), *(axis for _, axis, _ in step.sequences))
    body = replace(
        s.body, params=tuple(Param("operand", v) for v in params),
        nodes=(*step.nodes, *s.body.nodes),
    )  # fmt: skip
    attrs = tuple(sorted({**dict(loop.attrs), "axes": axes}.items()))
    return replace(loop, inputs=inputs, attrs=attrs, body=body)
