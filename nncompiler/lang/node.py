"""What all nodes of the syntax tree share: a span, their children, a printed form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from nncompiler.errors import Span
from nncompiler.record import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """Anything that has a place in the source."""

    span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Ident(Node):
    """A name being introduced or referred to by the form around it."""

    text: str


def _fields(node: Node) -> list[str]:
    return [name for name in node.__dataclass_fields__ if name != "span"]


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below `node`, in the order of its fields."""
    for name in _fields(node):
        match getattr(node, name):
            case Node() as child:
                yield child
            case tuple() as many:
                yield from cast("tuple[Node, ...]", many)


def dump(node: Node) -> str:
    """The tree as indented text, one node per line with its place: ``Binary '@'  3:9``."""
    lines: list[str] = []
    stack = [(node, "", 0)]
    while stack:
        node, role, depth = stack.pop()
        plain, below = [type(node).__name__], []
        for name in _fields(node):
            match getattr(node, name):
                case Ident(text=text):
                    plain.append(text if name == "name" else f"{name}={text}")
                case Node() as child:
                    below.append((child, name, depth + 1))
                case tuple() as many if any(isinstance(part, Ident) for part in many):
                    plain.append(f"{name}={','.join(cast('Ident', part).text for part in many)}")
                case tuple() as many:
                    label = name if depth else ""
                    below += [(cast("Node", child), label, depth + 1) for child in many]
                case None:
                    pass
                case value:
                    plain.append(repr(value))
        head = "  " * depth + (f"{role}: " if role else "") + " ".join(plain)
        lines.append(f"{head}  {node.span.line}:{node.span.column}")
        stack += reversed(below)
    return "\n".join(lines) + "\n"
