"""Quotients that are there already, in place of their parts: what a softmax passes back follows
from its result alone.

    %p = div %e, %s                          %p = div %e, %s
    %q = div %g, %s                          %t = mul %g, %p
    %t = mul %q, %p                          %u = reduce_sum %t
    %u = reduce_sum %t               ──▶     %d = sub %g, %u
    %d = sub %q, %u                          %y = mul %d, %p
    %y = mul %d, %e

``d * e`` is ``(d * s) * p``, and where `d` is made of quotients by `s` that nothing else reads, it
is made of what they divide. And where one factor is zero unless a condition holds, the other may
be: if memory holds a product's factor under that condition as well, it need not hold it without.
Results are equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeAlias

from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.ops.common import Definitions, constant_of
from nncompiler.passes.dce import DeadCode
from nncompiler.record import dataclass, field, replace

Shape: TypeAlias = tuple[int, ...]

#: Inputs that must all be multiplied by a number for the result to be.
_PROPORTIONAL = {
    "add": ((0, 1),), "sub": ((0, 1),), "where": ((1, 2),), "neg": ((0,),), "mul": ((0,), (1,)),
    "broadcast": ((0,),), "reshape": ((0,),), "reduce_sum": ((0,),),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quotients:
    """Divisions first, which leave factors without readers; then conditions."""

    name: ClassVar[str] = "quotients"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        after = _undivided(function)
        return function if after is function else _masked(DeadCode().run(after))


@dataclass(slots=True)
class _Kept:
    """What has been chosen by a condition, else zero: by the condition and what was chosen, and
    the other way round."""

    definitions: Definitions
    values: dict[tuple[Value, Value], Value] = field(default_factory=dict)
    parts: dict[Value, tuple[Value, Value]] = field(default_factory=dict)

    def see(self, node: Node) -> None:
        if node.op == "where" and constant_of(node.inputs[2], self.definitions) == 0:
            parts = node.inputs[0], node.inputs[1]
            self.values.setdefault(parts, node.output)
            self.parts[node.output] = parts

    def under(self, x: Value, y: Value) -> Value | None:
        """`y` under the condition without which `x` is zero."""
        return self.values.get((self.parts[x][0], y)) if x in self.parts else None


# --- quotients -----------------------------------------------------------------------------------


def _undivided(function: Function) -> Function:
    """``(d * s) * p`` for ``d * e``, if that saves the divisions in `d`."""
    divisors = [n.inputs[1].shape for n in function.nodes if n.op == "div"]
    if not any(divisors):
        return function
    definitions, readers = function.definitions(), _readers(function)
    b = Builder.extending(function)
    b.nodes.clear()
    quotients: dict[Value, list[tuple[Value, Value]]] = {}
    kept, new = _Kept(definitions), dict[Value, Value]()

    def better(node: Node) -> Value | None:
        for d, e in (node.inputs, node.inputs[::-1]):
            masked = kept.under(d, e)
            for s, p in (*quotients.get(e, ()), *(quotients.get(masked, ()) if masked else ())):
                times = _Times(b, definitions, s, new)
                found = times.of(d)
                around = {r for v in times.seen for r in readers[v]}
                if found is not None and around <= {*times.seen, node.output}:
                    product = b.emit("mul", found[0], new.get(p, p))
                    return product if product.type == node.output.type else None
        return None

    for node in function.nodes:
        b.span = node.span
        if node.op == "mul" and quotients and (found := better(node)):
            new[node.output] = found
            continue
        if new and any(v in new for v in node.inputs):
            node = replace(node, inputs=tuple(new.get(v, v) for v in node.inputs))
        b.nodes.append(node)
        kept.see(node)
        s = node.inputs[1] if node.op == "div" and node.output.dtype.is_float else None
        if s is not None and s.shape:
            quotients.setdefault(node.inputs[0], []).append((s, node.output))
    return b.finish([(n, new.get(v, v)) for n, v in function.results]) if new else function


def _readers(function: Function) -> dict[Value, list[Value | None]]:
    """What is made of each value; None for a result."""
    found: dict[Value, list[Value | None]] = {}
    for node in function.nodes:
        for v in node.inputs:
            found.setdefault(v, []).append(node.outputs[0])
    for _, v in function.results:
        found.setdefault(v, []).append(None)
    return found


@dataclass(slots=True)
class _Times:
    """Values times `divisor`, not divided by it first; `seen` are those that are made anew."""

    b: Builder
    definitions: Definitions
    divisor: Value
    new: Mapping[Value, Value]
    seen: dict[Value, tuple[Value, Shape] | None] = field(default_factory=dict)

    def of(self, value: Value) -> tuple[Value, Shape] | None:
        """The product, and the shape of the divisor that is broadcast to it; None if `value` is
        not made of quotients."""
        if value in self.seen:
            return self.seen[value]
        node = self.definitions.get(value)
        if node is None or len(node.outputs) != 1:
            return None
        found = next(self._ways(node), None)
        if found is not None:
            self.seen[value] = found
        return found

    def _ways(self, node: Node) -> Iterator[tuple[Value, Shape]]:
        if node.op == "div" and node.inputs[1] == self.divisor:
            if node.inputs[0].shape == node.output.shape:
                yield self.new.get(node.inputs[0], node.inputs[0]), self.divisor.shape
            return
        for group in _PROPORTIONAL.get(node.op, ()):
            inputs = [self.new.get(v, v) for v in node.inputs]
            shapes = set[Shape]()
            for k in group:
                if constant_of(node.inputs[k], self.definitions) == 0:
                    continue
                part = self.of(node.inputs[k])
                if part is None:
                    break
                inputs[k] = part[0]
                shapes.add(_significant(part[1]))
            else:
                shape = _behind(node, shapes.pop()) if len(shapes) == 1 else None
                if shape is not None:
                    yield self.b.emit_many(node.op, inputs, dict(node.attrs))[0], shape


def _significant(shape: Shape) -> Shape:
    """Without dimensions in front that any shape has."""
    lead = next((d for d, n in enumerate(shape) if n != 1), len(shape))
    return shape[lead:]


def _behind(node: Node, shape: Shape) -> Shape | None:
    """The shape of the divisor as it is broadcast to the result of a node, by that to its input;
    None where the result has no such divisor."""
    before = node.inputs[0].shape
    whole = (1,) * (len(before) - len(shape)) + shape
    match node.op:
        case "reduce_sum":
            axes, keeps = node.ints("axes"), len(node.output.shape) == len(before)
            if any(whole[a] != 1 for a in axes):
                return None
            return whole if keeps else tuple(n for d, n in enumerate(whole) if d not in axes)
        case "reshape":
            return node.output.shape if whole == before else None
        case _:
            return shape


# --- conditions ----------------------------------------------------------------------------------


def _masked(function: Function) -> Function:
    """``where(c, a, 0) * where(c, y, 0)`` for ``where(c, a, 0) * y``, if nobody needs `y` then."""
    kept, readers = _Kept(function.definitions()), _readers(function)
    products: dict[Value | None, tuple[Value, Value]] = {}  # a factor and what may replace it
    for node in function.nodes:
        kept.see(node)
        for x, y in (node.inputs, node.inputs[::-1]) if node.op == "mul" else ():
            masked = kept.under(x, y)
            if masked is not None:
                products[node.output] = y, masked
    needed = {
        y for y, masked in products.values()
        if any(r != masked and products.get(r) != (y, masked) for r in readers[y])
    }  # fmt: skip

    def changed(node: Node) -> Node:
        y, masked = products.get(node.outputs[0], (None, None))
        if y is None or masked is None or y in needed:
            return node
        return replace(node, inputs=tuple(masked if v == y else v for v in node.inputs))

    return function.with_nodes(map(changed, function.nodes)) if products else function
