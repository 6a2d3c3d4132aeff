"""Indexing: ``x[0, :, 1:-1, ::2, ...]`` on tensors, positions and slices of lists.

Positions are known at compile time and checked: a slice that leaves its axis is an error here, not
cut off as in Python. Negative positions count from the end.
"""

from __future__ import annotations

from collections.abc import Callable

from nncompiler.errors import UserError
from nncompiler.ir.graph import Value
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.context import Context
from nncompiler.lang.elaborate.tensor import show
from nncompiler.lang.elaborate.values import Tuple, V, describe

Evaluate = Callable[[s.Expr], V]


def index_tuple(value: Tuple, node: s.Index, evaluate: Evaluate) -> V:
    """An item of a list, or a part of it."""
    if len(node.items) != 1 or isinstance(node.items[0], s.Dots):
        raise UserError("NN0138", "a list takes one index", node.span)
    item, count = node.items[0], len(value.items)
    if isinstance(item, s.Slice):
        start, stop, step, _ = _slice(item, count, evaluate)
        places = range(start, stop, step)
        return Tuple(tuple(value.items[k] for k in places), value.literal)
    return value.items[_position(item, count, evaluate, "the list")]


def index_tensor(ctx: Context, x: Value, node: s.Index, evaluate: Evaluate) -> Value:
    """A slice of every axis; axes indexed by a position are left out of the result."""
    items = _expand(x, node)
    start, stop, step, keep = [], [], [], []
    for axis, (n, item) in enumerate(zip(x.shape, items, strict=True)):
        if item is None:
            bounds = (0, n, 1, n)
        elif isinstance(item, s.Slice):
            bounds = _slice(item, n, evaluate, f"axis {axis} of {x.type}")
        else:
            at = _position(item, n, evaluate, f"axis {axis} of {x.type}")
            bounds = (at, at + 1, 1, 1)
        start.append(bounds[0])
        stop.append(bounds[1])
        step.append(bounds[2])
        if item is None or isinstance(item, s.Slice):
            keep.append(bounds[3])
    found = x
    if (start, stop, step) != ([0] * len(items), list(x.shape), [1] * len(items)):
        found = ctx.emit("slice", x, span=node.span, start=tuple(start), stop=tuple(stop),
                         step=tuple(step))
    if tuple(keep) != found.shape:
        found = ctx.emit("reshape", found, span=node.span, shape=tuple(keep))
    return found


def _expand(x: Value, node: s.Index) -> list[s.Expr | s.Slice | None]:
    """One item per axis, None for an axis taken whole."""
    dots = [k for k, item in enumerate(node.items) if isinstance(item, s.Dots)]
    if len(dots) > 1:
        raise UserError("NN0138", "`...` can stand once in an index", node.items[dots[1]].span)
    count = len(node.items) - len(dots)
    if count > len(x.shape):
        raise UserError("NN0138", f"{count} indices for a tensor of {len(x.shape)} axes, "
                        f"{show(x)}", node.span)
    place = dots[0] if dots else len(node.items)
    whole: list[s.Expr | s.Slice | None] = [None] * (len(x.shape) - count)
    given = [item for item in node.items if not isinstance(item, s.Dots)]
    return [*given[:place], *whole, *given[place:]]


def _number(node: s.Expr, evaluate: Evaluate) -> int:
    value = evaluate(node)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    help = "rows chosen by a tensor of indices are `gather(x, indices)`" \
        if isinstance(value, Value) else None
    raise UserError("NN0122", f"expected a whole number as index, but found {describe(value)}",
                    node.span, help=help)


def _position(node: s.Expr, n: int, evaluate: Evaluate, what: str) -> int:
    at = _number(node, evaluate)
    if not -n <= at < n:
        raise UserError("NN0137", f"the index {at} is outside {what}, which has "
                        f"{n} element{'s' * (n != 1)}", node.span,
                        help=f"indices run from 0 to {n - 1}, or from -{n} to -1")
    return at % n


def _slice(item: s.Slice, n: int, evaluate: Evaluate,
           what: str = "the list") -> tuple[int, int, int, int]:
    """Start, stop, step and extent as plain positions."""
    step = 1 if item.step is None else _number(item.step, evaluate)
    if step == 0:
        assert item.step is not None
        raise UserError("NN0137", "a slice needs a step other than 0", item.step.span)
    ends = []
    whole = (0, n) if step > 0 else (n - 1, -1)
    for part, default in zip((item.start, item.stop), whole, strict=True):
        if part is None:
            ends.append(default)
            continue
        at = _number(part, evaluate)
        if not -n <= at <= n:
            raise UserError("NN0137", f"the slice leaves {what}, which has {n} "
                            f"element{'s' * (n != 1)}", part.span)
        ends.append(at + n if at < 0 else at)
    start, stop = ends
    if step < 0:
        start = min(start, n - 1)
    extent = len(range(start, stop, step))
    if extent == 0:
        raise UserError("NN0137", f"this slice of {what} is empty", item.span)
    return start, stop, step, extent
