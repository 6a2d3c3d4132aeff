"""What is known to be zero, or that nobody asks for: what looks ahead in causal attention is
neither multiplied nor added up, and no exponential is taken of it.

    kernel k0                                         kernel k0
      for i, j { p[i,j] = select(i >= j, …, 0) }        …
    kernel k1                                  ──▶    kernel k1
      for i, k {                                        for i, k {
        acc = sum j { p[i,j] * v[j,k] }                   acc = sum j within i-j >= 0 { … }
        y[i,k] = acc                                      y[i,k] = acc

An array is known to be zero where the only store to it selects a zero by conditions affine in its
indices; these may come from other arrays, of bools or integers, whose only store says what they
hold. A sum is asked for where all uses of it are chosen by such conditions, and so is an array
that a loop fills. Other folds and loops are bounded by the same facts.

In loops of the plan, products with the zeros that a recurrence starts from are left out in the
first round, `acc = sum j within t0-1 >= 0 { %h[t0,j] * w[j,i] }`, and backwards those of a
gradient of them in the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nncompiler.ir.body import extents, stores
from nncompiler.ir.kernel import Axis, Fold, For, Kernel, Let, Plan, Step, Stmt, Store
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Affine, Load
from nncompiler.passes.arithmetic.zero_facts import Forms, Locals, ZeroFacts, facts_of
from nncompiler.passes.arithmetic.zero_rows import RowFacts, row_facts
from nncompiler.record import dataclass, replace


def leave_out_zeros(plan: Plan) -> Plan:
    """The plan with folds and loops that say which of their points may be left out."""
    facts, rows = facts_of(plan), row_facts(plan)

    def visit(step: Step, counters: Mapping[str, int]) -> Step:
        if isinstance(step, Kernel):
            return _in_rounds(step, rows, counters) if counters else _bounded(step, facts)
        inner = {**counters, step.counter: step.extent}
        return replace(step, body=tuple([visit(s, inner) for s in step.body]))

    steps = tuple([visit(s, {}) for s in plan.steps])
    return plan if steps == plan.steps else replace(plan, steps=steps)


def _in_rounds(kernel: Kernel, rows: RowFacts, counters: Mapping[str, int]) -> Kernel:
    """The kernel with the rounds in which its sums of products are zero, or nobody asks for them:
    all of a sum is left out or none, as bounds inside would cost each round more than one saves.
    """
    form, found = contraction(kernel), dict[tuple[str, ...], Fold]()
    asked = frozenset.intersection(*[rows.read_at(s) for s in stores(kernel)] or [frozenset()])
    for product in form.products if form else ():
        factors = [f for f in (product.a, product.b) if isinstance(f, Load)]
        forms = asked.union(*[rows.nonzero_at(f) for f in factors])
        told = [f for f in forms if {*f.axes} <= counters.keys() and f.bounds(counters)[0] < 0]
        if told:
            found[product.fold.names] = replace(product.fold, within=_in_order(told))
    return replace(kernel, body=_with(kernel.body, found)) if found else kernel


def _bounded(kernel: Kernel, facts: ZeroFacts) -> Kernel:
    """The kernel with what its sums, or else its loops, may leave out."""
    form = contraction(kernel)
    if form is None:
        body = _Loops(facts, extents(kernel), Locals(kernel.body)).bounded(kernel.body)
        return replace(kernel, body=body)
    sizes, found = extents(kernel), dict[tuple[str, ...], Fold]()
    for product in form.products:
        forms = facts.asked(form, product.fold.names[0]) or frozenset()
        for factor in (product.a, product.b):
            forms |= facts.nonzero(factor, Locals()) if isinstance(factor, Load) else frozenset()
        forms = frozenset(f for f in forms if f.bounds(sizes)[0] < 0)
        if forms:
            found[product.fold.names] = replace(product.fold, within=_in_order(forms))
    return replace(kernel, body=_with(kernel.body, found)) if found else kernel


def _in_order(forms: Iterable[Affine]) -> tuple[Affine, ...]:
    return tuple(sorted(forms, key=lambda f: (f.terms, f.const)))


@dataclass(frozen=True, slots=True)
class _Loops:
    """Bounds of the innermost loops of a kernel."""

    facts: ZeroFacts
    sizes: Mapping[str, int]
    locals: Locals

    def bounded(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple([self._statement(s) for s in body])

    def _statement(self, s: Stmt) -> Stmt:
        match s:
            case For(axes, body, False) if all(isinstance(x, (Let, Store)) for x in body):
                forms = self._stored(x for x in body if isinstance(x, Store))
                return replace(s, within=self._telling(forms, axes)) if forms else s
            case Fold(_, "sum", axes, (value,), ()):
                forms = self.facts.nonzero(value, self.locals)
                return replace(s, within=self._telling(forms, axes)) if forms else s
            case Fold(_, ("max" | "min"), axes, (value,), ()):
                forms = self.facts.varying(value, self.locals)
                return replace(s, within=self._with_first(forms, axes)) if forms else s
            case For() | Fold():
                return replace(s, body=self.bounded(s.body))
            case _:
                return s

    def _stored(self, stores: Iterable[Store]) -> Forms:
        """Where any of what is stored may differ from zero and is read."""
        found: Forms | None = None
        for s in stores:
            forms = self.facts.nonzero(s.value, self.locals)
            at = {str(d): i for d, i in enumerate(s.index) if isinstance(i, Affine)}
            read = self.facts.read(s.buffer) if len(at) == len(s.index) else ()
            forms |= frozenset(f.substitute(at) for f in read)
            found = forms if found is None else found & forms
            if not found:
                break
        return found or frozenset()

    def _with_first(self, forms: Forms, axes: tuple[Axis, ...]) -> tuple[Affine, ...]:
        """A bound behind the first of the terms that are equal, for one of them must stay."""
        for form in self._telling(forms, axes):
            k, last = form.coefficient(axes[0].name), axes[0].extent - 1
            largest = form.substitute({axes[0].name: Affine((), last if k > 0 else 0)})
            if len(axes) == 1 and abs(k) == 1 and largest.bounds(self.sizes)[0] >= -1:
                return (form + 1,)
        return ()

    def _telling(self, forms: Forms, axes: tuple[Axis, ...]) -> tuple[Affine, ...]:
        """Those of the forms, in order, that are negative at some points of a loop."""
        own = {a.name for a in axes}
        found = [f for f in forms if own & set(f.axes) and f.bounds(self.sizes)[0] < 0]
        return _in_order(found)


def _with(body: tuple[Stmt, ...], folds: Mapping[tuple[str, ...], Fold]) -> tuple[Stmt, ...]:
    """The statements with other folds of the same names."""

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Fold):
            return folds.get(s.names, s)
        return s if isinstance(s, (Let, Store)) else replace(s, body=_with(s.body, folds))

    return tuple(visit(s) for s in body)
