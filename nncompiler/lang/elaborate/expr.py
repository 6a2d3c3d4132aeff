"""Expressions: `evaluate` gives the value of one, adding nodes to the graph on the way."""

from __future__ import annotations

from typing import NoReturn

from nncompiler.errors import Span, UserError, nearest
from nncompiler.ir.graph import Value
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate import scope
from nncompiler.lang.elaborate.call import call
from nncompiler.lang.elaborate.context import Context, Frame
from nncompiler.lang.elaborate.index import index_tensor, index_tuple
from nncompiler.lang.elaborate.scan import scan
from nncompiler.lang.elaborate.tensor import binary, negation
from nncompiler.lang.elaborate.values import (
    NOTHING,
    Argument,
    Builtin,
    Definition,
    Instance,
    Tuple,
    V,
    describe,
    quoted,
)


def evaluate(ctx: Context, frame: Frame, node: s.Expr) -> V:
    """The value of `node` in `frame`."""
    ctx.enter(node.span)
    try:
        return _evaluate(ctx, frame, node)
    finally:
        ctx.depth -= 1


def _evaluate(ctx: Context, frame: Frame, node: s.Expr) -> V:
    match node:
        case s.Name():
            return lookup(ctx, frame, node.text, node.span)
        case s.Int(value=number) | s.Float(value=number) | s.Bool(value=number):
            return number
        case s.String(value=text):
            return text
        case s.ListExpr(items=items):
            return Tuple(tuple(evaluate(ctx, frame, item) for item in items), literal=True)
        case s.Binary():
            return _binary(ctx, frame, node)
        case s.Unary(op=op, operand=operand):
            return negation(ctx, op, argument(ctx, frame, operand), node.span)
        case s.Call():
            return _call(ctx, frame, node, ())
        case s.Pipe():
            return _pipe(ctx, frame, node)
        case s.Named():
            return _named(ctx, frame, node, None)
        case s.Index():
            return _index(ctx, frame, node)
        case s.Attribute():
            return _attribute(ctx, frame, node)
        case s.Scan():
            return scan(ctx, frame, node, evaluate)


def argument(ctx: Context, frame: Frame, node: s.Expr) -> Argument:
    return Argument(evaluate(ctx, frame, node), node.span)


def lookup(ctx: Context, frame: Frame, name: str, span: Span) -> V:
    """What `name` means: a local, then a definition, then a builtin."""
    if name in frame.names:
        return frame.names[name]
    if name == "training":
        ctx.training_read = True
        return ctx.training
    found = scope.find(frame.module, name)
    if found is None:
        unknown(frame, name, span)
    return found


def unknown(frame: Frame, name: str, span: Span) -> NoReturn:
    """The error for a name that means nothing here."""
    if frame.bindings.get(name):
        raise UserError("NN0101", f"`{name}` has no value here", span,
                        help="it is bound only later, or in a branch that is not taken")
    close = nearest(name, [*frame.names, *scope.known(frame.module), "training"])
    raise UserError("NN0101", f"the name `{name}` is not known", span,
                    help=f"did you mean `{close}`?" if close else "bind it before it is used")


def _binary(ctx: Context, frame: Frame, node: s.Binary) -> V:
    left = argument(ctx, frame, node.left)
    if node.op in ("and", "or") and isinstance(left.value, bool) \
            and left.value == (node.op == "or"):
        return left.value
    return binary(ctx, node.op, left, argument(ctx, frame, node.right), node.span)


# Calls and pipes --------------------------------------------------------------------------------


def _call(ctx: Context, frame: Frame, node: s.Call, piped: tuple[Argument, ...]) -> V:
    """A call; `piped` values come before the arguments of a fn or an instance."""
    callee = _callee(ctx, frame, node.callee)
    given: list[tuple[s.Ident | None, Argument]] = [
        (a.name, argument(ctx, frame, a.value)) for a in node.arguments]
    if isinstance(callee, Definition) and callee.is_layer and piped:
        instance = call(ctx, frame, callee, given, node, evaluate)
        return call(ctx, frame, instance, [(None, p) for p in piped], node, evaluate)
    return call(ctx, frame, callee, [*((None, p) for p in piped), *given], node, evaluate)


def _callee(ctx: Context, frame: Frame, node: s.Expr) -> V:
    """The value that is called; calling what a fn gives is the classic confusion."""
    if not isinstance(node, s.Call):
        return evaluate(ctx, frame, node)
    try:
        found = evaluate(ctx, frame, node)
    except UserError as e:
        if e.code != "NN0111" or e.span != node.span or not _is_fn(ctx, frame, node.callee):
            raise
        found = NOTHING
    if found is NOTHING or isinstance(found, (Value, int, float)):
        name = quoted(node.callee.span, "this")
        raise UserError("NN0114", f"`{name}` is a fn: it takes all its arguments in one list",
                        node.span, help=f"write `{name}(x, ...)`, or `x |> {name}(...)`")
    return found


