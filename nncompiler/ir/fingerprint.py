"""When two kernels are the same but for names: what was found out about one holds for the other.

Networks repeat their blocks, so most kernels of a large one have been seen before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import count
from typing import TypeVar

from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Axis, Buffer, Fold, For, Kernel, Let, Stmt, Store
from nncompiler.ir.once import once
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
)
from nncompiler.record import dataclass, field

R = TypeVar("R")


def fingerprint(kernel: Kernel, buffers: Mapping[str, Buffer]) -> Hashable:
    """Equal only for bodies that differ in the names of locals and buffers alone, over buffers of
    the same types, layouts and spaces. Axes keep their names: schedules speak of them."""
    read = signature(kernel.body)
    found = [buffers[name] for name in read.buffers]
    key = tuple([(b.type.dtype.name, b.type.shape, b.layout, b.space) for b in found])
    return read.number, key


@dataclass(frozen=True, slots=True)
class Signature:
    """A number that bodies have in common that differ in names alone; the names in order."""

    number: int
    buffers: tuple[str, ...]
    locals: tuple[str, ...]


#: The numbers of what was read. A number is never given twice.
_NUMBERS: dict[Hashable, int] = {}
_NEXT, _MOST = count(), 4096


@once
def signature(body: tuple[Stmt, ...]) -> Signature:
    """What a body is like."""
    reader = _Reader()
    reader.block(body)
    if len(_NUMBERS) >= _MOST:
        _NUMBERS.clear()
    number = _NUMBERS.setdefault(tuple(reader.found), next(_NEXT))
    return Signature(number, tuple(reader.places), tuple(reader.locals))


def with_names(
    body: tuple[Stmt, ...], locals: Mapping[str, str], buffers: Mapping[str, str]
) -> tuple[Stmt, ...]:
    """The same body with other names for some locals and buffers. Different ones stay different,
    so that what is found out about the body holds for this one as well.
    """
    new = _Renaming(locals, buffers).block(body)
    read = signature(body)
    names = tuple([buffers.get(b, b) for b in read.buffers])
    own = tuple([locals.get(n, n) for n in read.locals])
    signature.tell(new, Signature(read.number, names, own))
    return new


def alike(find: Callable[[tuple[Stmt, ...]], R]) -> Callable[[tuple[Stmt, ...]], R]:
    """`find`, which is asked once for all bodies that differ in names alone."""
    known: dict[int, R] = {}

    def found(body: tuple[Stmt, ...]) -> R:
        number = signature(body).number
        try:
            return known[number]
        except KeyError:
            pass
        if len(known) >= _MOST:
            known.clear()
        known[number] = result = find(body)
        return result

    return found


@dataclass(slots=True)
class _Reader:
    """Writes a body down as a list; a local, buffer or expression is its number after that."""

    found: list[Hashable] = field(default_factory=list)
    locals: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    known: dict[int, int] = field(default_factory=dict)  # expressions are shared by identity

    def block(self, body: Sequence[Stmt]) -> None:
        for s in body:
            match s:
                case Let(name, value):
                    self.found.append(("let", self.expr(value), self.local(name)))
                case Store(buffer, index, value):
                    at = (self.place(buffer), self.index(index))
                    self.found.append(("store", *at, self.expr(value)))
                case For(axes, inner, ordered, within):
                    self.found.append(("for", _axes(axes), ordered, _forms(within)))
                    self.block(inner)
                    self.found.append("end")
                case Fold(names, combine, axes, values, inner, init, within):
                    self.found.append(("fold", combine, _axes(axes), init, _forms(within)))
                    self.block(inner)
                    parts = tuple([self.expr(v) for v in values])
                    self.found.append(("end", parts, tuple([self.local(n) for n in names])))

    def local(self, name: str) -> int:
        return self.locals.setdefault(name, len(self.locals))

    def place(self, name: str) -> int:
        return self.places.setdefault(name, len(self.places))

    def index(self, index: Sequence[Index]) -> tuple[Hashable, ...]:
        return tuple([
            (i.terms, i.const) if isinstance(i, Affine) else self.expr(i) for i in index
        ])  # fmt: skip

    def expr(self, e: Expr) -> int:
        number = self.known.get(id(e))
        if number is None:
            part = self.part(e)
            number = self.known[id(e)] = len(self.known)
            self.found.append(part)
        return number

    def part(self, e: Expr) -> Hashable:
        match e:
            case Const():
                return e
            case Ref(name, dtype):
                return ("ref", self.local(name), dtype.name)
            case Iota(index, dtype):
                return ("iota", index.terms, index.const, dtype.name)
            case Load(buffer, index, dtype, guard, fill):
                held = None if guard is None else self.expr(guard)
                at = (self.place(buffer), self.index(index))
                return ("load", *at, dtype.name, held, fill)
            case Apply(op, args, dtype):
                return (op, tuple([self.expr(a) for a in args]), dtype.name)
            case Cast(arg, dtype):
                return ("cast", self.expr(arg), dtype.name)
            case Bitcast(arg, dtype):
                return ("bits", self.expr(arg), dtype.name)
        raise CompilerBug("NN0392", f"no scalar expression: {e!r}")


@dataclass(slots=True)
class _Renaming:
    """Other names for locals and buffers; expressions that were shared are shared again."""

    locals: Mapping[str, str]
    buffers: Mapping[str, str]
    known: dict[int, Expr] = field(default_factory=dict)

    def block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple([self.statement(s) for s in body])

    def statement(self, s: Stmt) -> Stmt:
        match s:
            case Let(name, value):
                return Let(self.locals.get(name, name), self.expr(value))
            case Store(buffer, index, value):
                return Store(self.place(buffer), self.index(index), self.expr(value))
            case For(axes, inner, ordered, within):
                return For(axes, self.block(inner), ordered, within)
            case Fold(names, combine, axes, values, inner, init, within):
                names = tuple([self.locals.get(n, n) for n in names])
                values = tuple([self.expr(v) for v in values])
                return Fold(names, combine, axes, values, self.block(inner), init, within)

    def place(self, buffer: str) -> str:
        return self.buffers.get(buffer, buffer)

    def index(self, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple([i if isinstance(i, Affine) else self.expr(i) for i in index])

    def expr(self, e: Expr) -> Expr:
        new = self.known.get(id(e))
        if new is None:
            new = self.known[id(e)] = self.renamed(e)
        return new

    def renamed(self, e: Expr) -> Expr:
        match e:
            case Ref(name, dtype):
                return Ref(self.locals.get(name, name), dtype)
            case Load(buffer, index, dtype, guard, fill):
                held = None if guard is None else self.expr(guard)
                return Load(self.place(buffer), self.index(index), dtype, held, fill)
            case Apply(op, args, dtype):
                return Apply(op, tuple([self.expr(a) for a in args]), dtype)
            case Cast(arg, dtype):
                return Cast(self.expr(arg), dtype)
            case Bitcast(arg, dtype):
                return Bitcast(self.expr(arg), dtype)
            case Const() | Iota():
                return e


def _axes(axes: Sequence[Axis]) -> tuple[tuple[str, int], ...]:
    return tuple([(a.name, a.extent) for a in axes])


def _forms(within: Sequence[Affine]) -> tuple[Hashable, ...]:
    return tuple([(i.terms, i.const) for i in within])
