"""What the functions that reduce productions of the grammar to syntax nodes have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nncompiler.errors import Span, UserError
from nncompiler.lang import syntax as s
from nncompiler.lang.lex import Token

# A production's children are tokens and nodes; the grammar says which, and mypy cannot.
Child = Any
Children = list[Any]

BUILDERS: dict[str, Callable[[Children], Child]] = {}


def builds(function: Callable[[Children], Child]) -> Callable[[Children], Child]:
    """Register the function of a production, named as in the grammar."""
    BUILDERS[function.__name__] = function
    return function


def join(first: Span, last: Span) -> Span:
    """From the start of `first` to the end of `last`, or of the first line."""
    if first.line != last.line:
        return first
    width = last.column + last.width - first.column
    return Span(first.file, first.line, first.column, width, first.source)


def whole(kids: Children) -> Span:
    """From the first child to the last."""
    return join(kids[0].span, kids[-1].span)


def nodes(kids: Children) -> tuple[Child, ...]:
    """The children that are not punctuation or keywords."""
    return tuple(kid for kid in kids if not isinstance(kid, Token))


def is_token(kid: Child, *kinds: str) -> bool:
    """Whether a child is a token of one of these kinds."""
    return isinstance(kid, Token) and kid.kind in kinds


def no_string(node: Child, wanted: str) -> None:
    """Refuse a string where something else is `wanted`."""
    if isinstance(node, s.String):
        raise UserError("NN0043", f"expected {wanted}, but found a string", node.span,
                        help=f"write {node.value} without quotes")
