"""Calls: binding arguments, running fns and builtins, making and applying instances of layers.

A layer's first argument list makes an `Instance`, the second applies it. An instance owns its
parameters and the instances made in its body, so that applying it again shares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nncompiler.errors import NNError, Note, Span, UserError, nearest
from nncompiler.ir.graph import Value
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.context import MAX_CALLS, Context, Frame
from nncompiler.lang.elaborate.names import binding_counts
from nncompiler.lang.elaborate.tensor import unapplied
from nncompiler.lang.elaborate.types import Header
from nncompiler.lang.elaborate.values import (
    REQUIRED,
    Argument,
    Arguments,
    Builtin,
    Definition,
    Instance,
    V,
    describe,
    is_number,
    quoted,
)

Given = Sequence["tuple[s.Ident | None, Argument]"]
Evaluate = Callable[[Context, Frame, s.Expr], V]
MAX_NOTES = 4


def call(ctx: Context, frame: Frame, callee: V, given: Given, node: s.Node,
         evaluate: Evaluate) -> V:
    """``callee(given)``; a layer makes an instance, an instance is applied."""
    match callee:
        case Builtin():
            return callee.run(ctx, bind_builtin(callee, given, node.span))
        case Definition() if callee.is_layer:
            return make(ctx, frame, callee, given, node, evaluate)
        case Definition():
            return run_fn(ctx, callee, given, node.span, evaluate, frame)
        case Instance():
            return apply(ctx, callee, given, node.span, evaluate, frame)
    raise UserError("NN0117", f"expected a fn, a layer or a function to call, but found "
                    f"{describe(callee)}", node.span,
                    help="a product is written with `*`" if is_number(callee) else None)


# Binding ----------------------------------------------------------------------------------------


def bind_builtin(function: Builtin, given: Given, span: Span) -> Arguments:
    """The arguments of a builtin by name, defaults filled in."""
    names = [name for name, _ in function.parameters if not name.startswith("*")]
    variadic = len(names) < len(function.parameters)
    bound, rest = _bind(function.name, lambda: f"`{function.signature}`", names, given, variadic)
    for name, default in function.parameters:
        if name in bound or name.startswith("*"):
            continue
        if default is REQUIRED:
            raise _missing(function.name, name, span, f"`{function.signature}`")
        bound[name] = Argument(default, span)
    return Arguments(function.name, span, bound, tuple(rest))


def _bind(function: str, signature: Callable[[], str], names: Sequence[str], given: Given,
          variadic: bool = False) -> tuple[dict[str, Argument], list[Argument]]:
    """Positional and keyword arguments by name; what is too much for a variadic function."""
    bound: dict[str, Argument] = {}
    rest: list[Argument] = []
    for position, (keyword, argument) in enumerate(given):
        if keyword is None:
            if position < len(names):
                bound[names[position]] = argument
            elif variadic:
                rest.append(argument)
            else:
                raise UserError("NN0112", f"`{function}` takes {_count(len(names))}, "
                                f"but {len(given)} are given", argument.span,
                                help=f"the arguments are {signature()}")
            continue
        name = keyword.text
        if name not in names:
            close = nearest(name, names)
            raise UserError("NN0110", f"`{function}` has no argument `{name}`", keyword.span,
                            help=f"did you mean `{close}`?" if close
                            else f"the arguments are {signature()}")
        if name in bound:
            raise UserError("NN0113", f"`{name}` is given twice: by position and by name",
                            keyword.span, notes=[Note("first here", bound[name].span)])
        bound[name] = argument
    return bound, rest


def _count(n: int) -> str:
    return "no arguments" if n == 0 else f"{n} argument{'s' * (n != 1)}"


def _missing(function: str, name: str, span: Span, signature: str,
             note: Note | None = None) -> UserError:
    return UserError("NN0111", f"`{function}` needs the argument `{name}`", span,
                     notes=[note] if note else [], help=f"the arguments are {signature}")


def _signature(name: str, parameters: Sequence[s.Parameter]) -> str:
    inner = ", ".join(p.name.text if p.default is None else f"[{p.name.text}]" for p in parameters)
    return f"`{name}({inner})`"


def _bind_header(ctx: Context, frame: Frame, name: str, parameters: Sequence[s.Parameter],
                 given: Given, span: Span, evaluate: Evaluate) -> dict[str, Argument]:
    """Arguments for the parameters of a definition; defaults see the ones before them."""
    names = [p.name.text for p in parameters]
    bound, _ = _bind(name, lambda: _signature(name, parameters), names, given)
    result: dict[str, Argument] = {}
    for p in parameters:
        text = p.name.text
        if text in bound:
            result[text] = bound[text]
        elif p.default is not None:
            inner = Frame(frame.module, frame.owner, {k: a.value for k, a in result.items()})
            result[text] = Argument(evaluate(ctx, inner, p.default), p.default.span)
        else:
            raise _missing(name, text, span, _signature(name, parameters),
                           Note("it is declared here", p.name.span))
    return result


# Running ----------------------------------------------------------------------------------------


def run_fn(ctx: Context, fn: Definition, given: Given, span: Span, evaluate: Evaluate,
           caller: Frame) -> V:
    """The result of a fn."""
    detached = Instance(None, span, None, in_fn=True)
    frame = Frame(fn.module, detached)

    def run() -> V:
        arguments = _bind_header(ctx, frame, fn.name, fn.item.parameters, given, span, evaluate)
        return _run(ctx, fn, frame, fn.item.parameters, arguments, span, evaluate)

    return _inside(ctx, fn, span, caller, run)


def _run(ctx: Context, definition: Definition, frame: Frame, parameters: Sequence[s.Parameter],
         arguments: dict[str, Argument], span: Span, evaluate: Evaluate) -> V:
    """Match the header, then run the body."""
    item = definition.item
    header = Header(ctx, lambda e: evaluate(ctx, frame, e), frame.names)
    for p in parameters:
        frame.names[p.name.text] = header.match(p, arguments[p.name.text])
    header.finish(span)
    if id(item) not in ctx.counts:
        ctx.counts[id(item)] = binding_counts(item)
    frame.bindings = ctx.counts[id(item)]
    found = ctx.execute(ctx, frame, item.body)
    if found is None:
        raise UserError("NN0119", f"`{definition.name}` ends without `return`", item.span,
                        help="end every branch with `return VALUE`")
    return found


def _inside(ctx: Context, definition: Definition, span: Span, caller: Frame,
            run: Callable[[], V]) -> V:
    """Run a body with the bookkeeping of a call; errors in it tell where the call is."""
    if len(ctx.calls) >= MAX_CALLS:
        around = [definition.name, *reversed(ctx.calls)]
        raise UserError("NN0118", f"calls nest more than {MAX_CALLS} deep in "
                        f"`{max(around, key=ctx.calls.count)}`", ctx.site or span,
                        help="a fn or layer that calls itself must end by an `if` on an argument "
                             "known at compile time")
    entering = definition.module.stdlib and not caller.module.stdlib
    before = ctx.site
    ctx.calls.append(definition.name)
    if entering and ctx.site is None:
        ctx.site = span
    try:
        return run()
    except NNError as e:
        raise _retold(e, definition, span, entering) from None
    finally:
        ctx.calls.pop()
        ctx.site = before


def _retold(e: NNError, definition: Definition, span: Span, entering: bool) -> NNError:
    """The error as seen from the call: the user's line first, not one of the standard library."""
    inside = e.span is not None and e.span.file == definition.item.span.file
    if entering and inside and e.span != span:
        note = Note(f"inside `{definition.name}` of the standard library", e.span)
        return type(e)(e.code, e.message, span, notes=[*e.notes, note], help=e.help)
    same = any(note.span == span for note in e.notes)
    if definition.module.stdlib or e.span == span or same or len(e.notes) >= MAX_NOTES:
        return e
    note = Note(f"in this call of `{definition.name}`", span)
    return type(e)(e.code, e.message, e.span, notes=[*e.notes, note], help=e.help)


