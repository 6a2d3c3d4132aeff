"""The strategy for any nest: every statement in order, chosen axes over SIMD lanes.

An axis named in `Schedule.vector` is cut into pieces: a loop over wide vectors (several registers
each, which hides latencies and gives a fold independent partial results), one over single
registers, and a masked last one. A fold keeps one vector of partial results per piece and combines
their lanes at the end by halves: a fixed order, so the same bits on every run. Other axes are
plain loops; under a vector axis a fold's partial results are whole vectors. Long sums of floats
run in blocks (`cascade`). Steps of an outer loop may stand side by side (`beside`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Body, Counter
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.share import Share
from nncompiler.codegen.instructions.value import Value, active_mask, literal
from nncompiler.codegen.nests.ahead import Ahead, ahead_of
from nncompiler.codegen.nests.beside import Beside
from nncompiler.codegen.nests.cascade import is_one_block, sum_loop, terms_of
from nncompiler.codegen.nests.folds import combined, gathered
from nncompiler.codegen.nests.footprint import footprint
from nncompiler.codegen.nests.pieces import Piece
from nncompiler.codegen.nests.widths import cut_axis
from nncompiler.errors import CompilerBug
from nncompiler.ir.combine import COMBINES, Combine
from nncompiler.ir.kernel import Axis, Fold, For, Let, Schedule, Stmt, Store
from nncompiler.ir.scalar import Affine, Apply, Expr, const
from nncompiler.record import replace

#: Most points of a loop that is written out.
_SHORT = 9
#: One element at a time.
_PLAIN = Schedule()

Leaf = Callable[[list[Value], "Piece | None"], list[Value]]


def _short(axes: tuple[Axis, ...], body: tuple[Stmt, ...]) -> bool:
    """Whether a loop, as that over a window for pooling, costs more than what it repeats."""
    inner = any(isinstance(s, (For, Fold)) for s in body)
    return not inner and math.prod(a.extent for a in axes) <= _SHORT


def _zeros(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """What is stored at points that a loop may leave out."""
    return tuple(
        replace(s, value=const(0, s.value.dtype)) for s in body if isinstance(s, Store)
    )


class Nest:
    """Writes statements through an `Emitter`."""

    def __init__(self, emitter: Emitter, schedule: Schedule = _PLAIN) -> None:
        self.e = emitter
        self.w = emitter.w
        self.vector = frozenset(schedule.vector)
        self.place = {name: n for n, name in enumerate(schedule.order)}
        self.beside = Beside(emitter, schedule)
        self.around: tuple[Axis, ...] = ()
        self.ahead: Ahead | None = None

    def run(self, body: Iterable[Stmt], parallel: frozenset[str] = frozenset()) -> None:
        """Emit statements in order; those are outermost loops whose `parallel` axes are split."""
        for statement in body:
            if parallel and isinstance(statement, For):
                self.e.share = Share(self.w, self._steps(statement, parallel))
            match statement:
                case Let(name, value):
                    values = [[self.e.value(value)] for _ in self.beside.each()]
                    self.beside.bind((name,), values)
                case Store(buffer, index, value):
                    for _ in self.beside.each():
                        self.e.store(buffer, index, value)
                case For():
                    self._for(statement)
                case Fold():
                    self._fold(statement)

    # --- loops ---

    def _for(self, s: For) -> None:
        axes, inner, shared = s.axes, s.body, bool(self.beside)

        def leaf(carried: list[Value], piece: Piece | None) -> list[Value]:
            body = _zeros(inner) if piece is not None and piece.outside else inner
            for _ in self.beside.each() if shared else (0,):
                self.run(body)
            return carried

        if s.ordered:
            outside, self.around = self.around, axes
            self._nest(axes, (), [], leaf)
            self.around = outside
        elif _short(axes, inner) and self.e.lanes is not None:
            self._unrolled(self._sorted(axes), [], leaf)
        else:
            within = () if any(a.name == self.beside.axis for a in axes) else s.within
            cut = self._cut(axes, inner, (), within)
            axes = self._sorted(axes)
            self.ahead = ahead_of(self.around, axes, inner, self.vector, self.e) if cut else None
            outside, self.around = self.around, axes
            self._nest(axes, cut, [], leaf)
            self.ahead, self.around = None, outside

    def _unrolled(self, axes: tuple[Axis, ...], carried: list[Value], leaf: Leaf) -> list[Value]:
        """Every point of a short loop written out, with its axes as numbers."""
        if not axes:
            return leaf(carried, None)
        for n in range(axes[0].extent):
            with self.e.scope({axes[0].name: At.of(n)}):
                carried = self._unrolled(axes[1:], carried, leaf)
        return carried

    def _sorted(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """In the order of the schedule, outermost first."""
        return tuple(sorted(axes, key=lambda a: self.place.get(a.name, 0)))

    def _cut(
        self,
        axes: tuple[Axis, ...],
        inner: tuple[Stmt, ...],
        values: tuple[Expr, ...],
        within: tuple[Affine, ...],
    ) -> tuple[Piece, ...]:
        """The pieces of the vector axis among these axes; none when there is none, or lanes are
        taken already.
        """
        chosen = [a for a in axes if a.name in self.vector]
        if not chosen or self.e.lanes is not None:
            return ()
        if len(chosen) > 1:
            raise CompilerBug(
                "NN0592", f"axes '{chosen[0].name}' and '{chosen[1].name}' both run over lanes"
            )
        return cut_axis(chosen[0], inner, values, self.beside.all_outside(within), self.e)

    def _nest(
        self,
        axes: tuple[Axis, ...],
        cut: tuple[Piece, ...],
        carried: list[Value],
        leaf: Leaf,
        blocks: bool = False,
    ) -> list[Value]:
        """Loops over `axes`; `leaf` gets the carried values of its piece and returns them renewed:
        sums with one more term each where the loops are to run in `blocks`.
        """
        if not axes:
            return leaf(carried, None)
        axis, rest = axes[0], axes[1:]
        if axis.name == self.beside.axis:
            return self._side_by_side(axis, rest, cut, carried, leaf)
        if not (cut and axis.name in self.vector):

            def body(at: Counter, inside: list[Value]) -> list[Value]:
                with self.e.scope({axis.name: At.of(at, range(axis.extent))}):
                    return self._nest(rest, cut, inside, leaf, blocks)

            if blocks:
                terms = self._terms(rest, cut)
                return sum_loop(self.w, 0, axis.extent, 1, terms, carried, body)
            return self._loop(axis, 0, range(axis.extent), carried, body)

        if self.ahead is not None:
            self.ahead.ask(self.e)
        share = len(carried) // len(cut)
        found: list[Value] = []
        first = 0
        for n, piece in enumerate(cut):
            mine = carried[n * share : (n + 1) * share]
            found += self._piece(axis, piece, first, rest, mine, leaf, blocks)
            first += piece.trips
        return found

    def _side_by_side(
        self,
        axis: Axis,
        rest: tuple[Axis, ...],
        cut: tuple[Piece, ...],
        carried: list[Value],
        leaf: Leaf,
    ) -> list[Value]:
        """A loop whose steps stand side by side."""
        counters = range(0, axis.extent, self.beside.most)

        def body(at: Counter, inside: list[Value]) -> list[Value]:
            with self.e.scope({axis.name: At.of(at, counters)}):
                self.beside.begin()
                inside = self._nest(rest, cut, inside, leaf)
                self.beside.end()
            return inside

        return self._loop(axis, 0, counters, carried, body)

    def _piece(
        self,
        axis: Axis,
        piece: Piece,
        first: int,
        rest: tuple[Axis, ...],
        carried: list[Value],
        leaf: Leaf,
        blocks: bool,
    ) -> list[Value]:
        lanes = Lanes(axis.name, piece.lanes, piece.active)
        start, stop, step = piece.start, piece.stop, piece.lanes

        def body(at: Counter, inside: list[Value], piece: Piece = piece) -> list[Value]:
            with self.e.scope({axis.name: At.of(at, range(start, stop, step))}, lanes):
                return self._nest(rest, (), inside, lambda c, _: leaf(c, piece), blocks)

        if blocks and not is_one_block(piece.trips, self._terms(rest, ())):
            return sum_loop(self.w, start, stop, step, self._terms(rest, ()), carried, body)
        split = self.e.share is not None and axis.name in self.e.share
        inside = None if split else piece.inside(axis.name, self.e.axes, self.w, self.e.integer)
        if inside is None:
            return self._loop(axis, first, range(start, stop, step), carried, body)
        if not carried:
            zeros = partial(body, piece=replace(piece, outside=True))
            self.w.span(start, inside[0], [], zeros, step)
            self.w.span(inside[1], stop, [], zeros, step)
        return self.w.span(*inside, carried, body, step)

    def _loop(
        self, axis: Axis, first: int, counters: range, carried: list[Value], body: Body
    ) -> list[Value]:
        """A loop over `counters`, or this worker's part of it; they are the steps of the axis from
        number `first` on.
        """
        share = self.e.share
        if share is not None and axis.name in share:
            share.loop(axis.name, first, counters, body)
            return carried
        return self.w.loop(counters.start, counters.stop, counters.step, carried, body)

    def _steps(self, loop: For, parallel: frozenset[str]) -> dict[str, int]:
        """The `parallel` axes of a loop and those directly inside it, outermost first, with the
        number of their steps.
        """
        found: dict[str, int] = {}
        cut = self._cut(loop.axes, loop.body, (), loop.within)
        for axis in self._sorted(loop.axes):
            if axis.name not in parallel:
                return found
            over_lanes = cut and axis.name in self.vector
            steps = axis.extent // (self.beside.most if axis.name == self.beside.axis else 1)
            found[axis.name] = sum(p.trips for p in cut) if over_lanes else steps
        match loop.body:
            case (For() as inner,):
                return found | self._steps(inner, parallel)
        return found

    def _terms(self, axes: tuple[Axis, ...], cut: tuple[Piece, ...]) -> int:
        """How many terms loops over `axes` in blocks add to the sums they are given."""
        terms = 1
        for axis in reversed(axes):
            whole = [p.trips for p in cut if axis.name in self.vector] or [axis.extent]
            terms = max(terms_of(trips, terms) for trips in whole)
        return terms

    # --- folds ---

    def _fold(self, fold: Fold) -> None:
        combine = COMBINES[fold.combine]
        dtypes = tuple(v.dtype for v in fold.values)
        identity = combine.identity(dtypes)
        cut = self._cut(fold.axes, fold.body, fold.values, fold.within)
        start = identity if cut or fold.init is None else fold.init
        widths = [p.lanes for p in cut] or [self._lanes_of(fold)]
        steps, width = self.beside.count, combine.width
        carried = [literal(c, lanes) for lanes in widths for _ in range(steps) for c in start]

        def leaf(before: list[Value], piece: Piece | None) -> list[Value]:
            found = []
            for n in self.beside.each():
                mine = before[n * width : (n + 1) * width]
                found += self._renewed(fold, mine, piece)
            return found

        if not cut and _short(fold.axes, fold.body) and self.e.lanes is not None:
            found = self._unrolled(self._sorted(fold.axes), carried, leaf)
        else:
            blocks = fold.combine == "sum" and dtypes[0].is_float
            found = self._nest(self._sorted(fold.axes), cut, carried, leaf, blocks)
        each = []
        for n in range(steps):
            first = range(n * width, len(found), steps * width)
            mine = [v for k in first for v in found[k : k + width]]
            if cut:
                mine = gathered(self.e, combine, cut, mine)
                if fold.init is not None and fold.init != identity:
                    mine = combined(self.e, combine, [literal(c) for c in fold.init], mine)
            each.append(mine)
        self.beside.bind(fold.names, each)

    def _renewed(self, fold: Fold, before: list[Value], piece: Piece | None) -> list[Value]:
        """The partial results with one more point."""
        self.run(fold.body)
        renewed = self._accumulate(COMBINES[fold.combine], before, fold.values)
        if piece is None or piece.active == piece.lanes:
            return renewed
        mask = active_mask(piece.active, piece.lanes)
        return [self.w.choose(mask, new, old) for new, old in zip(renewed, before, strict=True)]

    def _lanes_of(self, fold: Fold) -> int:
        """Under a vector axis, the width of a fold's partial results: 0 when they do not depend on
        it.
        """
        lanes = self.e.lanes
        if lanes is None:
            return 0
        seen = footprint(fold.body, fold.values, self.e.expand)
        known = self.beside.known()
        varying = any(n in known and known[n].lanes for n in seen.names)
        return lanes.count if varying or lanes.axis in seen.axes else 0

    def _accumulate(
        self, combine: Combine, partial: list[Value], values: tuple[Expr, ...]
    ) -> list[Value]:
        """The partial results with one more point; a sum of products is a chain of fused multiply-
        adds.
        """
        lanes = partial[0].lanes
        whole = self.e.expand(values[0])
        match whole:
            case Apply("mul", (_, _), dtype) if (
                combine.name == "sum" and dtype.is_float and self.e.target.fma
            ):
                a, b = self.e.values(whole.args)
                return [
                    self.w.overloaded(
                        "fma", [self._spread(a, lanes), self._spread(b, lanes), partial[0]]
                    )
                ]
        new = [self._spread(v, lanes) for v in self.e.values(values)]
        return combined(self.e, combine, partial, new)

    def _spread(self, value: Value, lanes: int) -> Value:
        return self.w.splat(value, lanes) if lanes else value
