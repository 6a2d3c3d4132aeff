"""Which nodes may share one kernel: iteration spaces as labels on dimensions.

Dimensions that run together (by `Operator.dims`) get one label; dimensions of extent 1 get none.
A group of nodes has one nest if its labels admit a *frame*: the parallel axes that every computed
value has. A softmax over rows has frame (i) and inner axis (j); an elementwise chain has all its
axes as frame; a contraction's frame are its output's axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from nncompiler.ir.graph import Node, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.scalar import PRIMITIVES
from nncompiler.record import dataclass

#: Elements to fold that are worth a kernel of their own, which workers share.
_SHARED = 1 << 15
#: Dimensions that run together share a number.
Labels: TypeAlias = "tuple[int | None, ...]"


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


def label_dimensions(nodes: Sequence[Node], through_operands: bool = True) -> dict[Value, Labels]:
    """The label of every dimension of every value the nodes touch; None for extent 1.

    With `through_operands`, two readers of one outside value run over the same axes; without,
    only values made inside tie axes together (a product of a matrix with its own transpose needs
    that).
    """
    made = {v.name for n in nodes for v in n.outputs}
    values: dict[str, Value] = {}  # by name, whose hash is there already
    first: dict[str, int] = {}  # union-find over dimensions: a value's have numbers in a row
    parent: list[int] = []
    for node in nodes:
        for v in (*node.inputs, *node.outputs):
            if v.name not in first:
                values[v.name], first[v.name] = v, len(parent)
                parent += range(len(parent), len(parent) + len(v.type.shape))
        for k, d, e in lookup(node.op).dims(node):
            v = node.inputs[k]
            if v.type.shape[d] != 1 and (through_operands or v.name in made):
                a, b = first[v.name] + d, first[node.output.name] + e
                parent[_root(parent, a)] = _root(parent, b)
    return {
        v: tuple([
            None if n == 1 else _root(parent, x)
            for x, n in enumerate(v.type.shape, first[name])
        ])
        for name, v in values.items()
    }


def _root(parent: list[int], x: int) -> int:
    while (up := parent[x]) != x:
        parent[x] = x = parent[up]
    return x


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


def find_frame(nodes: Sequence[Node], outputs: Sequence[Value]) -> Frame | None:
    """The frame under which `nodes` (in order) form one nest that yields `outputs`, or None where
    there is none."""
    contracts = [n for n in nodes if lookup(n.op).kind == "contract"]
    folds = [n for n in nodes if lookup(n.op).kind == "fold"]
    if len(contracts) > 1 or (contracts and folds):
        return None
    made = {v: n for n in nodes for v in n.outputs}
    if any(lookup(n.op).leaf_only(n) and any(_computed(made, v) for v in n.inputs) for n in nodes):
        return None
    for through_operands in (True, False):
        labels = label_dimensions(nodes, through_operands)
        if any(_repeats(labels[v]) for v in made):
            continue
        if contracts:
            found = _contract_frame(nodes, made, contracts[0], outputs, labels)
        else:
            found = _loop_frame(nodes, folds, outputs, labels)
        if found:
            return found
    return None


def rows_are_large(frame: Frame, nodes: Sequence[Node]) -> bool:
    """Whether folds within a fold over everything, which one worker runs, are work for several."""
    if frame.cross is None:
        return False
    rows = [n for n in nodes if lookup(n.op).kind == "fold" and n is not frame.cross]
    points = max((n.inputs[0].type.size for n in rows), default=0)
    return points >= max(_SHARED, 16 * frame.cross.inputs[0].type.size)


def _repeats(labels: Labels) -> bool:
    present = [x for x in labels if x is not None]
    return len(set(present)) != len(present)


def _axes(labels: Labels) -> tuple[int, ...]:
    return tuple(x for x in labels if x is not None)


def _frame(
    axes: tuple[int, ...], labels: dict[Value, Labels], cross: Node | None = None
) -> Frame:
    extents = {
        x: v.shape[d] for v, ls in labels.items() for d, x in enumerate(ls) if x is not None
    }
    return Frame(axes, tuple(extents[a] for a in axes), labels, cross)


def _contract_frame(
    nodes: Sequence[Node],
    made: Mapping[Value, Node],
    anchor: Node,
    outputs: Sequence[Value],
    labels: dict[Value, Labels],
) -> Frame | None:
    """One contraction, then elementwise work on its result: the epilogue. Its operands must be in
    memory."""
    axes = _axes(labels[anchor.output])
    after = {anchor.output}
    for node in nodes:
        if node is anchor:
            continue
        if any(v in after for v in node.inputs):
            after.update(node.outputs)
        elif not lookup(node.op).cheap and _axes(labels[node.output]) not in ((), axes):
            # beside the tile only scalars, or work on the very elements of the tile (a slot times
            # its decay)
            return None
    if any(v in after for v in anchor.inputs) or any(_computed(made, v) for v in anchor.inputs):
        return None
    if any(_axes(labels[v]) != axes for v in outputs):
        return None
    if any(not set(_axes(labels[v])) <= set(axes) for v in after):
        return None
    return _frame(axes, labels)


def _computed(made: Mapping[Value, Node], value: Value) -> bool:
    """Whether arithmetic inside the group (not mere data movement) makes `value`."""
    maker = made.get(value)
    if maker is None:
        return False
    return not lookup(maker.op).cheap or any(_computed(made, v) for v in maker.inputs)


def _loop_frame(
    nodes: Sequence[Node],
    folds: Sequence[Node],
    outputs: Sequence[Value],
    labels: dict[Value, Labels],
) -> Frame | None:
    heavy = [v for n in nodes if not lookup(n.op).cheap for v in n.outputs]
    for cross in (*[f for f in folds if not _axes(labels[f.output])], None):
        after = _scalars_after(nodes, cross, labels)
        if after is None:
            continue
        rows = [f for f in folds if f is not cross]
        inside = [v for v in outputs if v not in after]
        # scalars are computed and stored in front of the loops: they do not narrow the frame
        spread = [v for v in inside if _axes(labels[v])] or inside
        axes = _common(labels, [f.output for f in rows] + spread, cross)
        if axes is None or (cross and set(axes) != set(_axes(labels[cross.inputs[0]]))):
            continue
        if cross and not axes:
            continue
        if _fits(axes, labels, [v for v in heavy if v not in after], inside):
            return _frame(axes, labels, cross)
    return None


def _scalars_after(
    nodes: Sequence[Node], cross: Node | None, labels: dict[Value, Labels]
) -> set[Value] | None:
    """The result of `cross` and what follows from it; None where that is not all scalars."""
    if cross is None:
        return set()
    after = set(cross.outputs)
    for node in nodes:
        if any(v in after for v in node.inputs):
            after.update(node.outputs)
    return after if all(not _axes(labels[v]) for v in after) else None


def _common(
    labels: dict[Value, Labels], values: Sequence[Value], cross: Node | None
) -> tuple[int, ...] | None:
    """Axes that all of `values` have, in the order of the first; the axes of the fold where there
    are no values."""
    if not values:
        return _axes(labels[cross.inputs[0]]) if cross else None
    axes = _axes(labels[values[0]])
    for v in values[1:]:
        own = set(_axes(labels[v]))
        axes = tuple(a for a in axes if a in own)
    return axes


def _fits(
    axes: tuple[int, ...],
    labels: dict[Value, Labels],
    computed: Sequence[Value],
    outputs: Sequence[Value],
) -> bool:
    """Every computed value is a scalar, or runs over the frame and at most one common inner
    space."""
    frame, inner = set(axes), set[int]()
    for v in computed:
        own = set(_axes(labels[v]))
        if not own:
            continue
        if not own >= frame:
            return False
        extra = own - frame
        if extra and inner and extra != inner:
            return False
        inner |= extra
    return all(set(_axes(labels[v])) >= frame for v in outputs if _axes(labels[v]))