def _is_fn(ctx: Context, frame: Frame, node: s.Expr) -> bool:
    found = lookup(ctx, frame, node.text, node.span) if isinstance(node, s.Name) else None
    return isinstance(found, Builtin) or isinstance(found, Definition) and not found.is_layer


def _pipe(ctx: Context, frame: Frame, node: s.Pipe) -> V:
    current = argument(ctx, frame, node.value)
    for stage in node.stages:
        ctx.step(stage.span)
        if isinstance(current.value, (Instance, Definition, Builtin)):
            raise UserError("NN0123", f"expected a tensor on the left of `|>`, but found "
                            f"{describe(current.value)}", current.span)
        current = Argument(_stage(ctx, frame, stage, current), stage.span)
    return current.value


def _stage(ctx: Context, frame: Frame, stage: s.Expr, piped: Argument) -> V:
    match stage:
        case s.Named():
            return _named(ctx, frame, stage, piped)
        case s.Call():
            return _call(ctx, frame, stage, (piped,))
    callee = evaluate(ctx, frame, stage)
    if isinstance(callee, Definition) and callee.is_layer:
        raise UserError("NN0116", f"`{callee.name}` is a layer and needs its settings",
                        stage.span, help=f"write `|> {callee.name}(...)`; without settings "
                                         f"`|> {callee.name}()`")
    return call(ctx, frame, callee, [(None, piped)], stage, evaluate)


def _named(ctx: Context, frame: Frame, node: s.Named, piped: Argument | None) -> V:
    """``dense(3) as head``: the instance made by the innermost call gets the name."""
    if piped is not None:
        found = _stage(ctx, frame, node.value, piped)
    else:
        found = evaluate(ctx, frame, node.value)
    inner: s.Node = node.value
    while isinstance(inner, s.Call) and isinstance(inner.callee, s.Call):
        inner = inner.callee
    made = frame.owner.children.get((id(inner), frame.rounds))
    if made is None:
        raise UserError("NN0124", "`as` names the instance that a layer's call makes, but this "
                        "makes none", node.name.span,
                        help="bind a value with `name = ...` instead")
    made.explicit = node.name.text
    return found


# Indexing ---------------------------------------------------------------------------------------


def _index(ctx: Context, frame: Frame, node: s.Index) -> V:
    value = evaluate(ctx, frame, node.value)
    if isinstance(value, Tuple):
        return index_tuple(value, node, lambda e: evaluate(ctx, frame, e))
    if isinstance(value, Value):
        return index_tensor(ctx, value, node, lambda e: evaluate(ctx, frame, e))
    raise UserError("NN0117", f"expected a tensor or a list before `[`, but found "
                    f"{describe(value)}", node.value.span)


def _instead(frame: Frame, name: str) -> str:
    """What to write in place of `x.name`, where `x` is no instance."""
    name = {"T": "transpose", "shape": "shape_of"}.get(name, name)
    if scope.find(frame.module, name) is not None:
        return f"write `{name}(...)`: `.` is for parameters of layers, as in `enc.W`"
    return "bind an instance, `enc = dense(4)`, apply it, `x |> enc`, and `enc.W` is its parameter"


def _need_owner(frame: Frame, owner: s.Name, name: str) -> None:
    """`UserError` for a name that is not known: that of a parameter in a weights file may look
    like one, `dense1.W`, and `as` binds none."""
    if owner.text in frame.names or frame.bindings.get(owner.text) \
            or scope.find(frame.module, owner.text) is not None:
        return
    close = nearest(owner.text, [n for n, v in frame.names.items() if isinstance(v, Instance)])
    raise UserError("NN0101", f"the name `{owner.text}` is not known", owner.span,
                    help=f"did you mean `{close}`?" if close else
                    f"bind an instance of the layer, `enc = dense(4)`, apply it, `x |> enc`, and "
                    f"write `enc.{name}`")


def _attribute(ctx: Context, frame: Frame, node: s.Attribute) -> V:
    """``enc.W``: a parameter or an inner instance of an instance that has been applied."""
    name = node.name.text
    if isinstance(node.value, s.Name):
        _need_owner(frame, node.value, name)
    value = evaluate(ctx, frame, node.value)
    if not isinstance(value, Instance):
        raise UserError("NN0104", f"expected an instance of a layer before `.`, but found "
                        f"{describe(value)}", node.value.span, help=_instead(frame, name))
    if name in value.parameters:
        return ctx.current(value.parameters[name])
    for child in value.children.values():
        if child.explicit == name:
            return child
    known = [*value.parameters, *(c.explicit for c in value.children.values() if c.explicit)]
    close = nearest(name, known)
    help = f"did you mean `{close}`?" if close else (
        f"it has {', '.join(f'`{k}`' for k in known)}" if known
        else "a layer has its parameters once it has been applied")
    raise UserError("NN0104", f"{describe(value)} has no `{name}`", node.name.span, help=help)