# Layers -----------------------------------------------------------------------------------------


def make(ctx: Context, frame: Frame, layer: Definition, given: Given, node: s.Node,
         evaluate: Evaluate) -> Instance:
    """The instance of `layer` that the call at `node` makes; the same one when made again."""
    assert isinstance(layer.item, s.Layer)
    for _, argument in given:
        if isinstance(argument.value, Value):
            raise _tensor_first(layer, given, argument)
    inner = Frame(layer.module, frame.owner)
    arguments = _bind_header(ctx, inner, layer.name, layer.item.parameters, given, node.span,
                             evaluate)
    for p in layer.item.parameters:
        _check_static(p, arguments[p.name.text])
    key = (id(node), frame.rounds)
    instance = frame.owner.children.get(key)
    if instance is None:
        where = ctx.site or (node.span if layer.module.stdlib else None)
        instance = Instance(layer, node.span, where, frame.owner, frame.owner.in_fn,
                            rounds=frame.rounds)
        if frame.statement is not None:
            instance.statement = (id(frame.statement), frame.rounds)
            if frame.target and frame.bindings.get(frame.target) == 1:
                instance.target = frame.target
        frame.owner.children[key] = instance
    instance.arguments = arguments
    return instance


def _tensor_first(layer: Definition, given: Given, argument: Argument) -> UserError:
    """``dense(x, 3)``: the layer is used as if it were a fn."""
    assert isinstance(layer.item, s.Layer)
    others = [f"{k.text} = {quoted(a.span, '...')}" if k else quoted(a.span, "...")
              for k, a in given if a is not argument]
    shown = ", ".join(others) or ("..." if layer.item.parameters else "")
    x = quoted(argument.span)
    return UserError(
        "NN0115", f"`{layer.name}` is a layer: its first argument list takes settings, "
        "not tensors", argument.span,
        notes=[Note(f"{_signature(layer.name, layer.item.parameters)} makes the layer, a second "
                    "list applies it")],
        help=f"write `{x} |> {layer.name}({shown})`, or `{layer.name}({shown})({x})`")


