"""Reductions of the grammar -> syntax nodes: files, definitions and statements. One function per
production, named as in the grammar.

Every terminal is kept by the grammar, so the children of a production are matched by position and
kind of token. What one production can see to be wrong by itself is reported here.
"""

from __future__ import annotations

from nncompiler.errors import Note, UserError, nearest
from nncompiler.lang import syntax as s
from nncompiler.lang.build_expressions import string
from nncompiler.lang.production import BUILDERS as BUILDERS
from nncompiler.lang.production import Children, builds, is_token, join, no_string, nodes, whole

# Files and definitions ------------------------------------------------------------------------


@builds
def file(kids: Children) -> tuple[s.Item, ...]:
    return tuple(kids)


@builds
def import_(kids: Children) -> s.Import:
    return s.Import(string(kids[1:]), span=whole(kids))


@builds
def model(kids: Children) -> s.Model:
    keyword, name, *header, body = kids
    return s.Model(name, header[0] if header else (), body, span=join(keyword.span, name.span))


@builds
def train(kids: Children) -> s.Train:
    return s.Train(kids[1], span=kids[0].span)


@builds
def fn(kids: Children) -> s.Fn:
    keyword, name, parameters, body = kids
    return s.Fn(name, parameters, body, span=join(keyword.span, name.span))


@builds
def layer(kids: Children) -> s.Layer:
    keyword, name, parameters, inputs, body = kids
    return s.Layer(name, parameters, inputs, body, span=join(keyword.span, name.span))


@builds
def header(kids: Children) -> tuple[s.Parameter, ...]:
    parameters: tuple[s.Parameter, ...] = nodes(kids)
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


@builds
def parameter(kids: Children) -> s.Parameter:
    name, type_, default = kids[0], None, None
    for mark, value in zip(kids[1::2], kids[2::2], strict=True):
        if is_token(mark, "COLON"):
            type_ = value
        else:
            default = value
    return s.Parameter(name, type_, default, span=whole(kids))


@builds
def type_(kids: Children) -> s.TensorType:
    dtype: s.Ident = kids[0]
    if dtype.text not in s.DTYPES:
        guess = nearest(dtype.text, s.DTYPES)
        raise UserError("NN0040", f"expected an element type, but found `{dtype.text}`",
                        dtype.span, help=f"did you mean `{guess}`?" if guess else
                        f"the element types are {', '.join(s.DTYPES)}")
    dims = nodes(kids[1:])
    for dim in dims:
        no_string(dim, "a size")
    return s.TensorType(dtype, dims, span=whole(kids))


@builds
def block(kids: Children) -> tuple[s.Statement, ...]:
    return tuple(kids[1:-1])


# Statements -----------------------------------------------------------------------------------


@builds
def input_(kids: Children) -> s.Input:
    return s.Input(kids[1], kids[3], span=whole(kids))


@builds
def target(kids: Children) -> s.Target:
    return s.Target(kids[1], kids[3], span=whole(kids))


@builds
def param(kids: Children) -> s.Param:
    return s.Param(kids[1], kids[3], kids[5] if len(kids) > 4 else None, span=whole(kids))


@builds
def state(kids: Children) -> s.State:
    return s.State(kids[1], kids[3], kids[5] if len(kids) > 4 else None, span=whole(kids))


@builds
def assign(kids: Children) -> s.Assign:
    *targets, value = nodes(kids)
    seen: dict[str, s.Ident] = {}
    for t in targets:
        if t.text in seen:
            raise UserError("NN0046", f"`{t.text}` is bound twice in one statement", t.span,
                            notes=[Note("first here", seen[t.text].span)],
                            help="use `_1`, `_2` for parts you do not need")
        seen[t.text] = t
    return s.Assign(tuple(targets), value, span=whole(kids))


@builds
def output(kids: Children) -> s.Output:
    return s.Output(kids[1], kids[3] if len(kids) > 2 else None, span=whole(kids))


@builds
def loss(kids: Children) -> s.Loss:
    return s.Loss(kids[1] if len(kids) > 2 else None, kids[-1], span=whole(kids))


@builds
def metric(kids: Children) -> s.Metric:
    return s.Metric(kids[1], kids[3], span=whole(kids))


@builds
def branch(kids: Children) -> s.Branch:
    return s.Branch(kids[1], kids[2], span=join(kids[0].span, kids[1].span))


@builds
def if_(kids: Children) -> s.If:
    branches = tuple(kid for kid in kids if isinstance(kid, s.Branch))
    orelse = None if isinstance(kids[-1], s.Branch) else kids[-1]
    return s.If(branches, orelse, span=kids[0].span)


@builds
def for_(kids: Children) -> s.For:
    _, variable, _, start, _, stop, body = kids
    return s.For(variable, start, stop, body, span=join(kids[0].span, stop.span))


@builds
def return_(kids: Children) -> s.Return:
    return s.Return(nodes(kids), span=whole(kids))


@builds
def yield_(kids: Children) -> s.Yield:
    return s.Yield(nodes(kids), span=whole(kids))


@builds
def minimize(kids: Children) -> s.Minimize:
    _, name, _, *prefix = kids
    text = "".join(part.text for part in prefix)
    return s.Minimize(name, s.Ident(text, span=whole(prefix)), span=whole(kids))
