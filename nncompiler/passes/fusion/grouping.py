"""Which nodes may share one kernel: iteration spaces as labels on dimensions.

Dimensions that run together (by `Operator.dims`) get one label; dimensions of extent 1 get none.
A group of nodes has one nest if its labels admit a *frame*: the parallel axes that every computed
value has. A softmax over rows has frame (i) and inner axis (j); an elementwise chain has all its
axes as frame; a contraction's frame are its output's axes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from nncompiler.ir.graph import Node, Value
from nncompiler.ir.op import DimMap, lookup
from nncompiler.ir.scalar import PRIMITIVES
from nncompiler.passes.fusion.axis_labels import AxisLabels, Labels
from nncompiler.record import dataclass

#: Elements to fold that are worth a kernel of their own, which workers share.
_SHARED = 1 << 15


@dataclass(frozen=True, slots=True)
class Frame:
    """The axes of a group's nest. `cross` is the one fold over the whole frame (a loss), where
    there is one.

    `labels` names the iteration axis of every dimension of every value the group touches.
    """

    axes: tuple[int, ...]
    extents: tuple[int, ...]
    labels: dict[Value, Labels]
    cross: Node | None = None


def is_view(node: Node) -> bool:
    """The same bytes under another shape, in a way that no affine index expresses: it must look
    at memory."""
    operator = lookup(node.op)
    return operator.kind == "view" and operator.leaf_only(node)


def is_loop(node: Node) -> bool:
    """A node that becomes a loop of kernels."""
    return lookup(node.op).loops


def is_closed(node: Node) -> bool:
    """A node with a body, a loop or a group, or with a nest of its own: nothing joins it, and
    what it reads is in memory."""
    return node.body is not None or has_nest(node)


def has_nest(node: Node) -> bool:
    """A node whose operator writes its kernel itself."""
    return lookup(node.op).kind == "nest"


def expensive(node: Node) -> bool:
    """Whether computing one element again costs more than storing and loading it."""
    primitive = PRIMITIVES.get(node.op)
    return node.op in ("div", "sqrt", "rsqrt") or (
        primitive is not None and primitive.transcendental
    )


class Spaces:
    """The nodes of a function, and of each what frames are found by: a group is a list of
    positions. The dimensions of values have numbers; those of `ties` run together.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        operators = [lookup(n.op) for n in nodes]
        self.nodes = nodes
        self.kinds = [o.kind for o in operators]
        self.cheap = [o.cheap for o in operators]
        self.leaf_only = [o.leaf_only(n) for o, n in zip(operators, nodes, strict=True)]
        self.moving = {k for k, only in enumerate(self.leaf_only) if only}
        self.contracts = {k for k, kind in enumerate(self.kinds) if kind == "contract"}
        self.folds = {k for k, kind in enumerate(self.kinds) if kind == "fold"}
        # values by name, whose hash is there already
        self.inputs = [[v.name for v in n.inputs] for n in nodes]
        self.outputs = [[v.name for v in n.outputs] for n in nodes]
        self.maker = {v: k for k, names in enumerate(self.outputs) for v in names}
        self.dims: dict[str, Labels] = {}
        self.sizes: list[int] = []
        for node in nodes:
            for v in (*node.inputs, *node.outputs):
                if v.name not in self.dims:
                    self.dims[v.name] = self._numbered(v.type.shape)
        #: Per node (input, its dimension, the dimension of the output).
        self.ties = [
            tuple(self._ties(n, o.dims(n))) for n, o in zip(nodes, operators, strict=True)
        ]

    def _numbered(self, shape: tuple[int, ...]) -> Labels:
        start = len(self.sizes)
        self.sizes += shape
        return tuple([None if n == 1 else start + d for d, n in enumerate(shape)])

    def _ties(self, node: Node, dims: DimMap) -> Iterator[tuple[str, int, int]]:
        for k, d, e in dims:
            a, b = self.dims[node.inputs[k].name][d], self.dims[node.output.name][e]
            if a is not None and b is not None:
                yield node.inputs[k].name, a, b

    def find(
        self, group: Sequence[int], outputs: Sequence[str], labels: AxisLabels
    ) -> Found | None:
        """What `find_frame` finds for a group with these `labels`."""
        inside = set(group)
        contracts, folds = sorted(inside & self.contracts), sorted(inside & self.folds)
        if len(contracts) > 1 or (contracts and folds):
            return None
        if any(self._reads_computed(k, inside) for k in sorted(inside & self.moving)):
            return None
        if contracts and self._reads_computed(contracts[0], inside):
            return None
        for through_operands in (True, False):
            labels = labels if through_operands else self.labels(group, inside)
            made = {labels.axes(v) for k in group for v in self.outputs[k]}
            if any(len(set(axes)) != len(axes) for axes in made):
                continue
            if contracts:
                found = self._contract_frame(group, contracts[0], outputs, labels)
            else:
                found = self._loop_frame(group, folds, outputs, labels)
            if found:
                return found
        return None

    def _reads_computed(self, k: int, group: Collection[int]) -> bool:
        """Whether arithmetic inside the group (not mere data movement) makes what node k reads."""
        makers = (self.maker.get(v) for v in self.inputs[k])
        return any(
            m in group and (not self.cheap[m] or self._reads_computed(m, group))
            for m in makers
            if m is not None
        )

    def labels(
        self, group: Iterable[int], within: Collection[int] | None = None
    ) -> AxisLabels:
        """The axes of every value that the group touches. Two readers of one outside value run
        over the same axes; where `within` is the group, only values made inside tie axes together
        (a product of a matrix with its own transpose needs that).
        """
        labels = AxisLabels(self.dims)
        for k in group:
            for v, a, b in self.ties[k]:
                if within is None or self.maker.get(v) in within:
                    labels.tie(a, b)
        return labels

    def _contract_frame(
        self, group: Sequence[int], anchor: int, outputs: Sequence[str], labels: AxisLabels
    ) -> Found | None:
        """One contraction, then elementwise work on its result: the epilogue. Its operands must be
        in memory."""
        axes = labels.axes(self.outputs[anchor][0])
        after = {self.outputs[anchor][0]}
        for k in group:
            if k == anchor:
                continue
            if not after.isdisjoint(self.inputs[k]):
                after.update(self.outputs[k])
            elif not self.cheap[k] and labels.axes(self.outputs[k][0]) not in ((), axes):
                # beside the tile only scalars, or work on the very elements of the tile (a slot
                # times its decay)
                return None
        if not after.isdisjoint(self.inputs[anchor]):
            return None
        if any(labels.axes(v) != axes for v in outputs):
            return None
        if any(not set(labels.axes(v)) <= set(axes) for v in after):
            return None
        return Found(axes, labels)

    def _loop_frame(
        self, group: Sequence[int], folds: Sequence[int], outputs: Sequence[str],
        labels: AxisLabels,
    ) -> Found | None:
        heavy = [v for k in group if not self.cheap[k] for v in self.outputs[k]]
        for cross in (*[f for f in folds if not labels.axes(self.outputs[f][0])], None):
            after = self._scalars_after(group, cross, labels)
            if after is None:
                continue
            rows = [self.outputs[f][0] for f in folds if f != cross]
            inside = [v for v in outputs if v not in after]
            # scalars are computed and stored in front of the loops: they do not narrow the frame
            spread = [v for v in inside if labels.axes(v)] or inside
            whole = None if cross is None else labels.axes(self.inputs[cross][0])
            axes = _common(labels, rows + spread, whole)
            if axes is None or (whole is not None and (not axes or set(axes) != set(whole))):
                continue
            if _fits(axes, labels, [v for v in heavy if v not in after], inside):
                return Found(axes, labels, None if cross is None else self.nodes[cross])
        return None

    def _scalars_after(
        self, group: Sequence[int], cross: int | None, labels: AxisLabels
    ) -> set[str] | None:
        """The result of `cross` and what follows from it; None where that is not all scalars."""
        if cross is None:
            return set()
        after = set(self.outputs[cross])
        for k in group:
            if not after.isdisjoint(self.inputs[k]):
                after.update(self.outputs[k])
        return None if any(labels.axes(v) for v in after) else after

    def rows_are_large(self, group: Iterable[int], cross: Node | None) -> bool:
        """Whether folds within a fold over everything, which one worker runs, are work for
        several."""
        if cross is None:
            return False
        folds = [self.nodes[k] for k in group if self.kinds[k] == "fold"]
        points = max((n.inputs[0].type.size for n in folds if n is not cross), default=0)
        return points >= max(_SHARED, 16 * cross.inputs[0].type.size)


