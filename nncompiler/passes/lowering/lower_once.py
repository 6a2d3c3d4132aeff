"""Groups of nodes that differ in names alone are lowered once.

Networks repeat their blocks: most groups of a large one are like a group before, and get its nest
under names of their own.

    group of %3, %4 = exp %3       %8[i] = exp(%7[i])
    group of %7, %8 = exp %7  ──▶  lowered before; now %3 is %7 and %4 is %8
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence

from nncompiler.errors import CompilerBug
from nncompiler.ir.fingerprint import with_names
from nncompiler.ir.graph import Node, Value
from nncompiler.ir.kernel import Stmt
from nncompiler.passes.fusion.grouping import find_frame
from nncompiler.passes.lowering.lower import Lowered, lower_group
from nncompiler.passes.lowering.nest_names import ACCUMULATOR, AXIS_NAMES, local_name
from nncompiler.passes.lowering.place import Place
from nncompiler.record import dataclass, field

Places = Mapping[Value, Sequence[Place]]
ScratchPlace = Callable[[Value], Place]

_MOST = 1024
#: A number at the end of a name, as locals have that would else be called the same.
_NUMBER = re.compile(r"(_\d+)+$")
#: Names of locals that have nothing to do with a value, or of axes.
_TAKEN = re.compile(rf"{ACCUMULATOR}|[{AXIS_NAMES}]|x\d+")


def lowered(
    nodes: Sequence[Node], outputs: Sequence[Value], places: Places, scratch_place: ScratchPlace
) -> tuple[tuple[Stmt, ...], tuple[Value, ...]]:
    """The body of the kernel for `nodes`, and the values it keeps in scratch buffers of its own
    (see `lower_group`).
    """
    group = _Group(nodes, outputs, places)
    key = group.key() if group.has_clear_names() else None
    known = None if key is None else _LOWERED.get(key)
    if known is not None:
        return _again(*known, group, scratch_place)
    frame = find_frame(nodes, outputs)
    if frame is None:
        raise CompilerBug("NN0492", f"the group that makes {outputs[0]} has no iteration frame")
    found = lower_group(nodes, outputs, frame, places, scratch_place)
    if key is not None:
        if len(_LOWERED) >= _MOST:
            _LOWERED.clear()
        scratch = tuple([scratch_place(v).buffer for v in found.scratch])
        _LOWERED[key] = found, group.values, (*group.buffers, *scratch)
    return found.body, found.scratch


#: By their keys: what groups were lowered to, their values in order, and their buffers.
_LOWERED: dict[Hashable, tuple[Lowered, list[Value], tuple[str, ...]]] = {}


def _again(
    before: Lowered, values: list[Value], buffers: tuple[str, ...], group: _Group,
    scratch_place: ScratchPlace,
) -> tuple[tuple[Stmt, ...], tuple[Value, ...]]:  # fmt: skip
    """The body for a group like that of `values` over `buffers`."""
    mine = dict(zip([v.name for v in values], group.values, strict=True))
    locals_ = {}
    for name, value in before.locals.items():
        own = name
        if value is not None:
            own = local_name(mine[value.name]) + name[len(local_name(value)) :]
        locals_[name] = own
    scratch = tuple([mine[v.name] for v in before.scratch])
    here = (*group.buffers, *[scratch_place(v).buffer for v in scratch])
    return with_names(before.body, locals_, dict(zip(buffers, here, strict=True))), scratch


@dataclass(slots=True)
class _Group:
    """A group with its values and buffers in order of appearance: two of the same `key` differ in
    the names of both alone.
    """

    nodes: Sequence[Node]
    outputs: Sequence[Value]
    places: Places
    values: list[Value] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    buffers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for v in dict.fromkeys([v for n in self.nodes for v in (*n.inputs, *n.outputs)]):
            self.numbers[v.name] = len(self.values)
            self.values.append(v)

    def key(self) -> Hashable:
        # 0.0 and -0.0 are equal, and so are 1 and 1.0, but not as text
        nodes = [
            (n.op, repr(n.attrs), self._numbers(n.inputs), self._numbers(n.outputs))
            for n in self.nodes
        ]
        types = [(v.type.dtype.name, v.type.shape) for v in self.values]
        places = [self._places(v) for v in self.values]
        return tuple(nodes), tuple(types), tuple(places), self._numbers(self.outputs)

    def _numbers(self, values: Sequence[Value]) -> tuple[int, ...]:
        return tuple([self.numbers[v.name] for v in values])

    def _places(self, value: Value) -> tuple[Hashable, ...]:
        known = self.buffers
        found = self.places.get(value, ())
        return tuple([(known.setdefault(p.buffer, len(known)), p.inserts) for p in found])

    def has_clear_names(self) -> bool:
        """Whether no two locals can come to the same name but for those of one value: then it is
        by the values' names alone how they are called.
        """
        stems = {_NUMBER.sub("", local_name(v)) for v in self.values}
        return len(stems) == len(self.values) and not any(map(_TAKEN.fullmatch, stems))
