"""Factors in order: those that do not vary leave sums, and products begin with what is small and
known early.

    %1 = mul %dy, %gain                          %1 = reduce_sum %dy {axes=[0]}
    %2 = reduce_sum %1 {axes=[0]}         ──▶    %2 = mul %gain, %1
    %3 = mul %1, %rstd                           %3 = mul %gain, %rstd
                                                 %4 = mul %3, %dy

So one sum of a whole array serves all its multiples, vectors are multiplied before arrays, and of
a cotangent's many factors those that the forward pass knows become one array. Two products of one
late factor are added before they meet it: ``a*d + b*d`` is ``(a + b)*d``. What is left of a sum
may be known to be zero, as that of deviations from a mean. Results are equal up to rounding. What
only a view with its dimensions in another order reads is made in that order, if its operator can
do so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.ops.common import constant_of, fit
from nncompiler.ir.types import broadcast_shapes
from nncompiler.passes.graph.cse import CommonSubexpressions
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.passes.graph.products import Facts, Product, scaled, times
from nncompiler.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class Factor:
    """Sums first, since they leave products without readers; then products."""

    name: ClassVar[str] = "factor"
    nested: ClassVar[bool] = True

    def run(self, function: Function) -> Function:
        for rule in (_early, _sum_of_products, _product):
            after = _rewritten(function, rule)
            if after is not function:
                function = CommonSubexpressions().run(DeadCode().run(after))
        return function


_Rule = Callable[[Builder, Node, Facts, "dict[Value, Value]"], "Value | None"]


def _rewritten(function: Function, rule: _Rule) -> Function:
    """`function` with every node that `rule` knows better replaced."""
    facts = Facts.of(function)
    b = Builder.extending(function)
    b.nodes.clear()
    new: dict[Value, Value] = {}
    for node in function.nodes:
        b.span = node.span
        better = rule(b, node, facts, new)
        if better is not None:
            new[node.output] = better
        elif any(v in new for v in node.inputs):
            b.nodes.append(replace(node, inputs=tuple(new.get(v, v) for v in node.inputs)))
        else:
            b.nodes.append(node)
    return b.finish([(n, new.get(v, v)) for n, v in function.results]) if new else function


def _early(b: Builder, node: Node, facts: Facts, new: dict[Value, Value]) -> Value | None:
    """Rules that do not meet, in one walk."""
    if not facts.zeros.isdisjoint(node.inputs):
        return _without(b, replace(node, inputs=tuple(new.get(v, v) for v in node.inputs)), facts)
    perm = lookup(node.op).permutation(node)
    return _sum(b, node, facts, new) if perm is None else _moved(b, node, facts, new, perm)


def _moved(
    b: Builder, node: Node, facts: Facts, new: dict[Value, Value], perm: tuple[int, ...]
) -> Value | None:
    """Dimensions in another order of what nobody else reads: made in that order, where a view of
    them would have memory hold a copy. Other readers find the elements where they are.
    """
    read, readers = node.inputs[0], facts.readers.get(node.output.name, ())
    source = facts.nodes.get(read)
    if source is None or read in new or not facts.alone(read):
        return None
    if not any(r is not None and lookup(r.op).kind == "view" for r in readers):
        return None
    moved = replace(source, inputs=tuple(new.get(v, v) for v in source.inputs))
    return lookup(source.op).permuted(b, moved, perm)


# --- sums ----------------------------------------------------------------------------------------


def _sum(b: Builder, node: Node, facts: Facts, new: dict[Value, Value]) -> Value | None:
    """A sum of a product, without the factors that do not vary along its axes."""
    if not lookup(node.op).linear or not facts.parts(node.inputs[0]):
        return None
    x, axes = node.inputs[0], node.ints("axes")

    def kept(value: Value) -> bool:
        """Whether memory holds a varying factor in any case, or others of which it follows."""
        found = facts.parts(value)
        if value not in facts.nodes or not facts.alone(value):
            return True
        return found is not None and all(kept(v) for v in found[1] if _varies(v, x, axes))

    def into(value: Value) -> bool:
        # a sum must not keep alive what nobody else needs
        found = facts.parts(value)
        return facts.alone(value) or (
            found is not None and all(kept(v) for v in found[1] if _varies(v, x, axes))
        )

    if not into(x):
        return None
    product = facts.factors(x, into)
    inside = [v for v in product.values if _varies(v, x, axes)]
    outside = [v for v in product.values if not _varies(v, x, axes)]
    if not inside or not product.sane or (not outside and product.number == 1):
        return None
    shape: tuple[int, ...] = ()
    for v in inside:
        shape = broadcast_shapes(shape, v.shape) or ()
    lead = len(x.shape) - len(shape)
    if any(a < lead or shape[a - lead] != x.shape[a] for a in axes) or 0 in x.shape:
        return None
    along = tuple(a - lead for a in axes)
    if len(inside) == 1 and lookup(node.op).vanishes(inside[0], along, facts.nodes):
        return _zero(b, node.output, facts)
    varying = times(b, [new.get(v, v) for v in inside])
    total = b.emit(node.op, varying, axes=along, keepdims=False)
    rest = [_dropped(b, new.get(v, v), len(x.shape), axes) for v in outside]
    found = scaled(b, product.number, [*rest, total])
    left = tuple(n for d, n in enumerate(x.shape) if d not in axes)
    found = fit(b, found, found.type.with_shape(left))
    if left != node.output.shape:
        found = b.emit("reshape", found, shape=node.output.shape)
    return found


def _zero(b: Builder, value: Value, facts: Facts) -> Value:
    """The zero that `value` is, known to operators that read it; of the sign that a sum may leave
    out."""
    before = len(b.nodes)
    found = b.full(-0.0, value.type)
    facts.nodes |= {n.output: n for n in b.nodes[before:]}
    facts.zeros.add(value)
    return found


def _without(b: Builder, node: Node, facts: Facts) -> Value | None:
    """The result of a node that reads a zero by fewer means: first it is read as a number."""
    found = lookup(node.op).simplify(b, node, facts.nodes)
    if found is None or not b.nodes or b.nodes[-1].outputs != (found,):
        return found
    better = lookup(b.nodes[-1].op).simplify(b, b.nodes[-1], facts.nodes)
    return found if better is None else better


def _varies(value: Value, whole: Value, axes: Sequence[int]) -> bool:
    """Whether a factor of `whole` has more than one element along some of its axes."""
    lead = len(whole.shape) - len(value.shape)
    return any(a >= lead and value.shape[a - lead] != 1 for a in axes)


def _dropped(b: Builder, value: Value, rank: int, axes: Sequence[int]) -> Value:
    """A factor without the axes, of extent 1 in it, that the sum takes away."""
    lead = rank - len(value.shape)
    shape = tuple(n for d, n in enumerate(value.shape, lead) if d not in axes)
    return value if shape == value.shape else b.emit("reshape", value, shape=shape)


# --- products ------------------------------------------------------------------------------------


def _product(b: Builder, node: Node, facts: Facts, new: dict[Value, Value]) -> Value | None:
    """A product of three and more factors, in order."""
    value = node.outputs[0]
    if value.type.size <= 1 or not facts.parts(value) or _inner(value, facts):
        return None
    product = facts.factors(value, facts.alone)
    classes = _classes(product.values, value, facts)
    if not classes or len(product.values) + product.numbers < 3 or not product.sane:
        return None
    if len(classes) < 2 and product.numbers < 2:
        return None
    if _text(value, facts) == _wanted(product, classes):
        return None
    return fit(b, _built(b, product, value, facts, new), value.type)


def _inner(value: Value, facts: Facts) -> bool:
    """Whether a product is a factor of just one other."""
    (reader, *more) = facts.readers.get(value.name, [None])
    return reader is not None and not more and facts.parts(reader.outputs[0]) is not None


def _sum_of_products(
    b: Builder, node: Node, facts: Facts, new: dict[Value, Value]
) -> Value | None:
    """``a*d + b*d`` where `d` is known last."""
    if len(node.inputs) != 2 or not node.inputs[0].dtype.is_float:
        return None
    if lookup(node.op).affine(Builder("probe"), node, 0) != (None, node.inputs[1]):
        return None
    if not all(facts.parts(v) and facts.alone(v) for v in node.inputs):
        return None
    x, y = (facts.factors(v, facts.alone) for v in node.inputs)
    last = max(x.values, key=facts.level, default=None)
    if last is None or last.shape != node.output.shape or not (x.sane and y.sane):
        return None
    level = facts.level(last)
    others = [v for v in (*x.values, *y.values) if v != last]
    if (x.values.count(last), y.values.count(last)) != (1, 1) or any(
        facts.level(v) >= level for v in others
    ):
        return None
    terms = [
        _built(b, p.without(last), whole, facts, new)
        for p, whole in zip((x, y), node.inputs, strict=True)
    ]
    return b.emit("mul", b.emit("add", *terms), new.get(last, last))


_Key = tuple[int, tuple[int, ...], int]


def _classes(
    values: Sequence[Value], whole: Value, facts: Facts
) -> list[tuple[Value, ...]]:
    """Factors that are multiplied with each other first: small ones, and whole ones by level."""
    found: dict[_Key, list[Value]] = {}
    for v in values:
        level = facts.level(v) if v.type.size == whole.type.size else 0
        found.setdefault((v.type.size, v.shape, level), []).append(v)
    return [tuple(found[k]) for k in sorted(found)]


def _built(
    b: Builder, product: Product, whole: Value, facts: Facts, new: dict[Value, Value]
) -> Value:
    classes = _classes(product.values, whole, facts)
    if not classes:
        return b.const(product.number, whole.dtype)
    terms = [[new.get(v, v) for v in c] for c in classes]
    first = scaled(b, product.number if abs(product.number) != 1 else 1.0, terms[0])
    found = times(b, [first, *(times(b, t) for t in terms[1:])])
    return b.emit("neg", found) if product.number == -1 else found


def _text(value: Value, facts: Facts) -> str:
    """How a product is computed; the order of the two factors of a multiplication is left open."""
    found = facts.parts(value)
    assert found is not None
    texts = []
    for v in found[1]:
        constant = constant_of(v, facts.nodes)
        if isinstance(constant, float):
            texts.append(repr(constant))
        else:
            texts.append(_text(v, facts) if facts.parts(v) and facts.alone(v) else v.name)
    return "-" * (found[0] == -1) + _joined(texts)


def _wanted(product: Product, classes: Sequence[Sequence[Value]]) -> str:
    """The same of what `_built` makes."""
    groups = [[v.name for v in c] for c in classes]
    if abs(product.number) != 1:
        groups[0][0] = _joined([groups[0][0], repr(product.number)])
    return "-" * (product.number == -1) + _joined([_joined(g) for g in groups])


def _joined(texts: Sequence[str]) -> str:
    found = texts[0]
    for t in texts[1:]:
        found = f"({'*'.join(sorted((found, t)))})"
    return found