@dataclass(frozen=True, slots=True)
class Found:
    """A frame before its labels are written out."""

    axes: tuple[int, ...]
    labels: AxisLabels
    cross: Node | None = None


def find_frame(nodes: Sequence[Node], outputs: Sequence[Value]) -> Frame | None:
    """The frame under which `nodes` (in order) form one nest that yields `outputs`, or None where
    there is none."""
    spaces = Spaces(nodes)
    group = range(len(nodes))
    found = spaces.find(group, [v.name for v in outputs], spaces.labels(group))
    if found is None:
        return None
    values = {v.name: v for n in nodes for v in (*n.inputs, *n.outputs)}
    labels = {
        v: tuple([None if x is None else found.labels.root(x) for x in spaces.dims[name]])
        for name, v in values.items()
    }
    return Frame(found.axes, tuple([spaces.sizes[a] for a in found.axes]), labels, found.cross)


def _common(
    labels: AxisLabels, values: Sequence[str], whole: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Axes that all of `values` have, in the order of the first; the whole space of the fold over
    everything where there are no values."""
    if not values:
        return whole
    axes = labels.axes(values[0])
    for v in values[1:]:
        own = labels.axes(v)
        if own != axes:
            axes = tuple([a for a in axes if a in own])
    return axes


def _fits(
    axes: tuple[int, ...], labels: AxisLabels, computed: Sequence[str], outputs: Sequence[str]
) -> bool:
    """Every computed value is a scalar, or runs over the frame and at most one common inner
    space."""
    frame, inner = set(axes), set[int]()
    for v in computed:
        own = labels.axes(v)
        if not own or own == axes:
            continue
        extra = set(own) - frame
        if len(extra) + len(frame) != len(own) or (extra and inner and extra != inner):
            return False
        inner |= extra
    return all(frame.issubset(labels.axes(v)) for v in outputs if labels.axes(v))
