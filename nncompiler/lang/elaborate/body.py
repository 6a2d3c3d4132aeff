"""Statements: `execute` runs a body in a frame."""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.errors import Note, Span, UserError
from nncompiler.ir.graph import Value
from nncompiler.ir.types import BOOL, I32
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.context import Context, Frame, Record
from nncompiler.lang.elaborate.expr import argument, evaluate, unknown
from nncompiler.lang.elaborate.parameters import change, check_free, declare
from nncompiler.lang.elaborate.scope import check_bindable
from nncompiler.lang.elaborate.tensor import tensor
from nncompiler.lang.elaborate.types import concrete
from nncompiler.lang.elaborate.values import (
    Argument,
    Instance,
    Tuple,
    V,
    describe,
)


def execute(ctx: Context, frame: Frame, body: Sequence[s.Statement]) -> V | None:
    """Run statements until a `return`; its value, or None."""
    for statement in body:
        ctx.step(statement.span)
        match statement:
            case s.If():
                found = execute(ctx, frame, _taken(ctx, frame, statement))
            case s.Return():
                found = _return(ctx, frame, statement)
            case s.For():
                found = _for(ctx, frame, statement)
            case _:
                _simple(ctx, frame, statement)
                continue
        if found is not None:
            return found
    return None


def _simple(ctx: Context, frame: Frame, node: s.Statement) -> None:
    frame.statement, frame.target = node, None
    match node:
        case s.Assign():
            _assign(ctx, frame, node)
        case s.Param() | s.State():
            declare(ctx, frame, node)
        case s.Input() | s.Target():
            _declare(ctx, frame, node)
        case s.Output():
            _output(ctx, frame, node)
        case s.Loss() | s.Metric():
            _result(ctx, frame, node)
        case s.Yield():
            _yield(ctx, frame, node)
        case _:
            raise UserError("NN0119", "this statement does not belong here", node.span)


def _return(ctx: Context, frame: Frame, node: s.Return) -> V:
    frame.statement, frame.target = node, None
    values = tuple(evaluate(ctx, frame, v) for v in node.values)
    return values[0] if len(values) == 1 else Tuple(values)


def _assign(ctx: Context, frame: Frame, node: s.Assign) -> None:
    for target in node.targets:
        check_bindable(target)
    if len(node.targets) == 1:
        frame.target = node.targets[0].text
        value = evaluate(ctx, frame, node.value)
        if isinstance(value, Instance) and value.explicit is None and value.owner is frame.owner:
            value.explicit = node.targets[0].text
        _bind(ctx, frame, node.targets[0], Argument(value, node.value.span))
        return
    value = evaluate(ctx, frame, node.value)
    of_scan = "a scan gives a stack for each value yielded, then each carry" \
        if isinstance(node.value, s.Scan) else None
    if not isinstance(value, Tuple):
        raise UserError("NN0121", f"expected {len(node.targets)} values to bind, but found "
                        f"{describe(value)}", node.value.span,
                        help=of_scan or "`split(x, n)` cuts a tensor into n parts")
    if len(value.items) != len(node.targets):
        raise UserError("NN0120", f"expected {len(node.targets)} values to bind, but found "
                        f"{len(value.items)}", node.span, help=of_scan)
    for target, item in zip(node.targets, value.items, strict=True):
        _bind(ctx, frame, target, Argument(item, node.value.span))


def _bind(ctx: Context, frame: Frame, target: s.Ident, found: Argument) -> None:
    """Give a name a value; in a scan, only one that is the body's own or a carry."""
    name = target.text
    if frame.loop is not None:
        if name in frame.loop.outside:
            raise UserError(
                "NN0192", f"`{name}` is bound outside this scan; inside, it cannot be changed",
                target.span, help=f"what one step leaves to the next is a carry: `scan ... carry "
                                  f"{name} = {name} {{`; for something else choose another name")
        frame.loop.assigned[name] = found.span
    if name in frame.states:
        found = Argument(change(ctx, frame.states[name], target, found), found.span)
    frame.names[name] = found.value


def _yield(ctx: Context, frame: Frame, node: s.Yield) -> None:
    """What is stacked over the steps of a scan."""
    assert frame.loop is not None
    if frame.loop.yielded is not None:
        raise UserError("NN0193", "this scan yields a second time in one step", node.span,
                        notes=[Note("the first value is here", frame.loop.yielded[0].span)],
                        help="yield all values at once: `yield a, b`")
    frame.loop.yielded = tuple(argument(ctx, frame, v) for v in node.values)


def _taken(ctx: Context, frame: Frame, node: s.If) -> Sequence[s.Statement]:
    """The body of the branch whose condition holds."""
    for branch in node.branches:
        condition = evaluate(ctx, frame, branch.condition)
        if not isinstance(condition, bool):
            tensors = isinstance(condition, Value)
            raise UserError(
                "NN0160", "expected a condition known at compile time, but found "
                f"{describe(condition)}", branch.condition.span,
                help="choose between elements with `where(condition, a, b)`" if tensors
                else "compare it: `n > 0`")
        if condition:
            return branch.body
    return node.orelse or ()


