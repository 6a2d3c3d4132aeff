"""Rewrites transcendental primitives before evaluation, once per expression object."""

from __future__ import annotations

from nncompiler.codegen.math.formulas import expand
from nncompiler.ir.scalar import Expr


class Expansion:
    """`math.expand` with a memory. Sources are kept alive, so that their identities stay theirs.
    """

    def __init__(self, fma: bool) -> None:
        self._fma = fma
        self._known: dict[int, tuple[Expr, Expr]] = {}

    def __call__(self, expr: Expr) -> Expr:
        found = self._known.get(id(expr))
        if found is None:
            result = expand(expr, self._fma)
            found = self._known[id(expr)] = (expr, result)
            self._known[id(result)] = (result, result)
        return found[1]
