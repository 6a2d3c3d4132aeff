"""`scan z over xs axis 1 carry h = e { ... yield y }`: the body's graph, built once, as one node.

The result is the stacks of what is yielded, then the carries after the last step. `over [a, b]`
steps along several tensors at once; `z` is then the list of their steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nncompiler.errors import Note, Span, UserError
from nncompiler.ir.graph import Function, Value
from nncompiler.ir.ops.scan import emit_scan
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.builtin import axis_of
from nncompiler.lang.elaborate.context import Context, Frame, Loop, check_elements
from nncompiler.lang.elaborate.names import merged_counts
from nncompiler.lang.elaborate.region import Region
from nncompiler.lang.elaborate.scope import check_bindable
from nncompiler.lang.elaborate.tensor import tensor
from nncompiler.lang.elaborate.values import Argument, Tuple, V, describe, quoted

Evaluate = Callable[[Context, Frame, s.Expr], V]


def scan(ctx: Context, frame: Frame, node: s.Scan, evaluate: Evaluate) -> V:
    """The value of a scan."""
    _check_names(node)
    sequences, several = _sequences(ctx, frame, node, evaluate)
    starts = [tensor(ctx, Argument(evaluate(ctx, frame, c.initial), c.initial.span))
              for c in node.carries]
    (first, axis), *_ = sequences
    region = Region.inside(ctx.b, first.shape[axis])
    heads = {node.variable.text, *(c.name.text for c in node.carries)}
    loop = Loop(frozenset(frame.names) - heads)
    inner = Frame(frame.module, frame.owner, dict(frame.names), None,
                  merged_counts(frame.bindings, node), frame.rounds, loop=loop)
    steps = [region.step_of(x, a, node.variable.text) for x, a in sequences]
    inner.names[node.variable.text] = Tuple(tuple(steps), literal=True) if several else steps[0]
    for step in steps:
        ctx.declare(step, node.variable.span)
    for carry, start in zip(node.carries, starts, strict=True):
        inner.names[carry.name.text] = value = region.carry(carry.name.text, start.type)
        ctx.declare(value, carry.span)
    carried, yielded = _run(ctx, inner, node, region, axis)
    results = [*((c.name.text, v) for c, v in zip(node.carries, carried, strict=True)),
               *((f"stack.{k}", v) for k, v in enumerate(yielded))]
    return _emit(ctx, node, region, region.body(results), starts, [axis] * len(yielded))


def _check_names(node: s.Scan) -> None:
    seen = {node.variable.text: node.variable.span}
    for name in (node.variable, *(c.name for c in node.carries)):
        check_bindable(name)
    for carry in node.carries:
        if carry.name.text in seen:
            raise UserError("NN0102", f"`{carry.name.text}` is bound twice in the head of a scan",
                            carry.name.span, notes=[Note("first here", seen[carry.name.text])])
        seen[carry.name.text] = carry.name.span


def _sequences(ctx: Context, frame: Frame, node: s.Scan,
               evaluate: Evaluate) -> tuple[list[tuple[Value, int]], bool]:
    """The tensors to step along with their axes; whether they are given as a list."""
    value = evaluate(ctx, frame, node.sequence)
    given = value.items if isinstance(value, Tuple) else (value,)
    where = Argument(evaluate(ctx, frame, node.axis), node.axis.span)
    found: list[tuple[Value, int]] = []
    for x in given:
        if not isinstance(x, Value):
            raise UserError("NN0190", f"expected a tensor to scan over, but found {describe(x)}",
                            node.sequence.span,
                            help="a scan steps along an axis of a tensor, or of a list of "
                                 "tensors; rounds counted by numbers are `for i in 0..n`")
        found.append((x, axis_of(where, x)))
    if not found:
        raise UserError("NN0190", "expected a tensor to scan over, but found an empty list",
                        node.sequence.span)
    extents = [x.shape[axis] for x, axis in found]
    if len(set(extents)) > 1:
        shown = ", ".join(str(x.type) for x, _ in found)
        raise UserError("NN0191", f"the tensors of a scan have {extents} steps along axis "
                        f"{where.value}", node.sequence.span, notes=[Note(f"they are {shown}")],
                        help="each step takes one element of every tensor")
    return found, isinstance(value, Tuple)


def _run(ctx: Context, inner: Frame, node: s.Scan, region: Region,
         axis: int) -> tuple[list[Value], list[Value]]:
    """Run the body in the region; the carries' next values and what is yielded."""
    before, ctx.b = ctx.b, region
    try:
        ctx.execute(ctx, inner, node.body)
        loop = inner.loop
        assert loop is not None
        carried = [_carried(ctx, inner, carry, region.carries[k])
                   for k, carry in enumerate(node.carries)]
        yielded = [_yielded(ctx, found, axis) for found in loop.yielded or ()]
    finally:
        ctx.b = before
        before._next = region._next
    if not carried and not yielded:
        raise UserError("NN0193", "this scan carries nothing and yields nothing", node.span,
                        help="end its body with `yield VALUE`")
    return carried, yielded


def _carried(ctx: Context, inner: Frame, carry: s.Carry, before: Value) -> Value:
    """What a carry is after a step; its type never changes."""
    name = carry.name.text
    last = Argument(inner.names[name], inner.loop.assigned.get(name, carry.span)
                    if inner.loop else carry.span)
    after = tensor(ctx, last, before.dtype)
    if after.type != before.type:
        raise UserError(
            "NN0195", f"the carry `{name}` begins as {before.type}, but is {after.type} after a "
            "step", last.span, notes=[Note("it begins here", carry.span)],
            help="a carry keeps its shape and element type; give the initial value the shape: "
                 f"`{name} = zeros({', '.join(map(str, after.shape))})`"
            if after.dtype == before.dtype and after.dtype.is_float and after.shape else
            "a carry keeps its shape and element type in every step")
    return after


def _yielded(ctx: Context, found: Argument, axis: int) -> Value:
    value = tensor(ctx, found)
    if axis > len(value.shape):
        raise UserError(
            "NN0194", f"the steps of {describe(value)} cannot be stacked along axis {axis}",
            found.span, help=f"what is yielded needs {axis} ax{'i' if axis == 1 else 'e'}s or "
                             f"more: `reshape({quoted(found.span, '...')}, ...)`")
    return value


def _emit(ctx: Context, node: s.Scan, region: Region, body: Function, starts: Sequence[Value],
          out_axes: Sequence[int]) -> V:
    """The scan as a node of the graph around it: stacks, then last carries."""
    place: Span = ctx.site or node.span
    carries = len(starts)
    for (_, value), axis in zip(body.results[carries:], out_axes, strict=True):
        check_elements((*value.shape[:axis], region.extent, *value.shape[axis:]), node.span)
    with ctx.b.at(place):
        found = emit_scan(ctx.b, body, [(x, a) for _, x, a in region.steps], starts,
                          list(region.captured), out_axes, region.extent)
    for value in found:
        ctx.origins[value] = place
    ordered = (*found[carries:], *found[:carries])
    return ordered[0] if len(ordered) == 1 else Tuple(ordered)
