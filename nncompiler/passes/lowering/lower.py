"""From a group of nodes to one loop nest.

Elements are *pulled*: the nest asks every output for its element at the loop axes, which asks the
operators for theirs. Each element is bound once, in the outermost scope whose axes determine it;
that hoists row statistics out of the inner loop and scalars out of everything. A value that must
be in memory is stored where it is first computed.

    %0 = sub %z, %m                        for i < 64 {
    %1 = exp %0                 ──▶          s = sum j < 10 { exp(z[i,j] - m[i]) }
    %2 = reduce_sum %1 {axes=[1]}            %2[i] = s
                                           }
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from nncompiler.errors import CompilerBug
from nncompiler.ir.graph import Node, Value
from nncompiler.ir.kernel import Axis, Fold, For, Let, Stmt, Store
from nncompiler.ir.op import lookup
from nncompiler.ir.scalar import (
    Affine,
    Const,
    Expr,
    Index,
    Iota,
    Load,
    Ref,
    apply,
    axes_of,
    const,
    walk,
)  # fmt: skip
from nncompiler.passes.fusion.grouping import Frame, expensive
from nncompiler.passes.lowering.nest_names import NestNames
from nncompiler.passes.lowering.place import Place
from nncompiler.passes.lowering.tidy import tidy
from nncompiler.record import dataclass, field


@dataclass(frozen=True, slots=True)
class Lowered:
    """The body of a kernel, and the values it keeps in scratch buffers of its own. Locals are
    called after values (`local_name`) with a number behind that tells them apart, or `acc`.
    """

    body: tuple[Stmt, ...]
    scratch: tuple[Value, ...]
    locals: Mapping[str, Value | None]


def lower_group(
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    frame: Frame,
    places: Mapping[Value, Sequence[Place]],
    scratch_place: Callable[[Value], Place],
) -> Lowered:
    """The kernel for `nodes`.

    `places` are those of every value read (the first of them) or stored (all of them). Values
    that are costly and needed by two inner loops become scratch, found by lowering until no more
    turn up; those that are computed twice even so, in a loop that is hoisted out of the one that
    stores them, are stored first of all.
    """
    scratch: dict[Value, None] = {}
    first: dict[Value, None] = {}
    while True:
        known = {**{v: (scratch_place(v),) for v in scratch}, **places}
        nest = _Nest(nodes, (*outputs, *scratch), frame, known)
        body = nest.build((*first, *outputs))
        more = [v for v in nest.repeated if v not in first and v not in outputs]
        if not more:
            return Lowered(tidy(body), tuple(scratch), nest.names.locals)
        first.update(dict.fromkeys(v for v in more if v in scratch))
        scratch.update(dict.fromkeys(more))


@dataclass(slots=True)
class _Scope:
    axes: tuple[Axis, ...]
    statements: list[Stmt] = field(default_factory=list)
    known: dict[object, Expr] = field(default_factory=dict)
    open: bool = True

    def bound(self) -> set[str]:
        """The locals that are bound here so far."""
        found = {s.name for s in self.statements if isinstance(s, Let)}
        return found | {n for s in self.statements if isinstance(s, Fold) for n in s.names}


class _Nest:
    """One attempt at a nest. The scope stack is: whole kernel, frame (if any), inner loop or fold
    (if any), …"""

    def __init__(
        self,
        nodes: Sequence[Node],
        kept: Iterable[Value],
        frame: Frame,
        places: Mapping[Value, Sequence[Place]],
    ) -> None:
        self.frame, self.places = frame, places
        self.makers = {v: n for n in nodes for v in n.outputs}
        self.kept = dict.fromkeys(kept)
        self.guards: list[tuple[Expr, Const]] = []
        self.stored: dict[Value, _Scope] = {}
        self.computed: set[Value] = set()
        self.repeated: dict[Value, None] = {}
        self.scopes = [_Scope(())]
        self.names = NestNames()
        self.frame_axes = self.names.own_axes(frame.extents)
        self.axis_of = dict(zip(frame.axes, (a.name for a in self.frame_axes), strict=True))

    # --- the nest from outside in ---

    def build(self, outputs: Sequence[Value]) -> tuple[Stmt, ...]:
        frame_axes = self.frame_axes
        self.inside = [v for v in outputs if not self.frame.cross or self.labels_of(v)]
        if self.frame.cross:
            result = self.frame.cross.output
            self.element(result, (Affine(),) * result.type.rank)
        elif frame_axes:
            self.scopes.append(_Scope(frame_axes))
            self.store_all(self.inside)
            self.close(lambda body: For(frame_axes, body))
        else:
            self.store_all(self.inside)
        self.store_all([v for v in outputs if v not in self.inside])
        return tuple(self.scopes[0].statements)

    def labels_of(self, value: Value) -> tuple[object, ...]:
        return tuple(x for x in self.frame.labels[value] if x is not None)

    def store_all(self, values: Iterable[Value]) -> None:
        for value in values:
            if value in self.stored:
                continue
            labels = self.frame.labels[value]
            inner = [x for x in labels if x is not None and x not in self.axis_of]
            extents = [n for x, n in zip(labels, value.shape, strict=True) if x in inner]
            axes = self.new_axes(extents)
            names = {**self.axis_of, **dict(zip(inner, (a.name for a in axes), strict=True))}
            index = tuple(Affine() if x is None else Affine.axis(names[x]) for x in labels)
            if not axes:
                self.element(value, index)
                continue
            self.scopes.append(_Scope(axes))
            self.element(value, index)
            self.close(lambda body, axes=axes: For(axes, body))  # type: ignore[misc]

    def close(self, wrap: Callable[[tuple[Stmt, ...]], Stmt]) -> None:
        scope = self.scopes.pop()
        scope.open = False
        body = tuple(scope.statements)
        self.scopes[-1].statements.append(wrap(body))

    def new_axes(self, extents: Sequence[int]) -> tuple[Axis, ...]:
        return self.names.axes(tuple(a.name for s in self.scopes for a in s.axes), extents)

    # --- elements ---

    def depth(self, index: tuple[Index, ...]) -> int:
        """The outermost scope in which an index has a value."""
        axes: set[str] = set()
        locals_: set[str] = set()
        for i in index:
            if isinstance(i, Affine):
                axes.update(i.axes)
            else:
                axes |= axes_of(i)
                locals_.update(e.name for e in walk(i) if isinstance(e, Ref))
        for d in range(len(self.scopes) - 1, 0, -1):
            scope = self.scopes[d]
            if not axes.isdisjoint([a.name for a in scope.axes]):
                return d
            if locals_ and not locals_.isdisjoint(scope.bound()):
                return d
        return 0

    def element(self, value: Value, index: Sequence[Index]) -> Expr:
        """The value's element at `index`: bound once per scope, loaded where memory holds it,
        else computed."""
        at = tuple(Affine() if n == 1 else i for i, n in zip(index, value.shape, strict=True))
        depth = self.depth((*at, *(g for g, _ in self.guards)))
        scope = self.scopes[depth]
        key = (value, at, tuple(self.guards))
        if key in scope.known:
            return scope.known[key]
        inner, self.scopes = self.scopes[depth + 1 :], self.scopes[: depth + 1]
        expr = self.bind(scope, value, self.evaluate(value, at))
        scope.known[key] = expr
        if value in self.kept and value not in self.stored and self.covers(value, at):
            self.stored[value] = scope
            scope.statements += [Store(p.buffer, p.index(at), expr) for p in self.places[value]]
        self.scopes += inner
        return expr

    def evaluate(self, value: Value, index: tuple[Index, ...]) -> Expr:
        node = self.makers.get(value)
        # what an unfinished loop stores is not there yet for statements hoisted in front of that
        # loop
        if node is None or (value in self.stored and not self.stored[value].open):
            return self.load(value, index)
        if value in self.computed and expensive(node) and self.labels_of(value):
            self.repeated[value] = None
        self.computed.add(value)
        return lookup(node.op).lower(node, index, _Pull(self, node))

    def load(self, value: Value, index: tuple[Index, ...]) -> Expr:
        """A load under all guards in force; what it gives where they do not hold is never looked
        at but for one."""
        place = self.places[value][0]
        index = place.index(index)
        if not self.guards:
            return Load(place.buffer, index, value.dtype)
        guard, fill = self.guards[-1]
        for outer, _ in self.guards[:-1]:
            guard = apply("and", outer, guard)
        fill = (
            fill if len(self.guards) == 1 and fill.dtype == value.dtype else const(0, value.dtype)
        )
        return Load(place.buffer, index, value.dtype, guard, fill)

    def guarded(self, value: Value, index: Sequence[Index], guard: Expr, fill: Const) -> Expr:
        """The element where `guard` holds, else `fill`; nothing below touches memory where it
        does not."""
        self.guards.append((guard, fill))
        element = self.element(value, index)
        self.guards.pop()
        if self.makers.get(value) is None and not self.guards:
            return element  # a load, which fills by itself
        return apply("select", guard, element, fill)

    def bind(self, scope: _Scope, value: Value, expr: Expr) -> Expr:
        if isinstance(expr, (Const, Ref, Iota)):
            return expr
        name = self.names.local(value)
        scope.statements.append(Let(name, expr))
        return Ref(name, expr.dtype)

    def covers(self, value: Value, index: tuple[Index, ...]) -> bool:
        """Whether the loops around here visit every element of `value` once at this index."""
        axes = [
            i.single if isinstance(i, Affine) else None
            for i, n in zip(index, value.shape, strict=True)
            if n != 1
        ]
        if None in axes or len(set(axes)) != len(axes):
            return False
        extents = [n for n in value.shape if n != 1]
        around = {a.name for s in self.scopes for a in s.axes}
        return around == set(axes) and all(
            self.names.extents[str(a)] == n for a, n in zip(axes, extents, strict=True)
        )

    # --- reductions ---

    def fold(
        self,
        node: Node,
        combine: str,
        extents: Sequence[int],
        element: Callable[[tuple[Affine, ...]], tuple[Expr, ...]],
    ) -> tuple[Expr, ...]:
        cross = node is self.frame.cross
        axes = self.frame_axes if cross else self.new_axes([n for n in extents if n != 1])
        if not axes:  # a single term
            one = element(_affine(extents, ()))
            return tuple(self.bind(self.scopes[-1], node.output, v) for v in one)
        self.scopes.append(_Scope(axes))
        values = element(self.cross_index(node) if cross else _affine(extents, axes))
        if cross:
            self.store_all(self.inside)
        called = None if lookup(node.op).kind == "contract" else node.output
        names = tuple(self.names.local(called) for _ in values)
        self.close(lambda body: Fold(names, combine, axes, values, body))
        return tuple(Ref(name, v.dtype) for name, v in zip(names, values, strict=True))

    def cross_index(self, node: Node) -> tuple[Affine, ...]:
        """The frame's axes in the order in which the fold reduces its input's dimensions."""
        kept = {d for _, d, _ in lookup(node.op).dims(node)}
        labels = self.frame.labels[node.inputs[0]]
        reduced = [x for d, x in enumerate(labels) if d not in kept]
        return tuple(Affine() if x is None else Affine.axis(self.axis_of[x]) for x in reduced)


def _affine(extents: Sequence[int], axes: tuple[Axis, ...]) -> tuple[Affine, ...]:
    left = iter(axes)
    return tuple(Affine() if n == 1 else Affine.axis(next(left).name) for n in extents)


@dataclass(frozen=True, slots=True)
class _Pull:
    """What an operator's `lower` sees of the nest (`ir.op.Lowering`)."""

    nest: _Nest
    node: Node

    def read(
        self, k: int, index: Sequence[Index], guard: Expr | None = None, fill: Const | None = None
    ) -> Expr:
        value = self.node.inputs[k]
        if len(index) != len(value.shape):
            raise CompilerBug(
                "NN0491", f"'{self.node.op}' reads operand {k} with {len(index)} indices"
            )
        if guard is not None and fill is not None:
            return self.nest.guarded(value, index, guard, fill)
        return self.nest.element(value, index)

    def fold(
        self,
        combine: str,
        extents: Sequence[int],
        element: Callable[[tuple[Affine, ...]], tuple[Expr, ...]],
    ) -> tuple[Expr, ...]:
        return self.nest.fold(self.node, combine, extents, element)

    def let(self, value: Expr) -> Expr:
        return self.nest.bind(self.nest.scopes[-1], self.node.output, value)
