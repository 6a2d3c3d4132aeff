"""How a builtin function is defined: a decorator with its signature, and readers of arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nncompiler.errors import UserError
from nncompiler.ir.graph import Value
from nncompiler.lang.elaborate.context import Context
from nncompiler.lang.elaborate.tensor import show, tensor
from nncompiler.lang.elaborate.types import size
from nncompiler.lang.elaborate.values import (
    NOTHING,
    REQUIRED,
    Argument,
    Arguments,
    Builtin,
    Tuple,
    V,
    describe,
)

Run = Callable[[Context, Arguments], V]
_WORDS = {"true": True, "false": False}


def define(table: list[Builtin], signature: str, doc: str, example: str,
           family: str) -> Callable[[Run], Run]:
    """Add a builtin: ``sum(x, [axis], keepdims=false)``; ``[axis]`` may be left out."""
    name, _, inner = signature.rstrip(")").partition("(")
    parameters = tuple(_parameter(part.strip()) for part in inner.split(",") if part.strip())

    def add(run: Run) -> Run:
        table.append(Builtin(name, parameters, doc, example, run, family))
        return run

    return add


def _parameter(text: str) -> tuple[str, Any]:
    if text.endswith("..."):
        return f"*{text[:-3]}", NOTHING
    if text.startswith("["):
        return text.strip("[]"), NOTHING
    name, equals, default = text.partition("=")
    if not equals:
        return name, REQUIRED
    if default in _WORDS:
        return name, _WORDS[default]
    return name, float(default) if "." in default or "e" in default else int(default)


# Reading arguments ------------------------------------------------------------------------------


def integer(found: Argument, what: str) -> int:
    value = found.value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise UserError("NN0122", f"expected a whole number known at compile time for {what}, "
                    f"but found {describe(value)}", found.span)


def flag(found: Argument, what: str) -> bool:
    if isinstance(found.value, bool):
        return found.value
    raise UserError("NN0122", f"expected `true` or `false` for {what}, but found "
                    f"{describe(found.value)}", found.span)


def number(found: Argument, what: str) -> float:
    value = found.value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise UserError("NN0122", f"expected a number known at compile time for {what}, but found "
                    f"{describe(value)}", found.span)


def axis_of(found: Argument, x: Value, extra: int = 0) -> int:
    """An axis of `x`, counted from the end where negative."""
    axis, rank = integer(found, "`axis`"), len(x.shape) + extra
    return _check_axis(axis, rank, found, x)


def _check_axis(axis: int, rank: int, found: Argument, x: Value) -> int:
    if not -rank <= axis < rank:
        raise UserError(
            "NN0136", f"there is no axis {axis} in a tensor of shape {show(x)}", found.span,
            help=f"axes run from 0 to {rank - 1}, or from -{rank} to -1" if rank
            else "a scalar has no axes")
    return axis % rank


def axes_of(found: Argument, x: Value) -> tuple[int, ...]:
    """One axis or a list of them, sorted; all where left out."""
    if found.value is NOTHING:
        return tuple(range(len(x.shape)))
    given = found.value.items if isinstance(found.value, Tuple) else (found.value,)
    axes = [_check_axis(integer(Argument(v, found.span), "`axis`"), len(x.shape), found, x)
            for v in given]
    if len(set(axes)) != len(axes):
        raise UserError("NN0136", "an axis is listed twice", found.span)
    return tuple(sorted(axes))


def numbers(given: Sequence[Argument], what: str) -> list[Argument]:
    """``2, 3`` or ``[2, 3]`` as single arguments."""
    if len(given) == 1 and isinstance(given[0].value, Tuple):
        return [Argument(v, given[0].span) for v in given[0].value.items]
    return list(given)


def sizes(given: Sequence[Argument]) -> tuple[int, ...]:
    return tuple(size(a.value, a.span) for a in numbers(given, "a size"))


def tensors(ctx: Context, found: Argument, what: str) -> list[Value]:
    """A list of tensors of one element type."""
    value = found.value
    if not isinstance(value, Tuple) or not value.items:
        raise UserError("NN0122", f"expected a list of tensors for {what}, but found "
                        f"{describe(value)}", found.span, help="write `[a, b]`")
    known = [v for v in value.items if isinstance(v, Value)]
    dtype = known[0].dtype if known else None
    result = [tensor(ctx, Argument(v, found.span), dtype) for v in value.items]
    other = next((v for v in result if v.dtype != result[0].dtype), None)
    if other is not None:
        raise UserError("NN0150", f"{what} cannot mix {result[0].dtype} and {other.dtype}",
                        found.span, help="convert one: `f32(...)`")
    return result
