"""Quotients that are there already, in place of their parts: what a softmax passes back follows
from its result alone.

    %p = div %e, %s                          %p = div %e, %s
    %q = div %g, %s                          %t = mul %g, %p
    %t = mul %q, %p                          %u = reduce_sum %t
    %u = reduce_sum %t               ──▶     %d = sub %g, %u
    %d = sub %q, %u                          %y = mul %d, %p
    %y = mul %d, %e

``d * e`` is ``(d * s) * p``, and where `d` is made of quotients by `s` that nothing else reads, it
is made of what they divide: where `s` is the sum of `e`, so that `p` is a share of one. And where
one factor is zero unless a condition holds, the other may be: if memory holds a product's factor
under that condition as well, it need not hold it without. Results are equal up to rounding, as
long as sums of what was divided are finite; what a condition takes out counts as zero, even where
it is no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeAlias

from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.ops.common import Definitions, constant_of
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.record import dataclass, field, replace

Shape: TypeAlias = tuple[int, ...]


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
    """What has been chosen by a condition, else zero: by the names of the condition and of what
    was chosen; and these by its own."""

    definitions: Definitions
    values: dict[tuple[str, str], Value] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)

    def see(self, node: Node) -> None:
        found = lookup(node.op).choice(node)
        if found is not None and constant_of(found[2], self.definitions) == 0:
            condition = found[0].name
            self.values.setdefault((condition, found[1].name), node.output)
            self.conditions[node.output.name] = condition

    def under(self, x: Value, y: Value) -> Value | None:
        """`y` under the condition without which `x` is zero."""
        condition = self.conditions.get(x.name)
        return None if condition is None else self.values.get((condition, y.name))


def _product(node: Node) -> tuple[Value, Value] | None:
    """The two factors of a product."""
    match lookup(node.op).factors(node):
        case 1.0, (x, y):
            return x, y
    return None


def _readers(function: Function) -> dict[str, list[str | None]]:
    """By name what is made of each value; None for a result."""
    found: dict[str, list[str | None]] = {}
    for node in function.nodes:
        made = node.outputs[0].name
        for v in node.inputs:
            found.setdefault(v.name, []).append(made)
    for _, v in function.results:
        found.setdefault(v.name, []).append(None)
    return found


# --- quotients -----------------------------------------------------------------------------------


def _undivided(function: Function) -> Function:
    """``(d * s) * p`` for ``d * e``, if that saves the divisions in `d`."""
    if not any(lookup(n.op).quotient(n) for n in function.nodes):
        return function
    definitions, readers = function.definitions(), _readers(function)
    b = Builder.extending(function)
    b.nodes.clear()
    #: By name of the dividend: divisors and quotients.
    quotients: dict[str, list[tuple[Value, Value]]] = {}
    kept, new = _Kept(definitions), dict[str, Value]()

    def better(node: Node, factors: tuple[Value, Value]) -> Value | None:
        for d, e in (factors, factors[::-1]):
            same = (e, kept.under(d, e))
            for s, p in [q for v in same if v is not None for q in quotients.get(v.name, ())]:
                times = _Times(b, definitions, s, new)
                found = times.of(d)
                if found is None or p.name in times.seen or not _alike(found[1], s.shape):
                    continue
                around = {r for name in times.seen for r in readers[name]}
                if around <= {*times.seen, node.output.name}:
                    product = b.emit("mul", found[0], new.get(p.name, p))
                    return product if product.type == node.output.type else None
        return None

    for node in function.nodes:
        b.span = node.span
        factors = _product(node) if quotients else None
        if factors is not None and (found := better(node, factors)):
            new[node.output.name] = found
            continue
        if new and any(v.name in new for v in node.inputs):
            node = replace(node, inputs=tuple([new.get(v.name, v) for v in node.inputs]))
        b.nodes.append(node)
        kept.see(node)
        parts = lookup(node.op).quotient(node)
        if parts is not None and _is_sum(parts[1], parts[0], definitions):
            quotients.setdefault(parts[0].name, []).append((parts[1], node.output))
    results = [(name, new.get(v.name, v)) for name, v in function.results]
    return b.finish(results) if new else function


def _is_sum(value: Value, whole: Value, definitions: Definitions) -> bool:
    """Whether a value has the sums of another."""
    node = definitions.get(value)
    while node is not None and lookup(node.op).kind == "view":
        node = definitions.get(node.inputs[0])
    return node is not None and lookup(node.op).linear and node.inputs[0] == whole


@dataclass(slots=True)
class _Times:
    """Values times `divisor`, not divided by it first; `seen` are those that are made anew."""

    b: Builder
    definitions: Definitions
    divisor: Value
    new: Mapping[str, Value]
    seen: dict[str, tuple[Value, Shape]] = field(default_factory=dict)

    def of(self, value: Value) -> tuple[Value, Shape] | None:
        """The product, and the shape of the divisor that is broadcast to it; None if `value` is
        not made of quotients."""
        if value.name in self.seen:
            return self.seen[value.name]
        node = self.definitions.get(value)
        if node is None or len(node.outputs) != 1:
            return None
        found = self._made(node)
        if found is not None:
            self.seen[value.name] = found
        return found

    def _made(self, node: Node) -> tuple[Value, Shape] | None:
        operator = lookup(node.op)
        quotient = operator.quotient(node)
        if quotient is not None and quotient[1] == self.divisor:
            if quotient[0].shape != node.output.shape:
                return None
            return self.new.get(quotient[0].name, quotient[0]), self.divisor.shape
        for group in operator.proportional:
            seen = dict(self.seen)
            found = self._of_group(node, group)
            if found is not None:
                return found
            self.seen = seen
        return None

    def _of_group(self, node: Node, group: tuple[int, ...]) -> tuple[Value, Shape] | None:
        """What a node makes where these of its inputs are multiplied."""
        inputs = [self.new.get(v.name, v) for v in node.inputs]
        shapes = list[Shape]()
        for k in group:
            if constant_of(node.inputs[k], self.definitions) == 0:
                continue
            part = self.of(node.inputs[k])
            if part is None:
                return None
            inputs[k] = part[0]
            shapes.append(part[1])
        if not shapes or not all(_alike(shape, shapes[0]) for shape in shapes):
            return None
        shape = _behind(node, shapes[0])
        return None if shape is None else (
            self.b.emit_many(node.op, inputs, dict(node.attrs))[0], shape
        )  # fmt: skip


def _alike(a: Shape, b: Shape) -> bool:
    """Whether two shapes of the divisor are broadcast alike."""
    return _significant(a) == _significant(b)


def _significant(shape: Shape) -> Shape:
    """Without dimensions in front that any shape has."""
    lead = next((d for d, n in enumerate(shape) if n != 1), len(shape))
    return shape[lead:]


def _behind(node: Node, shape: Shape) -> Shape | None:
    """The shape of the divisor as it is broadcast to the result of a node, by that to its input;
    None where the result has no such divisor."""
    before = node.inputs[0].shape
    whole = (1,) * (len(before) - len(shape)) + shape
    operator = lookup(node.op)
    if operator.linear:
        axes, keeps = node.ints("axes"), len(node.output.shape) == len(before)
        if any(whole[a] != 1 for a in axes):
            return None
        return whole if keeps else tuple(n for d, n in enumerate(whole) if d not in axes)
    if operator.kind == "view":
        return node.output.shape if whole == before else None
    return shape


# --- conditions ----------------------------------------------------------------------------------


def _masked(function: Function) -> Function:
    """``where(c, a, 0) * where(c, y, 0)`` for ``where(c, a, 0) * y``, if nobody needs `y` then."""
    kept, readers = _Kept(function.definitions()), _readers(function)
    products: dict[str | None, tuple[str, Value]] = {}  # a factor and what may replace it
    for node in function.nodes:
        kept.see(node)
        factors = _product(node) if kept.conditions else None
        for x, y in (factors, factors[::-1]) if factors else ():
            masked = kept.under(x, y)
            if masked is not None:
                products[node.output.name] = y.name, masked
    needed = {
        y for y, masked in products.values()
        if any(r != masked.name and products.get(r) != (y, masked) for r in readers[y])
    }  # fmt: skip

    def changed(node: Node) -> Node:
        y, masked = products.get(node.outputs[0].name, (None, None))
        if masked is None or y in needed:
            return node
        return replace(node, inputs=tuple([masked if v.name == y else v for v in node.inputs]))

    return function.with_nodes(map(changed, function.nodes)) if products else function
