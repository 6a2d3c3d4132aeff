"""The form of a kernel that the contraction strategy runs: sums of products over one set of
parallel axes.

    s = lr[] / 64                        `before`: locals of the whole kernel
    for i, j {                           `parallel`: one loop, or several directly nested
      acc = sum k { x[i,k] * w[k,j] }    `products`
      y[i,j] = max(acc + b[j], 0)        `body` is every statement here, the folds among them
    }

Passes choose a schedule by it, code generation runs it: both must mean the same thing.
"""

from __future__ import annotations

from nncompiler.ir.kernel import Axis, Fold, For, Kernel, Let, Stmt, Store
from nncompiler.ir.once import once
from nncompiler.ir.scalar import Affine, Apply, Expr, Ref, rewrite, walk
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Product:
    """``fold = sum reduction { a * b }``, the factors in the order they are written in."""

    fold: Fold
    a: Expr
    b: Expr

    @property
    def reduction(self) -> tuple[Axis, ...]:
        return self.fold.axes


@dataclass(frozen=True, slots=True)
class Contraction:
    before: tuple[Stmt, ...]
    parallel: tuple[Axis, ...]
    body: tuple[Stmt, ...]
    products: tuple[Product, ...]


def contraction(kernel: Kernel) -> Contraction | None:
    """The parts of a kernel of this form, else None."""
    return _contraction(kernel.body)


@once
def _contraction(whole: tuple[Stmt, ...]) -> Contraction | None:
    before = tuple(s for s in whole if isinstance(s, Let))
    body = whole[len(before) :]
    parallel: tuple[Axis, ...] = ()
    while len(body) == 1 and isinstance(body[0], For) and not body[0].ordered:
        parallel, body = parallel + body[0].axes, body[0].body
    if whole[: len(before)] != before or not parallel:
        return None
    known = {s.name for s in before if isinstance(s, Let)}
    local = _cheap_locals(body)
    products = [p for s in body if isinstance(s, Fold) and (p := _product(s, known, local))]
    plain = all(isinstance(s, (Let, Store)) or any(s is p.fold for p in products) for s in body)
    direct = all(isinstance(i, Affine) for s in body if isinstance(s, Store) for i in s.index)
    same = len({p.a.dtype for p in products}) == 1
    if not same or not plain or not direct:
        return None
    return Contraction(before, parallel, body, tuple(products))


def _cheap_locals(body: tuple[Stmt, ...]) -> dict[str, Expr]:
    """Integers bound at a point, as the row that a gather reads: a product may compute them
    itself.
    """
    found: dict[str, Expr] = {}
    for s in body:
        if isinstance(s, Let) and s.value.dtype.kind != "float":
            found[s.name] = _inlined(s.value, found)
    return found


def _inlined(expr: Expr, local: dict[str, Expr]) -> Expr:
    return rewrite(expr, lambda e: local.get(e.name, e) if isinstance(e, Ref) else e)


def _product(fold: Fold, known: set[str], local: dict[str, Expr]) -> Product | None:
    """The fold as a sum of products of what memory and the locals `known` hold."""
    match fold:
        case Fold((_,), "sum", _, (Apply("mul", (a, b), dtype),), (), None) if dtype.is_float:
            a, b = _inlined(a, local), _inlined(b, local)
            free = {x.name for e in (a, b) for x in walk(e) if isinstance(x, Ref)}
            return Product(fold, a, b) if free <= known else None
        case _:
            return None


def abreast(form: Contraction) -> bool:
    """Whether several products spread one factor over the same steps, so that a tile of one row
    takes a step of each at a time.
    """
    first, *more = form.products
    shared = [f for f in (first.a, first.b) if all(f in (p.a, p.b) for p in more)]
    same = {(p.reduction, p.fold.within) for p in form.products}
    return bool(more) and len(shared) == 1 and len(same) == 1
