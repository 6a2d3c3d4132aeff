"""The free sizes of a model: the names in its declarations that nothing binds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nncompiler.errors import Span, UserError, nearest
from nncompiler.ir.types import MAX_ELEMENTS
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.context import Context
from nncompiler.lang.elaborate.names import binding_counts
from nncompiler.lang.elaborate.train import default_batch


def model_of(file: s.File) -> s.Model:
    """The one model of a file; `UserError` NN0170 where there is none."""
    for item in file.items:
        if isinstance(item, s.Model):
            return item
    raise UserError("NN0170", f"{file.span.file} has no model", file.span,
                    help="write `model NAME { ... }` with inputs and outputs")


def free_sizes(file: s.File) -> tuple[str, ...]:
    """The names in the types of inputs and targets that nothing binds, in order of appearance."""
    model = model_of(file)
    bound = {p.name.text for p in model.parameters} | set(binding_counts(model))
    found: dict[str, None] = {}
    stack: list[s.Node] = list(reversed(model.body))
    while stack:
        node = stack.pop()
        if isinstance(node, (s.Input, s.Target)):
            found.update((n, None) for d in node.type.dims for n in _names(d) if n not in bound)
        elif isinstance(node, (s.If, s.Branch, s.For)):
            stack += reversed(list(s.children(node)))
    return tuple(found)


def _names(node: s.Node) -> Iterator[str]:
    if isinstance(node, s.Name):
        yield node.text
    for child in s.children(node):
        if not (isinstance(node, s.Call) and child is node.callee):
            yield from _names(child)


def bind_sizes(file: s.File, train: s.Train | None, sizes: Mapping[str, int],
               ctx: Context) -> dict[str, int]:
    """The free sizes and the model's overridden settings."""
    model, free = model_of(file), free_sizes(file)
    settings = [p.name.text for p in model.parameters]
    for name, value in sizes.items():
        if name not in free and name not in settings:
            known = [*free, *settings]
            close = nearest(name, known)
            raise UserError("NN0172", f"the model `{model.name.text}` has no free size `{name}`",
                            model.span, help=f"did you mean `{close}`?" if close else
                            f"it has {', '.join(f'`{n}`' for n in known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ELEMENTS:
            raise UserError("NN0173", f"expected a size from 1 to {MAX_ELEMENTS} for `{name}`, "
                            f"but found {value!r}", model.span)
    bound = dict(sizes)
    for name in free:
        if name in bound:
            continue
        batch = default_batch(train, ctx) if name == "batch" else None
        if batch is None:
            raise UserError("NN0171", f"the size `{name}` is not known", _place(model, name),
                            help=f"give it: `--size {name}=N`" + (
                                ", or `batch = N` in a train block" if name == "batch" else ""))
        bound[name] = batch
    return bound


def _place(model: s.Model, name: str) -> Span:
    """Where a free size is first written."""
    stack: list[s.Node] = [model]
    while stack:
        node = stack.pop()
        if isinstance(node, s.Name) and node.text == name:
            return node.span
        stack += reversed(list(s.children(node)))
    return model.span
