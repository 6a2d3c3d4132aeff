"""Facts about a plan's arrays: where elements may differ from zero, or from all others, and where
anybody reads them, as affine forms of indices none of which is negative there.

An array's facts are those of the only store to it, moved to the indices of a load. Conditions may
come from other arrays, of bools or integers, whose only store says what they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from nncompiler.ir.body import expressions, extents, statements, step_reads_and_writes, stores
from nncompiler.ir.kernel import Buffer, Kernel, Let, Plan, Step, Stmt, Store
from nncompiler.ir.nests import Contraction
from nncompiler.ir.scalar import Affine, Apply, Const, Expr, Iota, Load, Ref, children
from nncompiler.record import dataclass, field

#: Forms none of which is negative where something holds.
Forms: TypeAlias = frozenset[Affine]
Places: TypeAlias = tuple["str | None", ...]


class Locals(dict[str, Expr]):
    """The values of a kernel's locals by name, and where these may differ from zero, as far as
    that has been asked: a local may be used many times.
    """

    def __init__(self, body: tuple[Stmt, ...] = ()) -> None:
        super().__init__((s.name, s.value) for s in statements(body) if isinstance(s, Let))
        self.nonzero: dict[str, Forms] = {}


@dataclass(frozen=True, slots=True)
class _Made:
    """The only store to a buffer, at `axes`, one for each dimension (none along one of extent 1),
    and the locals of its kernel."""

    axes: Places
    value: Expr
    locals: Locals


def facts_of(plan: Plan) -> ZeroFacts:
    return ZeroFacts(plan, _only_stores(plan))


def _only_stores(plan: Plan) -> dict[str, _Made]:
    """What fills buffers that one statement outside of loops fills as a whole."""
    table, found = plan.table(), {}
    count: dict[str, int] = {}
    for kernel in plan.kernels():
        for s in stores(kernel):
            name = s.buffer
            while table[name].space == "view":
                name = table[name].base or name
            count[name] = count.get(name, 0) + 1
    for kernel in (s for s in plan.steps if isinstance(s, Kernel)):
        sizes, locals = extents(kernel), Locals(kernel.body)
        for s in stores(kernel):
            buffer = table[s.buffer]
            if buffer.space == "arena" and count[s.buffer] == 1:
                axes = _whole(s, buffer, sizes)
                if axes is not None:
                    found[s.buffer] = _Made(axes, s.value, locals)
    return found


def _whole(store: Store, buffer: Buffer, sizes: Mapping[str, int]) -> Places | None:
    """The axes of a store that fills its buffer element by element; None for any other."""
    axes: list[str | None] = []
    for index, extent in zip(store.index, buffer.type.shape, strict=True):
        axis = index.single if isinstance(index, Affine) else None
        if axis is None and not (index == Affine() and extent == 1):
            return None
        if axis is not None and (axis in axes or sizes[axis] != extent):
            return None
        axes.append(axis)
    return tuple(axes)


@dataclass(frozen=True, slots=True)
class ZeroFacts:
    """What is known of a plan's arrays, in terms of the axes of their stores."""

    plan: Plan
    made: Mapping[str, _Made]
    _nonzero: dict[str, Forms] = field(default_factory=dict, init=False)
    _readers: dict[str, list[Step]] = field(default_factory=dict, init=False)

    _viewed: set[str | None] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._viewed.update([b.base for b in self.plan.buffers])
        for step in self.plan.steps:
            for name in step_reads_and_writes(step)[0]:
                self._readers.setdefault(name, []).append(step)

    def read(self, name: str) -> Forms:
        """Where a buffer is read, in terms of its dimensions, which are called 0, 1, ..."""
        if name not in self.made or name in self._viewed:
            return frozenset()
        found: Forms | None = None
        for step in self._readers.get(name, ()):
            if not isinstance(step, Kernel):
                return frozenset()
            for forms in _Reads(self, name, Locals(step.body)).of(step):
                found = forms if found is None else found & forms
                if not found:
                    return found
        return found or frozenset()

    def nonzero(self, value: Expr, locals: Locals) -> Forms:
        """Where a value may differ from zero."""
        match value:
            case Apply("select", (condition, chosen, Const(0))):
                return self.holding(condition, locals) | self.nonzero(chosen, locals)
            case Apply("mul", (a, b)):
                return self.nonzero(a, locals) | self.nonzero(b, locals)
            case Apply("div", (a, _)) if value.dtype.is_float:
                return self.nonzero(a, locals)
            case Ref(name) if name in locals:
                if name not in locals.nonzero:
                    locals.nonzero[name] = self.nonzero(locals[name], locals)
                return locals.nonzero[name]
            case Load(guard=None) if (made := self.made.get(value.buffer)) is not None:
                if value.buffer not in self._nonzero:
                    self._nonzero[value.buffer] = self.nonzero(made.value, made.locals)
                return _moved(self._nonzero[value.buffer], made, value) or frozenset()
            case _:
                return frozenset()

    def varying(self, value: Expr, locals: Locals) -> Forms:
        """Where a value may differ from one that it has everywhere else."""
        match value:
            case Apply("select", (condition, _, Const())):
                return self.holding(condition, locals)
            case Ref(name) if name in locals:
                return self.varying(locals[name], locals)
            case Load(guard=None) if (made := self.made.get(value.buffer)) is not None:
                return _moved(self.varying(made.value, made.locals), made, value) or frozenset()
            case _:
                return frozenset()

    def holding(self, condition: Expr, locals: Locals) -> Forms:
        """Forms that are not negative where a condition holds."""
        match condition:
            case Apply("and", (a, b)):
                return self.holding(a, locals) | self.holding(b, locals)
            case Apply(("ge" | "gt" | "le" | "lt") as op, (a, b)):
                left, right = self._integer(a, locals), self._integer(b, locals)
                if left is None or right is None:
                    return frozenset()
                more = left + right * -1 if op[0] == "g" else right + left * -1
                return frozenset((more if op[1] == "e" else more + -1,))
            case Ref(name) if name in locals:
                return self.holding(locals[name], locals)
            case Load(guard=None) if (made := self.made.get(condition.buffer)) is not None:
                found = self.holding(made.value, made.locals)
                return _moved(found, made, condition) or frozenset()
            case _:
                return frozenset()

    def _integer(self, value: Expr, locals: Locals) -> Affine | None:
        """An integer as a form of the axes."""
        match value:
            case Iota(form):
                return form
            case Const(number) if value.dtype.kind == "int":
                return Affine((), int(number))
            case Apply(("add" | "sub") as op, (a, b)) if value.dtype.kind == "int":
                left, right = self._integer(a, locals), self._integer(b, locals)
                if left is None or right is None:
                    return None
                return left + right * (1 if op == "add" else -1)
            case Ref(name) if name in locals:
                return self._integer(locals[name], locals)
            case Load(guard=None) if (made := self.made.get(value.buffer)) is not None:
                kept = self._integer(made.value, made.locals)
                moved = None if kept is None else _moved((kept,), made, value)
                return next(iter(moved)) if moved else None
            case _:
                return None

    def asked(self, form: Contraction, name: str) -> Forms | None:
        """Where anything that is stored depends on a local; None where nothing ever does."""
        users: dict[str, Forms | None] = {name: frozenset()}
        locals = Locals(form.body)
        stored: Forms | None = None
        for s in form.body:
            match s:
                case Let():
                    users[s.name] = self._uses(s.value, users, locals)
                case Store():
                    stored = _either(stored, self._uses(s.value, users, locals))
                case _:
                    pass
        return stored

    def _uses(
        self, value: Expr, users: Mapping[str, Forms | None], locals: Locals
    ) -> Forms | None:
        """Where a value depends on any of the `users`, each used under conditions of its own."""
        match value:
            case Ref(name):
                return users.get(name)
            case Apply("select", (condition, chosen, other)):
                found = self._uses(chosen, users, locals)
                if found is not None:
                    found |= self.holding(condition, locals)
                return _either(found, *(self._uses(e, users, locals) for e in (condition, other)))
            case _:
                return _either(*(self._uses(e, users, locals) for e in children(value)))


