"""Rows of stacks that are zero or that nobody reads, as those at the ends of a recurrence.

    carry[0,i] = 0.0
    loop t0 < 64 {
      carry[t0+1,i] = … carry[t0,j] …         what it reads is zero but where t0-1 >= 0
    }
    loop t0 < 64 reverse {
      … grad[t0+1,i] …
      grad[t0,i] = …                          nobody reads it but where t0-1 >= 0
    }

A row is zero if every store that may reach it writes zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nncompiler.ir.body import accesses, extents
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Plan, Step, Store
from nncompiler.ir.scalar import Affine, Const, Expr, Load
from nncompiler.record import dataclass, field

#: The first dimension of an array, by number as the others are.
_ROW = Affine.axis("0")


@dataclass(slots=True)
class _Uses:
    """First and last rows that each store and load of an array may touch; of stores their value.
    """

    stored: list[tuple[int, int, Expr]] = field(default_factory=list)
    loaded: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RowFacts:
    """By the array: forms of its first dimension none of which is negative where it may differ
    from zero, and where anybody reads it.
    """

    nonzero: Mapping[str, frozenset[Affine]]
    read: Mapping[str, frozenset[Affine]]

    def nonzero_at(self, load: Load) -> frozenset[Affine]:
        """Where a load may give something else than zero, by the axes of its index."""
        return _at(self.nonzero.get(load.buffer), load)

    def read_at(self, store: Store) -> frozenset[Affine]:
        """Where anybody reads what is stored."""
        return _at(self.read.get(store.buffer), store)


def row_facts(plan: Plan) -> RowFacts:
    """What is known of the first and last rows of a plan's arrays."""
    rows = _Rows(plan.table())
    for kernel, sizes in _kernels(plan.steps, {}):
        for x in accesses(kernel.body):
            rows.add(x, sizes)
    nonzero, read = dict[str, frozenset[Affine]](), dict[str, frozenset[Affine]]()
    for name, uses in rows.uses.items():
        last = rows.table[name].type.shape[0] - 1
        if forms := frozenset(rows.zero_ends(uses, last)):
            nonzero[name] = forms
        if forms := frozenset(_unread_ends(uses, last)):
            read[name] = forms
    for name in rows.table:
        root, shift = rows.place(name)
        if name != root and shift is not None and root in nonzero:
            nonzero[name] = frozenset(f.substitute({"0": _ROW + shift}) for f in nonzero[root])
    return RowFacts(nonzero, read)


def _at(forms: frozenset[Affine] | None, x: Load | Store) -> frozenset[Affine]:
    row = x.index[0] if forms else None
    if forms is None or not isinstance(row, Affine):
        return frozenset()
    return frozenset(f.substitute({"0": row}) for f in forms)


def _kernels(
    steps: Iterable[Step], counters: Mapping[str, int]
) -> Iterator[tuple[Kernel, dict[str, int]]]:
    """Every kernel with the extents of its axes and of the loops around it."""
    for step in steps:
        if isinstance(step, Loop):
            yield from _kernels(step.body, {**counters, step.counter: step.extent})
        else:
            yield step, {**counters, **extents(step)}


def _unread_ends(uses: _Uses, last: int) -> Iterator[Affine]:
    low = min((first for first, _ in uses.loaded), default=0)
    high = max((end for _, end in uses.loaded), default=last)
    if low > 0:
        yield _ROW + -low
    if high < last:
        yield _ROW * -1 + high


@dataclass(frozen=True, slots=True)
class _Rows:
    """What touches the rows of arena buffers of more than one row."""

    table: Mapping[str, Buffer]
    uses: dict[str, _Uses] = field(default_factory=dict, init=False)
    _zero: dict[str, bool] = field(default_factory=dict, init=False)

    def add(self, x: Load | Store, sizes: Mapping[str, int]) -> None:
        """Take a load or store into account, in loops of these extents."""
        root, shift = self.place(x.buffer)
        buffer = self.table[root]
        if buffer.space != "arena" or not buffer.type.shape:
            return
        uses, first, end = self.uses.setdefault(root, _Uses()), 0, buffer.type.shape[0] - 1
        if shift is not None and isinstance(row := x.index[0], Affine):
            low, high = row.bounds(sizes)
            first, end = max(first, low + shift), min(end, high + shift)
        if isinstance(x, Store):
            uses.stored.append((first, end, x.value))
        else:
            uses.loaded.append((first, end))

    def place(self, name: str) -> tuple[str, int | None]:
        """The array that a buffer is part of, and the row where it begins; None where its rows
        are others.
        """
        shift: int | None = 0
        while (view := self.table[name]).space == "view" and view.base is not None:
            base = self.table[view.base]
            alike = view.type.shape[1:] == base.type.shape[1:] and view.layout == base.layout
            if shift is not None and alike and base.type.shape:
                rows, rest = divmod(view.offset or 0, base.layout[0] * base.type.dtype.bytes or 1)
                shift = None if rest else shift + rows
            else:
                shift = None
            name = view.base
        return name, shift

    def zero_ends(self, uses: _Uses, last: int) -> Iterator[Affine]:
        """Forms that are negative on the first or last row where that is zero."""
        for row, form in ((0, _ROW + -1), (last, _ROW * -1 + (last - 1))):
            found = [v for first, end, v in uses.stored if first <= row <= end]
            if last and found and all(self.is_zero(v) for v in found):
                yield form

    def is_zero(self, value: Expr) -> bool:
        """Whether a value is zero, or a copy of what was filled with zeros alone."""
        match value:
            case Const(number):
                return number == 0
            case Load(guard=None):
                return self._only_zeros(value.buffer)
            case _:
                return False

    def _only_zeros(self, name: str) -> bool:
        if name not in self._zero:
            self._zero[name] = False  # what is made of itself is not known
            stored = self.uses[name].stored if name in self.uses else []
            self._zero[name] = bool(stored) and all(self.is_zero(v) for *_, v in stored)
        return self._zero[name]
