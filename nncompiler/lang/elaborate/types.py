"""Types in source: sizes, and the headers of fns and layers, whose free names take what they meet.

In ``layer dense(units)(x : f32[..., n])`` the name `n` becomes the size found at each call; a name
already bound (an argument) is a constraint; ``...`` is any number of axes, the same ones wherever
it stands in one header.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nncompiler.errors import Note, Span, UserError
from nncompiler.ir.graph import Value
from nncompiler.ir.types import MAX_ELEMENTS, TensorType
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.context import Context, check_elements, tensor_type
from nncompiler.lang.elaborate.tensor import tensor
from nncompiler.lang.elaborate.values import Argument, V, describe, is_number, quoted
from nncompiler.record import dataclass, field

Evaluate = Callable[[s.Expr], V]


def size(value: V, span: Span, what: str = "a size") -> int:
    """A size: a whole number from 1 up."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        help = None
        if isinstance(value, Value):
            help = "sizes are known at compile time; a tensor's is `size(x, axis)`"
        elif isinstance(value, float):
            help = "a size must divide evenly"
        raise UserError("NN0161", f"expected {what}, a whole number, but found {describe(value)}",
                        span, help=help)
    if not 1 <= value <= MAX_ELEMENTS:
        raise UserError("NN0162", f"expected {what} from 1 to {MAX_ELEMENTS}, but found {value}",
                        span)
    return value


def concrete(ctx: Context, type: s.TensorType, evaluate: Evaluate) -> TensorType:
    """A type all of whose sizes are known: of an input, a target or a parameter."""
    shape = []
    for dim in type.dims:
        if isinstance(dim, s.Dots):
            raise UserError("NN0133", "`...` belongs in the header of a fn or layer", dim.span,
                            help="write every size here")
        shape.append(size(evaluate(dim), dim.span))
    check_elements(shape, type.span)
    return tensor_type(ctx.float_type(type.dtype.text), shape)


@dataclass(slots=True)
class Header:
    """One matching of a header against the arguments of a call."""

    ctx: Context
    evaluate: Evaluate
    #: What names mean here; sizes found are added.
    names: dict[str, V]
    known: dict[str, Note] = field(default_factory=dict)
    leading: tuple[int, ...] | None = None
    leading_from: Note | None = None
    later: list[tuple[s.Expr, int, str, Note]] = field(default_factory=list)

    def match(self, parameter: s.Parameter, argument: Argument) -> V:
        """The argument as the parameter's type has it; sizes given as expressions wait."""
        type = parameter.type
        if type is None:
            return argument.value
        name = parameter.name.text
        value = self.element_type(name, type, argument)
        note = Note(f"`{name}` is declared here", type.span)
        here = Note(f"`{name}` is {value.type}", self.ctx.origins.get(value) or argument.span)
        axes = self.axes(name, type, value, argument, note)
        for dim, extent in axes:
            self.extent(dim, extent, name, argument, note, here)
        return value

    def finish(self, span: Span) -> None:
        """Check the sizes that are computed from others."""
        for dim, extent, name, here in self.later:
            wanted = self.evaluate(dim)
            if wanted != extent:
                raise UserError("NN0134", f"expected a size of {describe_size(wanted)} in `{name}`"
                                f", but found {extent}", span,
                                notes=[here, Note("required here", dim.span)])

    def element_type(self, name: str, type: s.TensorType, argument: Argument) -> Value:
        dtype = self.ctx.float_type(type.dtype.text)
        value = argument.value
        if is_number(value) and type.dims and not isinstance(type.dims[0], s.Dots):
            raise UserError("NN0133", f"expected a tensor of {len(type.dims)} axes for `{name}`, "
                            f"but found {describe(value)}", argument.span)
        found = tensor(self.ctx, argument, dtype if is_number(value) else None)
        if found.dtype != dtype:
            raise UserError(
                "NN0135", f"expected `{name}` of {dtype}, but found {describe(found)}",
                argument.span, notes=[Note(f"`{name}` is declared here", type.span)],
                help=f"convert it: `{type.dtype.text}({quoted(argument.span, '...')})`")
        return found

    def axes(self, name: str, type: s.TensorType, value: Value, argument: Argument,
             note: Note) -> Sequence[tuple[s.Expr, int]]:
        """The sizes written in the type beside those found."""
        dims, shape = type.dims, value.shape
        place = next((k for k, d in enumerate(dims) if isinstance(d, s.Dots)), None)
        least = len(dims) - (place is not None)
        if len(shape) < least or (place is None and len(shape) > least):
            wanted = f"{least}{' or more' if place is not None else ''}"
            raise UserError(
                "NN0133", f"expected `{name}` with {wanted} ax{'i' if wanted == '1' else 'e'}s, "
                f"but found {describe(value)} with {len(shape)}", argument.span, notes=[note])
        if place is None:
            return [(d, n) for d, n in zip(dims, shape, strict=True) if not isinstance(d, s.Dots)]
        behind = len(shape) - (least - place)
        self.same_leading(name, shape[place:behind], argument, note)
        pairs = [*zip(dims[:place], shape[:place], strict=True),
                 *zip(dims[place + 1 :], shape[behind:], strict=True)]
        return [(d, n) for d, n in pairs if not isinstance(d, s.Dots)]

    def same_leading(self, name: str, found: tuple[int, ...], argument: Argument,
                     note: Note) -> None:
        if self.leading is None:
            self.leading, self.leading_from = found, Note(
                f"in `{name}` they are {list(found)}", argument.span)
        elif self.leading != found and self.leading_from:
            raise UserError(
                "NN0134", f"expected the axes `...` of `{name}` to be {list(self.leading)}, "
                f"but found {list(found)}", argument.span, notes=[self.leading_from, note],
                help="an axis of 1 is taken away by an index, as in `x[..., 0]`"
                if found == (*self.leading, 1) else None)

    def extent(self, dim: s.Expr, found: int, name: str, argument: Argument, note: Note,
               here: Note) -> None:
        if not isinstance(dim, s.Name):
            self.later.append((dim, found, name, here))
            return
        known = self.names.get(dim.text)
        if known is None:
            self.names[dim.text] = found
            self.known[dim.text] = here
        elif known != found or isinstance(known, bool):
            first = self.known.get(dim.text)
            raise UserError(
                "NN0134", f"expected the size `{dim.text}` to be {describe_size(known)}, "
                f"but `{name}` is {describe(argument.value)}, where it is {found}", argument.span,
                notes=[*([first] if first else []), note])


def describe_size(value: V) -> str:
    return str(value) if is_number(value) else describe(value)
