"""A kernel that takes the columns of one row of products in slices makes them itself.

    loop t < 64 {                                   loop t < 64 {
      kernel k0                                       kernel k0
        for i < 1024 {                                  for j < 256 {
          acc = sum k < 256 { %h[t,k] * %w[k,i] }         acc0 = sum k < 256 { … * %w[k,j] }
          %z[i] = acc                         ──▶         z0 = acc0
        }                                                 acc1 = sum k < 256 { … * %w[k,j+256] }
      kernel k1                                           z1 = acc1
        for j < 256 {                                     …
          … %z[j] … %z[j+256] …                           … z0 … z1 …
          %h[t+1,j] = …                                   %h[t+1,j] = …

So workers, who share the products, meet once in a round of a loop, and none fetches what others
have of `z`. Each sum is added up in the same order as before. Worth it where the products take
long enough to be shared, and a tile with all slices side by side (`ir.nests.abreast`) takes no
longer than one of a slice as wide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count, pairwise
from typing import TypeAlias

from nncompiler.ir.body import extents, loads, local_types, reads_and_writes, stores
from nncompiler.ir.kernel import (
    Axis,
    Buffer,
    Fold,
    For,
    Kernel,
    Let,
    Loop,
    Plan,
    Step,
    Stmt,
    Store,
)
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Affine, Expr, Load, Ref
from nncompiler.passes.lowering.order import root_name
from nncompiler.passes.lowering.rewriting import Change, changed, numbered, substituted
from nncompiler.record import dataclass, replace

Buffers: TypeAlias = Mapping[str, Buffer]
Cost: TypeAlias = Callable[[Kernel, Buffers], float]

#: Cycles from which on workers share a kernel, and would meet behind it.
SHARED = 2_000.0


def take_slices(plan: Plan, cost: Cost) -> Plan:
    """The plan with such kernels as one, in loops."""
    table = plan.table()
    used = Counter(n for k in plan.kernels() for names in reads_and_writes(k) for n in names)
    bases = {b.base for b in plan.buffers}
    alone = {
        b.name for b in plan.buffers
        if b.space == "arena" and used[b.name] == 2 and b.name not in bases
    }  # fmt: skip
    gone = set[str]()

    def visit(step: Step) -> Step:
        if not isinstance(step, Loop):
            return step
        body = [visit(s) for s in step.body]
        for n, (first, second) in reversed([*enumerate(pairwise(body))]):
            pair = _pair(first, second)
            if pair is None or pair.between not in alone or not pair.is_legal(table):
                continue
            joined = pair.joined()
            apart = cost(pair.product, table)
            if apart >= SHARED and cost(joined, table) < apart + cost(pair.user, table):
                body[n : n + 2] = [joined]
                gone.add(pair.between)
        return replace(step, body=tuple(body))

    steps = tuple(visit(s) for s in plan.steps)
    if not gone:
        return plan
    buffers = tuple(b for b in plan.buffers if b.name not in gone)
    return replace(plan, buffers=buffers, steps=numbered(steps))


@dataclass(frozen=True, slots=True)
class _Pair:
    """A product `fold`, stored by `store` along its only axis `columns`, behind what it `begins`
    with, and the kernel that reads it along `axis`.
    """

    product: Kernel
    begins: tuple[Let, ...]
    columns: Axis
    fold: Fold
    store: Store
    user: Kernel
    axis: Axis
    body: tuple[Stmt, ...]

    @property
    def between(self) -> str:
        return self.store.buffer

    def slices(self) -> Iterator[int]:
        """The number of each slice, or -1, that the loads of what is between them read."""
        whole, part = self.columns.extent, self.axis.extent
        place = {n: self.at(self.store, n).index for n in range(whole // part)}
        for x in loads(self.user):
            if x.buffer == self.between:
                yield next((n for n, index in place.items() if index == x.index), -1)

    def at(self, store: Store, number: int) -> Store:
        """The store of one slice."""
        (found,) = substituted((store,), self.place(number))
        assert isinstance(found, Store)
        return found

    def place(self, number: int) -> dict[str, Affine]:
        return {self.columns.name: Affine.axis(self.axis.name) + number * self.axis.extent}

    def is_legal(self, table: Buffers) -> bool:
        """Whether all loads are of slices, of some more than one, and no sum reads what a place
        that may come first stores.
        """
        found = set(self.slices())
        if self.columns.extent % self.axis.extent or -1 in found or len(found) < 2:
            return False
        if any(a.name == self.axis.name for a in self.fold.axes):
            return False
        return not any(
            root_name(table, s.buffer) == root_name(table, x.buffer) and not _apart(s, x)
            for s in stores(self.user) for x in loads(self.product)
        )  # fmt: skip

    def joined(self) -> Kernel:
        """One kernel: the sums of all slices in front of what takes them."""
        taken = {*extents(self.user), *local_types(self.user), *extents(self.product)}
        sums, values = list[Stmt](), dict[Expr, Expr]()
        for number in sorted(set(self.slices())):
            acc, value = _fresh("acc", taken), _fresh("z", taken)
            fold, store = substituted((self.fold, self.store), self.place(number))
            assert isinstance(fold, Fold) and isinstance(store, Store)
            dtype = store.value.dtype
            summed: dict[Expr, Expr] = {Ref(fold.names[0], dtype): Ref(acc, dtype)}
            let = Let(value, store.value)
            sums += [replace(fold, names=(acc,)), *changed((let,), _replacing(summed))]
            values[Load(store.buffer, store.index, dtype)] = Ref(value, dtype)
        body = changed(self.body, _replacing(values))
        nodes, spans = (
            tuple(dict.fromkeys((*a, *b)))
            for a, b in (
                (self.product.nodes, self.user.nodes), (self.product.spans, self.user.spans)
            )
        )  # fmt: skip
        whole = For((self.axis,), (*sums, *body))
        return replace(self.user, body=(*self.begins, whole), nodes=nodes, spans=spans)


def _pair(first: Step, second: Step) -> _Pair | None:
    """The two kernels if they have the forms that this is about."""
    if not isinstance(first, Kernel) or not isinstance(second, Kernel):
        return None
    match first.body, second.body:
        case (
            (*begins, For((columns,), (Fold() as fold, Store() as store), False, ())),
            (For((axis,), body, False, ()),),
        ):
            form = contraction(first)
            plain = all(isinstance(s, (Let, Store)) for s in body)
            same = form is not None and len(form.products) == 1
            lets = tuple(s for s in begins if isinstance(s, Let))
            apart = {s.name for s in lets}.isdisjoint({*local_types(second), *extents(second)})
            plain = plain and apart and len(lets) == len(begins)
            if same and plain and store.value.dtype == fold.values[0].dtype:
                return _Pair(first, lets, columns, fold, store, second, axis, body)
    return None


def _replacing(values: Mapping[Expr, Expr]) -> Change:
    return lambda e: values.get(e, e)


def _apart(store: Store, load: Load) -> bool:
    """Whether they are at different places of one buffer whatever the axes are."""
    if store.buffer != load.buffer:
        return False
    for a, b in zip(store.index, load.index, strict=True):
        if isinstance(a, Affine) and isinstance(b, Affine):
            distance = a + b * -1
            if not distance.axes and distance.const:
                return True
    return False


def _fresh(name: str, taken: set[str]) -> str:
    found = next(x for n in count() if (x := f"{name}{n}") not in taken)
    taken.add(found)
    return found
