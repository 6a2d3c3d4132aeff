"""The strategy for copies that turn an axis: squares are loaded along one axis and stored along
the other, their elements exchanged in registers.

    for i, j { y[j,i] = x[i,j] }        register j: contiguous in x; vector i: contiguous in y

A square of n x n elements (n lanes) takes n loads, n log2 n shuffles and n stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.value import Value, literal
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.codegen.nests.loops import Nest
from nncompiler.codegen.nests.pieces import Piece
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Axis, For, Kernel, Schedule, Store
from nncompiler.ir.scalar import Const, Ref

_NAME = "<turned>"

#: Takes the first position of a square along an axis, and how many there are.
Visit: TypeAlias = Callable[[At, int], None]


def emit_turn(kernel: Kernel, emitter: Emitter) -> None:
    """Emit a kernel whose schedule says ``turn``: one loop around one store."""
    schedule, body = kernel.schedule, kernel.body
    match body:
        case (For(axes, (Store() as store,)),) if len(schedule.vector) == 1:
            table = {a.name: a for a in axes}
            turned = table[schedule.vector[0]], table[schedule.register or ""]
            nest = _Turn(emitter, store, turned, schedule.order)
            nest.run(body, frozenset(schedule.parallel))
        case _:
            raise CompilerBug("NN0594", f"kernel '{kernel.name}' is not a scheduled turn")


class _Turn(Nest):
    def __init__(
        self, emitter: Emitter, store: Store, turned: tuple[Axis, Axis], order: tuple[str, ...]
    ) -> None:
        super().__init__(emitter, Schedule(order=order))
        self.statement = store
        self.rows, self.columns = turned
        self.count = emitter.target.vector_bytes // store.value.dtype.bytes

    def _for(self, s: For) -> None:
        def leaf(carried: list[Value], _: Piece | None) -> list[Value]:
            self._rows(lambda r, n: squares(
                self.w, self.columns, self.count, lambda c, m: self._square(r, n, c, m)
            ))  # fmt: skip
            return carried

        self._nest(self._sorted(self._outer(s.axes)), (), [], leaf)

    def _rows(self, visit: Visit) -> None:
        """Rows of squares, or this worker's part of them."""
        share, axis, n = self.e.share, self.rows, self.count
        if share is None or axis.name not in share:
            squares(self.w, axis, n, visit)
            return
        whole = axis.extent // n * n
        for counters, size in (
            (range(0, whole, n), n), (range(whole, axis.extent, n), axis.extent - whole),
        ):  # fmt: skip

            def body(at: Counter, _: list[Value], size: int = size) -> list[Value]:
                visit(At.of(at), size)
                return []

            share.loop(axis.name, counters.start // n, counters, body)

    def _steps(self, loop: For, parallel: frozenset[str]) -> dict[str, int]:
        outer = {a.name: a.extent for a in self._sorted(self._outer(loop.axes))}
        steps = outer | {self.rows.name: -(-self.rows.extent // self.count)}
        return {name: n for name, n in steps.items() if name in parallel}

    def _outer(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(a for a in axes if a not in (self.rows, self.columns))

    def _square(self, row: At, rows: int, column: At, columns: int) -> None:
        """`rows` x `columns` elements from there on, at most `count` of each."""
        dtype, n = self.statement.value.dtype, self.count
        lines = [literal(Const(0, dtype), n)] * n
        for r in range(rows):
            at = {self.rows.name: row + r, self.columns.name: column}
            with self.e.scope(at, Lanes(self.columns.name, n, columns)):
                lines[r] = self.w.splat(self.e.value(self.statement.value), n)
        for c, line in enumerate(turned(self.w, lines)[:columns]):
            at = {self.rows.name: row, self.columns.name: column + c}
            with self.e.scope(at, Lanes(self.rows.name, n, rows)):
                self.e.locals[_NAME] = line
                self.e.store(self.statement.buffer, self.statement.index, Ref(_NAME, dtype))


def squares(w: Writer, axis: Axis, count: int, visit: Visit) -> None:
    """`visit` the positions along an axis at which squares of `count` begin, the last one for
    what is left over.
    """
    whole = axis.extent // count * count

    def body(at: Counter, _: list[Value]) -> list[Value]:
        visit(At.of(at), count)
        return []

    w.loop(0, whole, count, [], body)
    if whole < axis.extent:
        visit(At("", whole), axis.extent - whole)


def turned(w: Writer, lines: list[Value]) -> list[Value]:
    """Rows as columns: off-diagonal blocks of 1, 2, 4, ... are exchanged."""
    n, h = len(lines), 1
    while h < n:
        found = list(lines)
        for i in (i for i in range(n) if not i & h):
            low, high = lines[i], lines[i + h]
            found[i] = w.shuffle(low, high, [n + j - h if j & h else j for j in range(n)])
            found[i + h] = w.shuffle(low, high, [n + j if j & h else j + h for j in range(n)])
        lines, h = found, 2 * h
    return lines
