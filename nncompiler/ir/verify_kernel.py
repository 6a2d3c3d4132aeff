"""The verifier of one kernel: names, types, index bounds, and that iterations are independent."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from nncompiler.errors import CompilerBug
from nncompiler.ir.combine import COMBINES, highest, lowest
from nncompiler.ir.kernel import Axis, Buffer, Fold, For, Kernel, Let, Stmt, Store
from nncompiler.ir.scalar import (
    Affine,
    Apply,
    Bitcast,
    Cast,
    Const,
    Expr,
    Index,
    Iota,
    Load,
    Ref,
    apply,
    const,
)
from nncompiler.ir.types import BOOL, DType
from nncompiler.ir.verify import Diagnostic
from nncompiler.ir.verify_schedule import verify_schedule
from nncompiler.record import dataclass, field


def verify_kernel(
    kernel: Kernel, buffers: Mapping[str, Buffer], readonly: Collection[str],
    counters: Mapping[str, int],
) -> list[Diagnostic]:  # fmt: skip
    """Every problem of a kernel. `counters` are the plan loops around it, with their extents."""
    verifier = _Verifier(buffers, readonly)
    scope = _Scope(dict(counters), {}, frozenset())
    for s in kernel.body:
        verifier.statement(s, scope)
    verifier.found += verify_schedule(kernel, verifier.extents, counters)
    return verifier.found


@dataclass(slots=True)
class _Scope:
    """Axes with extents, locals with types, and the axes whose iterations must be independent."""

    axes: dict[str, int]
    locals: dict[str, DType]
    parallel: frozenset[str]

    def inner(self, axes: Sequence[Axis], parallel: bool) -> _Scope:
        more = frozenset(a.name for a in axes if a.extent > 1) if parallel else frozenset()
        extents = {**self.axes, **{a.name: a.extent for a in axes}}
        return _Scope(extents, dict(self.locals), self.parallel | more)

    @property
    def empty(self) -> bool:
        return any(n == 0 for n in self.axes.values())


class _Problem(Exception):
    """What is wrong with an expression."""


@dataclass(slots=True)
class _Verifier:
    buffers: Mapping[str, Buffer]
    readonly: Collection[str]
    extents: dict[str, int] = field(default_factory=dict)
    types: dict[str, DType] = field(default_factory=dict)
    found: list[Diagnostic] = field(default_factory=list)

    # --- statements ---

    def statement(self, s: Stmt, scope: _Scope) -> None:
        try:
            match s:
                case Let(name, value):
                    self._expr(value, scope)
                    self._bind(name, value.dtype, scope)
                case Store():
                    self._store(s, scope)
                case For(axes, body, ordered, within):
                    inner = self._enter(axes, scope, not ordered)
                    for statement in body:
                        self.statement(statement, inner)
                    for form in within:
                        self._affine(form, inner)
                    plain = all(isinstance(x, (Let, Store)) for x in body)
                    _expect(plain or not within, "expected no loops in one with bounds")
                    _expect(not (ordered and within), "expected no bounds of an ordered loop")
                case Fold():
                    self._fold(s, scope)
        except _Problem as problem:
            self.found.append(Diagnostic(str(problem), s))

    def _enter(self, axes: Sequence[Axis], scope: _Scope, parallel: bool) -> _Scope:
        _expect(bool(axes), "expected at least one axis")
        names = [a.name for a in axes]
        for axis in axes:
            n = axis.extent
            if isinstance(n, bool) or not isinstance(n, int) or n < 0:
                raise _Problem(f"expected an extent of at least 0 for '{axis.name}', found {n!r}")
            _name(axis.name, scope)
            _expect(names.count(axis.name) == 1, f"'{axis.name}' is already in use")
            if self.extents.setdefault(axis.name, n) != n:
                before = self.extents[axis.name]
                raise _Problem(f"axis '{axis.name}' has extent {n} here, but {before} before")
        return scope.inner(axes, parallel)

    def _bind(self, name: str, dtype: DType, scope: _Scope) -> None:
        _name(name, scope)
        if self.types.setdefault(name, dtype) != dtype:
            raise _Problem(f"'{name}' is {dtype} here, but {self.types[name]} before")
        scope.locals[name] = dtype

    def _store(self, s: Store, scope: _Scope) -> None:
        buffer = self._place(s.buffer, s.index, scope, guarded=False)
        _expect(s.buffer not in self.readonly, f"'{s.buffer}' cannot be written")
        self._expr(s.value, scope)
        found = s.value.dtype
        wanted = buffer.type.dtype
        _expect(found == wanted, f"expected a value of type {wanted}, but found {found}")
        moving = {n for i in s.index if isinstance(i, Affine) for n in i.axes}
        computed = not all(isinstance(i, Affine) for i in s.index)
        for axis in sorted(scope.parallel - moving):
            if computed:
                raise _Problem(
                    f"iterations of '{axis}' may write the same element of '{s.buffer}'; an "
                    "`ordered` loop may do so"
                )
            raise _Problem(f"every iteration of '{axis}' writes the same element of '{s.buffer}'")

    def _fold(self, s: Fold, scope: _Scope) -> None:
        # names are bound whatever is found, so that one mistake is reported once
        try:
            combine = COMBINES.get(s.combine)
            if combine is None:
                raise _Problem(f"no reduction is called '{s.combine}'")
            width = combine.width
            _expect(
                len(s.names) == width and len(s.values) == width and bool(s.axes),
                f"'{s.combine}' combines {width} value{'s' * (width != 1)} over axes",
            )
            _expect(
                not s.within or s.combine in ("sum", "max", "min"),
                f"'{s.combine}' has no terms that may be left out",
            )
            inner = self._enter(s.axes, scope, True)
            for form in s.within:
                self._affine(form, inner)
            for statement in s.body:
                self.statement(statement, inner)
            for value in s.values:
                self._expr(value, inner)
            types = tuple(v.dtype for v in s.values)
            locals = tuple(Ref("x", d) for d in types)
            try:
                combine.result(locals, locals)
                combine.identity(types)
                fits = all(d.kind in ("int", "uint") for d in types[1:])
            except (CompilerBug, ValueError, OverflowError):
                fits = False
            if not fits:
                given = ", ".join(map(str, types))
                raise _Problem(f"'{s.combine}' does not combine values of {given}")
            if s.init is not None:
                same = tuple(c.dtype for c in s.init) == types
                _expect(same, "expected start values of the types of the values")
                for c in s.init:
                    self._expr(c, scope)
        finally:
            for name, value in zip(s.names, s.values, strict=False):
                self._bind(name, value.dtype, scope)

    # --- expressions ---

    def _expr(self, expr: Expr, scope: _Scope) -> None:
        match expr:
            case Const():
                _constant(expr)
            case Ref(name, dtype):
                known = scope.locals.get(name)
                _expect(known is not None, f"'{name}' is used before it is bound")
                _expect(known == dtype, f"'{name}' is used as {dtype}, but it is {known}")
            case Iota(index, dtype):
                self._affine(index, scope)
                _expect(dtype.kind in ("int", "uint"), f"an index cannot be {dtype}")
            case Load():
                self._load(expr, scope)
            case Apply(op, args, dtype):
                for arg in args:
                    self._expr(arg, scope)
                self._apply(op, args, dtype)
            case Cast(arg):
                self._expr(arg, scope)
            case Bitcast(arg, dtype):
                self._expr(arg, scope)
                same = arg.dtype.bytes == dtype.bytes and (arg.dtype == BOOL) == (dtype == BOOL)
                _expect(same, f"the bits of {arg.dtype} are not those of {dtype}")

    def _apply(self, op: str, args: tuple[Expr, ...], dtype: DType) -> None:
        try:
            wanted = apply(op, *args).dtype
        except CompilerBug as bug:
            raise _Problem(bug.message) from None
        _expect(wanted == dtype, f"'{op}' gives {wanted}, not {dtype}")

    def _load(self, load: Load, scope: _Scope) -> None:
        buffer = self._place(load.buffer, load.index, scope, load.guard is not None)
        wanted = buffer.type.dtype
        _expect(load.dtype == wanted, f"'{load.buffer}' holds {wanted}, not {load.dtype}")
        if load.guard is None:
            _expect(load.fill is None, "a fill value without a guard")
            return
        self._expr(load.guard, scope)
        _expect(load.guard.dtype == BOOL, f"a guard must be bool, but it is {load.guard.dtype}")
        if load.fill is None or load.fill.dtype != wanted:
            raise _Problem(f"a guarded load of '{load.buffer}' needs a fill value of {wanted}")
        _constant(load.fill)

    def _place(
        self, name: str, index: tuple[Index, ...], scope: _Scope, guarded: bool
    ) -> Buffer:
        buffer = self.buffers.get(name)
        if buffer is None:
            raise _Problem(f"no buffer is called '{name}'")
        shape = buffer.type.shape
        if len(index) != len(shape):
            raise _Problem(f"'{name}' has {len(shape)} dimensions, but {len(index)} indices")
        for d, (i, extent) in enumerate(zip(index, shape, strict=True)):
            if not isinstance(i, Affine):
                self._expr(i, scope)
                _expect(i.dtype.kind in ("int", "uint"), f"an index cannot be {i.dtype}")
                continue
            self._affine(i, scope)
            if guarded or scope.empty:
                continue
            low, high = i.bounds(scope.axes)
            if low < 0 or high >= extent:
                raise _Problem(
                    f"index {d} of '{name}' runs over {low}..{high}, but its extent is {extent}"
                )
        return buffer

    def _affine(self, index: Affine, scope: _Scope) -> None:
        for name in index.axes:
            _expect(name in scope.axes, f"no axis is called '{name}' here")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise _Problem(message)


def _name(name: str, scope: _Scope) -> None:
    _expect(re.fullmatch(r"[\w.']+", name) is not None, f"'{name}' is not a name")
    used = name in scope.axes or name in scope.locals
    _expect(not used, f"'{name}' is already in use")


def _constant(c: Const) -> None:
    kinds = {"float": (float,), "bool": (bool,), "int": (int,), "uint": (int,)}[c.dtype.kind]
    fits = isinstance(c.value, kinds) and (isinstance(c.value, bool) == (c.dtype == BOOL))
    if fits and c.dtype.kind in ("int", "uint"):
        fits = lowest(c.dtype).value <= c.value <= highest(c.dtype).value
    elif fits and c.dtype.is_float:
        fits = const(c.value, c.dtype) == c
    _expect(fits, f"{c.value!r} is not a literal of type {c.dtype}")
