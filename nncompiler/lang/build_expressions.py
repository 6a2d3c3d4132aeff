"""Reductions of the grammar -> syntax nodes: expressions (see `build`)."""

from __future__ import annotations

from nncompiler.errors import Note, UserError
from nncompiler.lang import syntax as s
from nncompiler.lang.production import (
    Child,
    Children,
    builds,
    is_token,
    join,
    no_string,
    nodes,
    whole,
)
from nncompiler.record import replace


@builds
def scan(kids: Children) -> s.Scan:
    _, variable, _, sequence, _, axis, *rest = kids
    carries = tuple(kid for kid in rest if isinstance(kid, s.Carry))
    return s.Scan(variable, sequence, axis, carries, rest[-1], span=join(kids[0].span, axis.span))


@builds
def carry(kids: Children) -> s.Carry:
    return s.Carry(kids[0], kids[2], span=whole(kids))


@builds
def pipe(kids: Children) -> s.Pipe:
    value, *stages = nodes(kids)
    for stage in stages:
        if not _is_instance(stage.value if isinstance(stage, s.Named) else stage):
            raise UserError(
                "NN0028", "the right side of `|>` must be a name with its call lists", stage.span,
                help="bind the layer to a name first: `f = ...`, then `x |> f`")
    return s.Pipe(value, tuple(stages), span=whole(kids))


def _is_instance(node: Child) -> bool:
    """Whether `node` is a name with call lists, no bracket round any part."""
    start = node.span
    while isinstance(node, s.Call):
        node = node.callee
    return isinstance(node, s.Name) and node.span == start and node.span.width == len(node.text)


@builds
def named(kids: Children) -> s.Named:
    value, _, name = kids
    if not _is_instance(value):
        raise UserError("NN0048", "`as` names the layer instance made by a call", name.span,
                        help="write it after the call: `dense(3)(x) as head` or "
                             "`x |> dense(3) as head`")
    return s.Named(value, name, span=whole(kids))


@builds
def binary(kids: Children) -> s.Binary:
    left, op, right = kids
    if not is_token(op, "EQEQ", "NOTEQ", "AND", "OR"):
        no_string(left, "a number or a tensor")
        no_string(right, "a number or a tensor")
    return s.Binary(op.text, left, right, span=whole(kids))


@builds
def unary(kids: Children) -> s.Unary:
    no_string(kids[1], "a number or a tensor")
    return s.Unary(kids[0].text, kids[1], span=whole(kids))


@builds
def call(kids: Children) -> s.Call:
    callee, _, *rest = kids
    arguments: tuple[s.Argument, ...] = nodes(rest)
    seen: dict[str, s.Ident] = {}
    for a in arguments:
        if a.name is None:
            if seen:
                raise UserError("NN0044", "expected a keyword argument after keyword arguments",
                                a.span, help="put positional arguments first")
        elif a.name.text in seen:
            raise UserError("NN0045", f"`{a.name.text}` is given twice", a.name.span,
                            notes=[Note("first here", seen[a.name.text].span)])
        else:
            seen[a.name.text] = a.name
    return s.Call(callee, arguments, span=whole(kids))


@builds
def argument(kids: Children) -> s.Argument:
    return s.Argument(kids[0] if len(kids) > 1 else None, kids[-1], span=whole(kids))


@builds
def index(kids: Children) -> s.Index:
    value, _, *rest = kids
    items = nodes(rest)
    for item in items:
        no_string(item, "an index")
    return s.Index(value, items, span=whole(kids))


@builds
def slice_(kids: Children) -> s.Slice:
    parts: list[s.Expr | None] = [None, None, None]
    position = 0
    for kid in kids:
        if is_token(kid, "COLON"):
            position += 1
        else:
            parts[position] = kid
    return s.Slice(*parts, span=whole(kids))


@builds
def dots(kids: Children) -> s.Dots:
    return s.Dots(span=kids[0].span)


@builds
def attribute(kids: Children) -> s.Attribute:
    return s.Attribute(kids[0], kids[2], span=whole(kids))


@builds
def reference(kids: Children) -> s.Name:
    return s.Name(kids[0].text, span=kids[0].span)


@builds
def name(kids: Children) -> s.Ident:
    return s.Ident(kids[0].text, span=kids[0].span)


@builds
def int_(kids: Children) -> s.Int:
    return s.Int(int(kids[0].text), span=kids[0].span)


@builds
def float_(kids: Children) -> s.Float:
    return s.Float(float(kids[0].text), span=kids[0].span)


@builds
def bool_(kids: Children) -> s.Bool:
    return s.Bool(is_token(kids[0], "TRUE"), span=kids[0].span)


@builds
def string(kids: Children) -> s.String:
    return s.String(kids[0].text[1:-1], span=kids[0].span)


@builds
def group(kids: Children) -> s.Expr:
    expr: s.Expr = replace(kids[1], span=whole(kids))
    return expr


@builds
def list_(kids: Children) -> s.ListExpr:
    return s.ListExpr(nodes(kids), span=whole(kids))
