"""Kernels put together into modules: LLVM takes two milliseconds for a module, whatever is in it.

Where a bundle ends depends on its kernels alone: where it would be too large, or behind a name
that ends one. Names are hashes, so a quarter of them do, and behind the next of these nothing
changes with a kernel.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from nncompiler.codegen.target import TRIPLE

R = TypeVar("R")

#: The largest bundle of several kernels, in characters of text.
_MOST = 32_000
#: Last digits of names that end bundles.
_LAST = frozenset("048c")
_FUNCTION = "define "


def bundled(modules: Generator[tuple[str, str], None, R]) -> Generator[str, None, R]:
    """Modules of single kernels, given by name, as modules of several; gives what they give."""
    waiting: list[str] = []
    size = 0
    while True:
        try:
            name, text = next(modules)
        except StopIteration as end:
            if waiting:
                yield _joined(waiting)
            result: R = end.value
            return result
        if waiting and size + len(text) > _MOST:
            yield _joined(waiting)
            waiting, size = [], 0
        waiting.append(text)
        size += len(text)
        if name[-1] in _LAST:
            yield _joined(waiting)
            waiting, size = [], 0


def module_text(parts: list[str]) -> str:
    """A module of declarations and functions."""
    return "\n".join([f'target triple = "{TRIPLE}"', *parts]) + "\n"


def _joined(modules: list[str]) -> str:
    """One module with the functions of several, and what they declare."""
    if len(modules) == 1:
        return modules[0]
    declarations: dict[str, None] = {}
    functions = []
    for text in modules:
        head, _, body = text.partition(_FUNCTION)
        declarations.update(dict.fromkeys(head.splitlines()[1:]))
        functions.append(_FUNCTION + body)
    return module_text([*declarations, *functions])
