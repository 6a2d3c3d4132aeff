"""Reductions of the grammar -> syntax nodes, one function per production, named as in the grammar.

Every terminal is kept by the grammar, so the children of a production are matched by position and
kind of token. What one production can see to be wrong by itself is reported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nncompiler.errors import Note, Span, UserError, nearest
from nncompiler.lang import syntax as s
from nncompiler.lang.lex import Token
from nncompiler.record import replace

# A production's children are tokens and nodes; the grammar says which, and mypy cannot.
Child = Any
Children = list[Any]

BUILDERS: dict[str, Callable[[Children], Child]] = {}


def _builds(function: Callable[[Children], Child]) -> Callable[[Children], Child]:
    BUILDERS[function.__name__] = function
    return function


def join(first: Span, last: Span) -> Span:
    """From the start of `first` to the end of `last`, or of the first line."""
    if first.line != last.line:
        return first
    width = last.column + last.width - first.column
    return Span(first.file, first.line, first.column, width, first.source)


def _whole(kids: Children) -> Span:
    return join(kids[0].span, kids[-1].span)


def _nodes(kids: Children) -> tuple[Child, ...]:
    """The children that are not punctuation or keywords."""
    return tuple(kid for kid in kids if not isinstance(kid, Token))


def _is(kid: Child, *kinds: str) -> bool:
    return isinstance(kid, Token) and kid.kind in kinds


# Files and definitions ------------------------------------------------------------------------


@_builds
def file(kids: Children) -> tuple[s.Item, ...]:
    return tuple(kids)


@_builds
def import_(kids: Children) -> s.Import:
    return s.Import(string(kids[1:]), span=_whole(kids))


@_builds
def model(kids: Children) -> s.Model:
    keyword, name, *header, body = kids
    return s.Model(name, header[0] if header else (), body, span=join(keyword.span, name.span))


@_builds
def train(kids: Children) -> s.Train:
    return s.Train(kids[1], span=kids[0].span)


@_builds
def fn(kids: Children) -> s.Fn:
    keyword, name, parameters, body = kids
    return s.Fn(name, parameters, body, span=join(keyword.span, name.span))


@_builds
def layer(kids: Children) -> s.Layer:
    keyword, name, parameters, inputs, body = kids
    return s.Layer(name, parameters, inputs, body, span=join(keyword.span, name.span))


@_builds
def header(kids: Children) -> tuple[s.Parameter, ...]:
    parameters: tuple[s.Parameter, ...] = _nodes(kids)
    seen: dict[str, s.Parameter] = {}
    defaulted: s.Parameter | None = None
    for p in parameters:
        if p.name.text in seen:
            raise UserError("NN0046", f"`{p.name.text}` is declared twice", p.name.span,
                            notes=[Note("first here", seen[p.name.text].name.span)])
        seen[p.name.text] = p
        if p.default is not None:
            defaulted = p
        elif defaulted is not None:
            raise UserError(
                "NN0047", f"expected a default for `{p.name.text}`, since one before it has one",
                p.name.span, notes=[Note("the first with a default", defaulted.name.span)],
                help="put the parameters without defaults first")
    return parameters


@_builds
def parameter(kids: Children) -> s.Parameter:
    name, type_, default = kids[0], None, None
    for mark, value in zip(kids[1::2], kids[2::2], strict=True):
        if _is(mark, "COLON"):
            type_ = value
        else:
            default = value
    return s.Parameter(name, type_, default, span=_whole(kids))


@_builds
def type_(kids: Children) -> s.TensorType:
    dtype: s.Ident = kids[0]
    if dtype.text not in s.DTYPES:
        guess = nearest(dtype.text, s.DTYPES)
        raise UserError("NN0040", f"expected an element type, but found `{dtype.text}`",
                        dtype.span, help=f"did you mean `{guess}`?" if guess else
                        f"the element types are {', '.join(s.DTYPES)}")
    dims = _nodes(kids[1:])
    for dim in dims:
        _no_string(dim, "a size")
    return s.TensorType(dtype, dims, span=_whole(kids))


@_builds
def block(kids: Children) -> tuple[s.Statement, ...]:
    return tuple(kids[1:-1])


# Statements -----------------------------------------------------------------------------------


@_builds
def input_(kids: Children) -> s.Input:
    return s.Input(kids[1], kids[3], span=_whole(kids))


@_builds
def target(kids: Children) -> s.Target:
    return s.Target(kids[1], kids[3], span=_whole(kids))


@_builds
def param(kids: Children) -> s.Param:
    return s.Param(kids[1], kids[3], kids[5] if len(kids) > 4 else None, span=_whole(kids))


@_builds
def state(kids: Children) -> s.State:
    return s.State(kids[1], kids[3], kids[5] if len(kids) > 4 else None, span=_whole(kids))


@_builds
def assign(kids: Children) -> s.Assign:
    *targets, value = _nodes(kids)
    seen: dict[str, s.Ident] = {}
    for t in targets:
        if t.text in seen:
            raise UserError("NN0046", f"`{t.text}` is bound twice in one statement", t.span,
                            notes=[Note("first here", seen[t.text].span)],
                            help="use `_1`, `_2` for parts you do not need")
        seen[t.text] = t
    return s.Assign(tuple(targets), value, span=_whole(kids))


@_builds
def output(kids: Children) -> s.Output:
    return s.Output(kids[1], kids[3] if len(kids) > 2 else None, span=_whole(kids))


@_builds
def loss(kids: Children) -> s.Loss:
    return s.Loss(kids[1] if len(kids) > 2 else None, kids[-1], span=_whole(kids))


@_builds
def metric(kids: Children) -> s.Metric:
    return s.Metric(kids[1], kids[3], span=_whole(kids))


@_builds
def branch(kids: Children) -> s.Branch:
    return s.Branch(kids[1], kids[2], span=join(kids[0].span, kids[1].span))


@_builds
def if_(kids: Children) -> s.If:
    branches = tuple(kid for kid in kids if isinstance(kid, s.Branch))
    orelse = None if isinstance(kids[-1], s.Branch) else kids[-1]
    return s.If(branches, orelse, span=kids[0].span)


@_builds
def for_(kids: Children) -> s.For:
    _, variable, _, start, _, stop, body = kids
    return s.For(variable, start, stop, body, span=join(kids[0].span, stop.span))


@_builds
def return_(kids: Children) -> s.Return:
    return s.Return(_nodes(kids), span=_whole(kids))


@_builds
def yield_(kids: Children) -> s.Yield:
    return s.Yield(_nodes(kids), span=_whole(kids))


@_builds
def minimize(kids: Children) -> s.Minimize:
    _, name, _, *prefix = kids
    text = "".join(part.text for part in prefix)
    return s.Minimize(name, s.Ident(text, span=_whole(prefix)), span=_whole(kids))


# Expressions ----------------------------------------------------------------------------------


@_builds
def scan(kids: Children) -> s.Scan:
    _, variable, _, sequence, _, axis, *rest = kids
    carries = tuple(kid for kid in rest if isinstance(kid, s.Carry))
    return s.Scan(variable, sequence, axis, carries, rest[-1], span=join(kids[0].span, axis.span))


@_builds
def carry(kids: Children) -> s.Carry:
    return s.Carry(kids[0], kids[2], span=_whole(kids))


@_builds
def pipe(kids: Children) -> s.Pipe:
    value, *stages = _nodes(kids)
    for stage in stages:
        if not _is_instance(stage.value if isinstance(stage, s.Named) else stage):
            raise UserError(
                "NN0028", "the right side of `|>` must be a name with its call lists", stage.span,
                help="bind the layer to a name first: `f = ...`, then `x |> f`")
    return s.Pipe(value, tuple(stages), span=_whole(kids))


def _is_instance(node: Child) -> bool:
    """Whether `node` is a name with call lists, no bracket round any part."""
    start = node.span
    while isinstance(node, s.Call):
        node = node.callee
    return isinstance(node, s.Name) and node.span == start and node.span.width == len(node.text)


@_builds
def named(kids: Children) -> s.Named:
    value, _, name = kids
    if not _is_instance(value):
        raise UserError("NN0048", "`as` names the layer instance made by a call", name.span,
                        help="write it after the call: `dense(3)(x) as head` or "
                             "`x |> dense(3) as head`")
    return s.Named(value, name, span=_whole(kids))


@_builds
def binary(kids: Children) -> s.Binary:
    left, op, right = kids
    if not _is(op, "EQEQ", "NOTEQ", "AND", "OR"):
        _no_string(left, "a number or a tensor")
        _no_string(right, "a number or a tensor")
    return s.Binary(op.text, left, right, span=_whole(kids))


@_builds
def unary(kids: Children) -> s.Unary:
    _no_string(kids[1], "a number or a tensor")
    return s.Unary(kids[0].text, kids[1], span=_whole(kids))


def _no_string(node: Child, wanted: str) -> None:
    if isinstance(node, s.String):
        raise UserError("NN0043", f"expected {wanted}, but found a string", node.span,
                        help=f"write {node.value} without quotes")


@_builds
def call(kids: Children) -> s.Call:
    callee, _, *rest = kids
    arguments: tuple[s.Argument, ...] = _nodes(rest)
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
    return s.Call(callee, arguments, span=_whole(kids))


@_builds
def argument(kids: Children) -> s.Argument:
    return s.Argument(kids[0] if len(kids) > 1 else None, kids[-1], span=_whole(kids))


@_builds
def index(kids: Children) -> s.Index:
    value, _, *rest = kids
    items = _nodes(rest)
    for item in items:
        _no_string(item, "an index")
    return s.Index(value, items, span=_whole(kids))


@_builds
def slice_(kids: Children) -> s.Slice:
    parts: list[s.Expr | None] = [None, None, None]
    position = 0
    for kid in kids:
        if _is(kid, "COLON"):
            position += 1
        else:
            parts[position] = kid
    return s.Slice(*parts, span=_whole(kids))


@_builds
def dots(kids: Children) -> s.Dots:
    return s.Dots(span=kids[0].span)


@_builds
def attribute(kids: Children) -> s.Attribute:
    return s.Attribute(kids[0], kids[2], span=_whole(kids))


@_builds
def reference(kids: Children) -> s.Name:
    return s.Name(kids[0].text, span=kids[0].span)


@_builds
def name(kids: Children) -> s.Ident:
    return s.Ident(kids[0].text, span=kids[0].span)


@_builds
def int_(kids: Children) -> s.Int:
    return s.Int(int(kids[0].text), span=kids[0].span)


@_builds
def float_(kids: Children) -> s.Float:
    return s.Float(float(kids[0].text), span=kids[0].span)


@_builds
def bool_(kids: Children) -> s.Bool:
    return s.Bool(_is(kids[0], "TRUE"), span=kids[0].span)


@_builds
def string(kids: Children) -> s.String:
    return s.String(kids[0].text[1:-1], span=kids[0].span)


@_builds
def group(kids: Children) -> s.Expr:
    expr: s.Expr = replace(kids[1], span=_whole(kids))
    return expr


@_builds
def list_(kids: Children) -> s.ListExpr:
    return s.ListExpr(_nodes(kids), span=_whole(kids))