MAX_ROUNDS = 10_000


def _for(ctx: Context, frame: Frame, node: s.For) -> V | None:
    """The body once per number, unrolled."""
    check_bindable(node.variable)
    ends = []
    for end in (node.start, node.stop):
        value = evaluate(ctx, frame, end)
        if not isinstance(value, int) or isinstance(value, bool):
            raise UserError("NN0160", "expected a whole number known at compile time, but found "
                            f"{describe(value)}", end.span)
        ends.append(value)
    if ends[1] - ends[0] > MAX_ROUNDS:
        raise UserError("NN0220", f"this loop has {ends[1] - ends[0]} rounds; at most "
                        f"{MAX_ROUNDS} are unrolled", node.span)
    before = frame.rounds
    try:
        for k in range(*ends):
            frame.rounds = (*before, k)
            frame.names[node.variable.text] = k
            found = execute(ctx, frame, node.body)
            if found is not None:
                return found
    finally:
        frame.rounds = before
    return None


# The model's interface --------------------------------------------------------------------------


def _record(frame: Frame) -> Record:
    assert frame.record is not None
    return frame.record


def _introduce(frame: Frame, name: str, span: Span, help: str | None = None) -> None:
    """Inputs, targets, outputs, losses and metrics have different names."""
    record = _record(frame)
    if name in record.spans:
        raise UserError("NN0102", f"`{name}` is declared twice", span,
                        notes=[Note("first here", record.spans[name])], help=help)
    record.spans[name] = span


def _declare(ctx: Context, frame: Frame, node: s.Input | s.Target) -> None:
    check_bindable(node.name)
    check_free(node.name)
    name = node.name.text
    _introduce(frame, name, node.name.span)
    type = concrete(ctx, node.type, lambda e: evaluate(ctx, frame, e))
    kind = "input" if isinstance(node, s.Input) else "target"
    value = ctx.root.param(kind, name, type)
    ctx.declare(value, node.span)
    group = _record(frame).inputs if kind == "input" else _record(frame).targets
    group[name] = value
    frame.names[name] = value


def _output(ctx: Context, frame: Frame, node: s.Output) -> None:
    name = node.name.text
    check_bindable(node.name)
    own = f"give the output a name of its own: `output NAME = {name}`"
    _introduce(frame, name, node.name.span, own if node.value is None else None)
    if node.value is None:
        if name not in frame.names:
            unknown(frame, name, node.name.span)
        found = Argument(frame.names[name], node.name.span)
    else:
        frame.target = name
        found = argument(ctx, frame, node.value)
    value = tensor(ctx, found)
    _record(frame).outputs[name] = value
    frame.names[name] = value


def _result(ctx: Context, frame: Frame, node: s.Loss | s.Metric) -> None:
    """A loss or a metric: one float."""
    what = "loss" if isinstance(node, s.Loss) else "metric"
    name = node.name.text if node.name is not None else "loss"
    place = node.name.span if node.name is not None else node.span
    if node.name is not None:
        check_bindable(node.name)
    elif name in _record(frame).losses:
        raise UserError("NN0188", "a second loss needs a name", node.span,
                        notes=[Note("the first is here", _record(frame).spans[name])],
                        help="write `loss NAME = ...`")
    _introduce(frame, name, place)
    found = argument(ctx, frame, node.value)
    value = _scalar(ctx, found, what, name)
    group = _record(frame).losses if what == "loss" else _record(frame).metrics
    group[name] = value
    if node.name is not None:
        frame.names[name] = value


def _scalar(ctx: Context, found: Argument, what: str, name: str) -> Value:
    value = found.value
    if what == "loss" and not isinstance(value, (Value, Instance)):
        raise UserError("NN0185", f"expected a loss computed from tensors, but found "
                        f"{describe(value)}", found.span)
    value = tensor(ctx, found)
    codes = ("NN0184", "NN0185") if what == "loss" else ("NN0186", "NN0187")
    if value.shape:
        raise UserError(codes[0], f"expected a single number for the {what} `{name}`, but found "
                        f"{describe(value)}", found.span,
                        help="take `mean(...)` or `sum(...)` of it")
    if value.dtype != ctx.dtype:
        help = "convert it: `f32(...)`"
        if value.dtype in (BOOL, I32) and what == "metric":
            help = "a metric is a float: take `mean(...)`, or convert it with `f32(...)`"
        raise UserError(codes[1], f"expected the {what} `{name}` to be {ctx.dtype}, but found "
                        f"{describe(value)}", found.span, help=help)
    return value
