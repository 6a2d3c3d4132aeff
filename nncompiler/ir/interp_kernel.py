"""The kernel half of the Plan interpreter: loop nests in NumPy.

A value is an array with one dimension per axis in scope, of extent 1 where it does not depend on
the axis. Statements run over all their axes at once; `ordered` loops run step by step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nncompiler.errors import CompilerBug
from nncompiler.ir.combine import COMBINES
from nncompiler.ir.interp_scalar import combine, convert, evaluate
from nncompiler.ir.kernel import Axis, Fold, For, Kernel, Let, Stmt, Store
from nncompiler.ir.scalar import Affine, Apply, Bitcast, Cast, Const, Expr, Index, Iota, Load, Ref
from nncompiler.ir.types import Array
from nncompiler.record import dataclass

#: Above this many points at once a loop runs over its first axis one by one, to save memory.
POINTS = 2**22


def run_kernel(
    kernel: Kernel, arrays: Mapping[str, Array], at: Mapping[str, int], order: str | None = None
) -> None:
    """Run a kernel on its buffers; `at` are the counters of the plan loops around it."""
    machine, frame = _Machine(kernel.name, arrays, order), _Frame((), dict(at), {})
    for s in kernel.body:
        machine.execute(s, frame)


@dataclass(slots=True)
class _Frame:
    """A scope: `axes` are the dimensions of every value, `at` the axes that stand still."""

    axes: tuple[Axis, ...]
    at: dict[str, int]
    locals: dict[str, Array]

    def inner(self, axes: tuple[Axis, ...] = (), at: Mapping[str, int] | None = None) -> _Frame:
        return _Frame((*self.axes, *axes), {**self.at, **(at or {})}, dict(self.locals))

    @property
    def points(self) -> int:
        return math.prod(a.extent for a in self.axes)

    def wide(self, value: Array) -> Array:
        """A value of an enclosing scope, or a scalar, with a dimension for every axis."""
        return value.reshape(value.shape + (1,) * (len(self.axes) - value.ndim))

    def split(self, index: Affine) -> tuple[int, list[int]]:
        """The fixed part and the coefficient of each dimension."""
        known = {a.name for a in self.axes}
        fixed = index.const
        for name, k in index.terms:
            if name not in known:
                if name not in self.at:
                    raise CompilerBug("NN0392", f"no axis is called '{name}'")
                fixed += k * self.at[name]
        return fixed, [index.coefficient(a.name) for a in self.axes]

    def affine(self, index: Affine) -> Array:
        fixed, factors = self.split(index)
        total: Any = np.full((1,) * len(self.axes), fixed, np.int64)
        for d, (axis, k) in enumerate(zip(self.axes, factors, strict=True)):
            if k:
                shape = [1] * len(self.axes)
                shape[d] = axis.extent
                total = total + k * np.arange(axis.extent, dtype=np.int64).reshape(shape)
        return np.asarray(total)


@dataclass(slots=True)
class _Machine:
    kernel: str
    arrays: Mapping[str, Array]
    order: str | None

    # --- statements ---

    def execute(self, s: Stmt, frame: _Frame) -> None:
        match s:
            case Let(name, value):
                frame.locals[name] = self.value(value, frame)
            case Store():
                self._store(s, frame)
            case For():
                for inner in self._scopes(s, frame):
                    for statement in s.body:
                        self.execute(statement, inner)
            case Fold():
                frame.locals.update(zip(s.names, self._fold(s, frame), strict=True))

    def _scopes(self, s: For, frame: _Frame) -> Iterator[_Frame]:
        if s.ordered or self.order is not None:
            yield from self._one_by_one(s.axes, frame, self.order == "backward" and not s.ordered)
        elif not s.axes or frame.points * _points(s) <= POINTS:
            yield frame.inner(s.axes)
        else:
            for outer in self._one_by_one(s.axes[:1], frame):
                yield from self._scopes(For(s.axes[1:], s.body), outer)

    def _one_by_one(
        self, axes: tuple[Axis, ...], frame: _Frame, backward: bool = False
    ) -> Iterator[_Frame]:
        points = itertools.product(*(range(a.extent) for a in axes))
        for point in reversed(list(points)) if backward else points:
            yield frame.inner((), dict(zip((a.name for a in axes), point, strict=True)))

    def _fold(self, s: Fold, frame: _Frame) -> tuple[Array, ...]:
        init = s.init or COMBINES[s.combine].identity(tuple(v.dtype for v in s.values))
        fast = self._contraction(s, frame)
        if fast is not None:
            start = init[0].dtype.numpy.type(init[0].value)
            return (np.asarray(fast + start),) if s.init is not None else (fast,)
        if self.order is not None and s.body:
            return combine(s.combine, self._stacked(s, frame), init)
        inner = frame.inner(s.axes)
        for statement in s.body:
            self.execute(statement, inner)
        values = [self.value(v, inner) for v in s.values]
        rank = len(frame.axes)
        lead = np.broadcast_shapes(*(v.shape[:rank] for v in values))
        extents = tuple(a.extent for a in s.axes)
        flat = (*lead, math.prod(extents))
        wide = tuple(np.broadcast_to(v, lead + extents).reshape(flat) for v in values)
        return combine(s.combine, wide, init)

    def _stacked(self, s: Fold, frame: _Frame) -> tuple[Array, ...]:
        """The values of a reduction, computed point by point: no axis is vectorised around it."""
        rows: list[list[Array]] = [[] for _ in s.values]
        for inner in self._one_by_one(s.axes, frame, self.order == "backward"):
            for statement in s.body:
                self.execute(statement, inner)
            for row, value in zip(rows, s.values, strict=True):
                row.append(self.value(value, inner))
        found = [np.array(r, v.dtype.numpy) for r, v in zip(rows, s.values, strict=True)]
        return tuple(v[::-1] if self.order == "backward" else v for v in found)

    def _contraction(self, s: Fold, frame: _Frame) -> Any:
        """A sum of products of two plain loads, by `einsum`; None for any other reduction."""
        if not is_contraction(s):
            return None
        product = s.values[0]
        assert isinstance(product, Apply)
        inner = frame.inner(s.axes)
        views = []
        for load in product.args:
            assert isinstance(load, Load)
            views.append(self._view(load.buffer, load.index, inner, "reads"))
        rank, used = len(inner.axes), [d for v in views for d in range(v.ndim) if v.shape[d] != 1]
        if any(a.extent != 1 and rank - len(s.axes) + d not in used for d, a in enumerate(s.axes)):
            return None
        outer = range(len(frame.axes))
        operands: list[Any] = []
        for view in views:
            kept = [d for d in range(rank) if view.shape[d] != 1]
            operands += [view.reshape([view.shape[d] for d in kept]), kept]
        kept = [d for d in outer if d in used]
        result = np.einsum(*operands, kept, optimize=True)
        shape = [inner.axes[d].extent if d in used else 1 for d in outer]
        return np.asarray(result).reshape(shape)

    def _store(self, s: Store, frame: _Frame) -> None:
        value = np.asarray(self.value(s.value, frame))
        if not frame.points:
            return
        if _plain(s.index):
            place = self._view(s.buffer, s.index, frame, "writes")
            # an axis the place does not move along: its last iteration is what remains
            last = tuple(slice(-1, None) if n == 1 else slice(None) for n in place.shape)
            place[...] = frame.wide(value)[last]
            return
        array = self.arrays[s.buffer]
        index = self._indices(s.buffer, s.index, frame, None, "writes")
        shape = np.broadcast_shapes(value.shape, *(i.shape for i in index))
        array[tuple(np.broadcast_to(i, shape) for i in index)] = np.broadcast_to(value, shape)

    # --- expressions ---

    def value(self, expr: Expr, frame: _Frame) -> Array:
        """The expression at every point of the frame."""
        return frame.wide(self._value(expr, frame))

    def _value(self, expr: Expr, frame: _Frame) -> Array:
        match expr:
            case Const(value, dtype):
                return np.asarray(value, dtype.numpy)
            case Ref(name):
                if name not in frame.locals:
                    raise CompilerBug("NN0392", f"'{name}' is used before it is bound")
                return frame.locals[name]
            case Iota(index, dtype):
                return frame.affine(index).astype(dtype.numpy)
            case Apply(op, args, dtype):
                return evaluate(op, tuple(self.value(a, frame) for a in args), dtype)
            case Cast(arg, dtype):
                return convert(self.value(arg, frame), dtype)
            case Bitcast(arg, dtype):
                return np.ascontiguousarray(self.value(arg, frame)).view(dtype.numpy)
            case Load(guard=None) if all(isinstance(i, Affine) for i in expr.index):
                return np.array(self._view(expr.buffer, expr.index, frame, "reads"))
            case Load():
                return self._gather(expr, frame)

    def _gather(self, load: Load, frame: _Frame) -> Array:
        array = self.arrays[load.buffer]
        guard = None if load.guard is None else self.value(load.guard, frame)
        index = self._indices(load.buffer, load.index, frame, guard, "reads")
        shape = np.broadcast_shapes((1,) * len(frame.axes), *(i.shape for i in index))
        if guard is None:
            return np.asarray(array[index]).reshape(shape)
        fill = np.asarray(load.fill.value if load.fill else 0, array.dtype)
        if not array.size:
            return np.broadcast_to(fill, np.broadcast_shapes(shape, guard.shape))
        return np.where(guard, array[index].reshape(shape), fill)

    def _indices(
        self, buffer: str, index: tuple[Index, ...], frame: _Frame, guard: Any, verb: str
    ) -> tuple[Array, ...]:
        """Index arrays, checked where the guard holds and clamped elsewhere."""
        found = []
        for i, extent in zip(index, self.arrays[buffer].shape, strict=True):
            value: Any = frame.affine(i) if isinstance(i, Affine) else self.value(i, frame)
            value = value.astype(np.int64)
            bad = (value < 0) | (value >= extent)
            if np.any(bad if guard is None else bad & guard):
                raise self._outside(buffer, verb)
            found.append(np.clip(value, 0, max(0, extent - 1)))
        return tuple(found)

    def _view(self, buffer: str, index: tuple[Index, ...], frame: _Frame, verb: str) -> Any:
        """The elements at an affine index, without a copy: one dimension per axis."""
        array = self.arrays[buffer]
        moves = [frame.split(i) for i in index if isinstance(i, Affine)]
        strides, shape = [], []
        for d, axis in enumerate(frame.axes):
            used = any(factors[d] for _, factors in moves)
            shape.append(axis.extent if used else 1)
            strides.append(
                sum(f[d] * s for (_, f), s in zip(moves, array.strides, strict=True))
            )
        if not frame.points:
            return np.empty(shape, array.dtype)
        for (fixed, factors), extent in zip(moves, array.shape, strict=True):
            ends = [k * (a.extent - 1) for k, a in zip(factors, frame.axes, strict=True)]
            low = fixed + sum(e for e in ends if e < 0)
            if low < 0 or fixed + sum(e for e in ends if e > 0) >= extent:
                raise self._outside(buffer, verb)
        corner: Any = (*(slice(fixed, None) for fixed, _ in moves), ...)
        return np.lib.stride_tricks.as_strided(array[corner], shape, strides)

    def _outside(self, buffer: str, verb: str) -> CompilerBug:
        return CompilerBug("NN0396", f"kernel '{self.kernel}' {verb} outside of '{buffer}'")


def is_contraction(s: Fold) -> bool:
    """Is this a sum of products of two loads at affine indices?"""
    if s.combine != "sum" or s.body or not isinstance(s.values[0], Apply):
        return False
    value = s.values[0]
    return value.op == "mul" and value.dtype.is_float and all(
        isinstance(a, Load) and a.guard is None and all(isinstance(i, Affine) for i in a.index)
        for a in value.args
    )


def _points(s: Stmt) -> int:
    """How many points a statement computes at once."""
    match s:
        case Fold() if is_contraction(s):
            return 1
        case For(axes, body) | Fold(axes=axes, body=body):
            own = 1 if isinstance(s, For) and s.ordered else math.prod(a.extent for a in axes)
            return own * max([1, *map(_points, body)])
        case _:
            return 1


def _plain(index: tuple[Index, ...]) -> bool:
    """Every entry an axis of its own or a number: places of a store then never coincide."""
    singles = [i.terms[0][0] for i in index if isinstance(i, Affine) and i.terms]
    return len(set(singles)) == len(singles) and all(
        isinstance(i, Affine) and len(i.terms) <= 1 for i in index
    )
