"""Rewrites transcendental primitives before evaluation, once per expression object."""

from __future__ import annotations

from nncompiler.codegen.target import Target
from nncompiler.errors import CompilerBug
from nncompiler.ir.scalar import PRIMITIVES, Apply, Expr, children


class Expansion:
    """`expand` with a memory. Sources are kept alive, so that their identities stay theirs."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._known: dict[int, tuple[Expr, Expr]] = {}

    def __call__(self, expr: Expr) -> Expr:
        found = self._known.get(id(expr))
        if found is None:
            result = _expand(expr)
            found = self._known[id(expr)] = (expr, result)
            self._known[id(result)] = (result, result)
        return found[1]


def _expand(expr: Expr) -> Expr:
    seen: set[int] = set()
    todo = [expr]
    while todo:
        e = todo.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        if isinstance(e, Apply) and PRIMITIVES[e.op].transcendental:
            raise CompilerBug("NN0595", f"no expansion of '{e.op}'")
        todo += children(e)
    return expr