@dataclass(frozen=True, slots=True)
class _Reads:
    """Where one kernel reads a buffer, in terms of its dimensions."""

    facts: ZeroFacts
    name: str
    locals: Locals
    #: Locals that were looked into, and where they were used: once is enough.
    _seen: set[tuple[str, Forms]] = field(default_factory=set, init=False)

    def of(self, kernel: Kernel) -> Iterator[Forms]:
        for s in statements(kernel.body):
            for e in () if isinstance(s, Let) else expressions(s):
                yield from self._expr(e, frozenset())

    def _expr(self, value: Expr, forms: Forms) -> Iterator[Forms]:
        """Of an expression that is used where `forms` are not negative."""
        match value:
            case Load(name, index) if name == self.name:
                axes = {i.single: str(d) for d, i in enumerate(index) if isinstance(i, Affine)}
                known = [f for f in forms if axes.keys() >= set(f.axes)]
                yield frozenset(f.rename({a: d for a, d in axes.items() if a}) for f in known)
            case Ref(name) if name in self.locals:
                if (name, forms) not in self._seen:
                    self._seen.add((name, forms))
                    yield from self._expr(self.locals[name], forms)
            case Apply("select", (condition, chosen, other)):
                yield from self._expr(condition, forms)
                yield from self._expr(chosen, forms | self.facts.holding(condition, self.locals))
                yield from self._expr(other, forms)
            case _:
                for inner in children(value):
                    yield from self._expr(inner, forms)


def _either(*parts: Forms | None) -> Forms | None:
    """What holds wherever any of the parts does."""
    there = [p for p in parts if p is not None]
    return frozenset.intersection(*there) if there else None


def _moved(forms: Iterable[Affine], made: _Made, load: Load) -> Forms | None:
    """Forms of the axes of a store as those of a load; None where these are not affine."""
    at: dict[str, Affine] = {}
    for axis, index in zip(made.axes, load.index, strict=True):
        if not isinstance(index, Affine):
            return None
        if axis is not None:
            at[axis] = index
    known = [f for f in forms if at.keys() >= set(f.axes)]
    return frozenset(f.substitute(at) for f in known)


