"""Make a nest short to read: a local used once, in the same scope, is written where it is used.

v1 = x[i]                          y[i] = exp(x[i])
v2 = exp(v1)              ──▶
y[i] = v2
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from nncompiler.ir.body import expressions, statements
from nncompiler.ir.kernel import Fold, For, Let, Stmt, Store
from nncompiler.ir.once import once
from nncompiler.ir.scalar import Affine, Expr, Load, Ref, rewrite, walk
from nncompiler.record import replace


def tidy(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Inline single-use locals and drop unused ones. A load never moves across a store to the
    same buffer."""
    uses = Counter(_locals(body))
    return _tidy(body, uses, {})[0]


def _tidy(
    body: tuple[Stmt, ...], uses: Counter[str], pending: dict[str, Expr]
) -> tuple[tuple[Stmt, ...], dict[str, Expr]]:
    """Rewrite one scope; `pending` are the locals waiting for their single use in it."""
    pending = dict(pending)
    done: list[Stmt] = []
    inside = _used_inside(body)
    for s in body:
        match s:
            case Let(name, value):
                value = _substitute(value, pending)
                if uses[name] == 0:
                    continue
                if uses[name] == 1 and name not in inside:
                    pending[name] = value
                    continue
                done.append(Let(name, value))
            case Store(buffer, index, value):
                after = _substitute(value, pending)
                index = tuple(
                    i if isinstance(i, Affine) else _substitute(i, pending) for i in index
                )
                _flush(done, pending, {buffer})
                done.append(Store(buffer, index, after))
            case For() | Fold():
                written = {t.buffer for t in statements((s,)) if isinstance(t, Store)}
                _flush(done, pending, written)
                inner, left = _tidy(s.body, uses, {})
                if isinstance(s, Fold):
                    s = replace(s, values=tuple(_substitute(v, left) for v in s.values))
                done.append(replace(s, body=inner))
    return tuple(done), pending


def _used_inside(body: tuple[Stmt, ...]) -> set[str]:
    """The locals that are used in the loops of a scope (a fold's values count as its scope)."""
    return set(_locals([s for s in body if isinstance(s, (For, Fold))]))


def _locals(body: Iterable[Stmt]) -> list[str]:
    """The locals that statements name, as often as they do."""
    return [
        name for s in statements(body) for e in expressions(s) for name in _named(e)[0]
    ]


@once
def _named(expr: Expr) -> tuple[tuple[str, ...], frozenset[str]]:
    """The locals that an expression names, as often as it does, and the buffers."""
    found = list(walk(expr))
    names = tuple([x.name for x in found if isinstance(x, Ref)])
    return names, frozenset([x.buffer for x in found if isinstance(x, Load)])


def _substitute(expr: Expr, pending: dict[str, Expr]) -> Expr:
    def change(e: Expr) -> Expr:
        return pending.pop(e.name) if isinstance(e, Ref) and e.name in pending else e

    return expr if pending.keys().isdisjoint(_named(expr)[0]) else rewrite(expr, change)


def _flush(done: list[Stmt], pending: dict[str, Expr], written: set[str]) -> None:
    """Bind waiting locals that load from a buffer about to be written."""
    for name, value in list(pending.items()):
        if not written.isdisjoint(_named(value)[1]):
            done.append(Let(name, pending.pop(name)))