_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "i32": (int, "a whole number"),
    "f32": ((int, float), "a number"),
    "f64": ((int, float), "a number"),
    "bool": (bool, "`true` or `false`"),
}


def _check_static(p: s.Parameter, argument: Argument) -> None:
    """A type on a setting of a layer says what kind of number it takes."""
    if p.type is None:
        return
    wanted = _KINDS.get(p.type.dtype.text)
    if wanted is None or p.type.dims:
        raise UserError("NN0122", f"expected a scalar type for the setting `{p.name.text}`, such "
                        "as i32[], f32[] or bool[]", p.type.span,
                        help="tensors go into the second argument list")
    value = argument.value
    kind, words = wanted
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError("NN0122", f"expected {words} for `{p.name.text}`, "
                        f"but found {describe(value)}", argument.span,
                        notes=[Note("it is declared here", p.type.span)])


def apply(ctx: Context, instance: Instance, given: Given, span: Span, evaluate: Evaluate,
          caller: Frame) -> V:
    """The result of an instance on its inputs."""
    layer = instance.layer
    assert layer is not None and isinstance(layer.item, s.Layer)
    instance.applied = True
    inputs = layer.item.inputs
    frame = Frame(layer.module, instance, {k: a.value for k, a in instance.arguments.items()})

    def run() -> V:
        arguments = _bind_header(ctx, frame, layer.name, inputs, given, span, evaluate)
        for p in inputs:
            value = arguments[p.name.text].value
            if isinstance(value, (Instance, Definition)):
                raise UserError("NN0123", f"expected a tensor for `{p.name.text}`, but found "
                                f"{describe(value)}", arguments[p.name.text].span,
                                help=unapplied(value))
        return _run(ctx, layer, frame, inputs, arguments, span, evaluate)

    return _inside(ctx, layer, span, caller, run)
