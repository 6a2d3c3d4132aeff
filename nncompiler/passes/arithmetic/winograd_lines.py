"""Both directions of a transform, line by line, by way of a buffer that stays in a near cache.

    for m < 16 {
      for a < 6, i < 32 { %1.Vh[…,m,:,a,i] = matrix times the elements of row a }
      for b < 6, i < 32 { … = matrix times %1.Vh[…,m,b,:,i] }
    }

Each loop is a sixth of what the whole would be written out, in code and in time to compile. What
registers hold is written out all the same: nothing goes by way of memory. Steps
that several workers may share have a line of the buffer each for `own`, the longest axis around;
in what is shared as a whole all steps take the same one, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from nncompiler.ir.kernel import Axis, Buffer, For, Stmt, Store
from nncompiler.ir.scalar import Affine, Expr, Load
from nncompiler.ir.types import DType, TensorType
from nncompiler.passes.arithmetic.winograd_transforms import Stages, applied
from nncompiler.record import dataclass

#: What is transformed: the element of a line at a place; and what happens to a result of a line.
Terms: TypeAlias = Callable[[Affine, int], Expr]
Sink: TypeAlias = Callable[[Affine, int, Expr], Sequence[Stmt]]

#: The axes of the lines, of the first direction and of the second.
FIRST, SECOND = "a", "b"


@dataclass(frozen=True, slots=True)
class Lines:
    """Transforms inside loops over `axes`, the lanes last. `outer` are loops around the kernel of
    which all steps may run at once. Written out if `at_once`, without a buffer."""

    half: str
    stages: Stages
    axes: tuple[Axis, ...]
    outer: tuple[Axis, ...] = ()
    at_once: bool = False

    @property
    def lines(self) -> tuple[int, int]:
        """How many there are in each direction."""
        return len(self.stages[0][0]), len(self.stages[-1])

    @property
    def own(self) -> tuple[Axis, ...]:
        """The axis of whose steps each has its own part of the buffer."""
        around = self.axes[:-1]
        return () if self.outer or not around else (max(around, key=lambda a: a.extent),)

    def place(self, result: int | Affine, line: int | Affine) -> tuple[Affine, ...]:
        loops = (*self.outer, *self.own)
        inner = tuple(x if isinstance(x, Affine) else Affine((), x) for x in (result, line))
        around, lanes = ([Affine.axis(a.name) for a in x] for x in (loops, self.axes[-1:]))
        return (*around, *inner, *lanes)

    def buffer(self, dtype: DType) -> Buffer:
        first, second = self.lines
        around, lanes = ([a.extent for a in x] for x in ((*self.outer, *self.own), self.axes[-1:]))
        type = TensorType(dtype, (*around, second, first, *lanes))
        return Buffer(self.half, type, "arena")

    def nest(
        self, dtype: DType, terms: Terms, sink: Sink, name: str, taken: set[str]
    ) -> tuple[Stmt, ...]:
        """Both directions, inside the loops."""
        if self.at_once:
            return (For(self.axes, tuple(self._body(terms, sink, name, taken))),)
        first, second = (Affine.axis(x) for x in (FIRST, SECOND))
        count, lanes = range(self.lines[0]), self.axes[-1:]
        body, values = applied(self.stages, [terms(first, k) for k in count], name, taken)
        body += [Store(self.half, self.place(k, first), v) for k, v in enumerate(values)]
        between = [Load(self.half, self.place(second, k), dtype) for k in count]
        then, values = applied(self.stages, between, f"{name}h", taken)
        for k, value in enumerate(values):
            then += sink(second, k, value)
        nest: tuple[Stmt, ...] = (
            For((Axis(FIRST, self.lines[0]), *lanes), tuple(body)),
            For((Axis(SECOND, self.lines[1]), *lanes), tuple(then)),
        )
        if rest := tuple(a for a in self.axes[:-1] if a not in self.own):
            nest = (For(rest, nest, ordered=True),)
        return (For(self.own, nest),) if self.own else nest

    def _body(self, terms: Terms, sink: Sink, name: str, taken: set[str]) -> list[Stmt]:
        """Both directions, written out."""
        body, rows = list[Stmt](), list[list[Expr]]()
        for line in range(self.lines[0]):
            given = [terms(Affine((), line), k) for k in range(self.lines[0])]
            let, values = applied(self.stages, given, f"{name}{line}", taken)
            body += let
            rows.append(values)
        for line in range(self.lines[1]):
            let, values = applied(self.stages, [r[line] for r in rows], f"{name}h{line}", taken)
            body += let
            for k, value in enumerate(values):
                body += sink(Affine((), line), k, value)
        return body
