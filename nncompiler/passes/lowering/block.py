"""A block of nodes on its way to steps of a plan: the top level of a function, or the body of a
loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nncompiler.errors import Span
from nncompiler.ir.body import reads_and_writes
from nncompiler.ir.graph import Node, Value
from nncompiler.ir.kernel import Axis, Buffer, For, Kernel, Step, Store
from nncompiler.ir.op import lookup
from nncompiler.ir.scalar import Affine, Expr, Index, Load
from nncompiler.passes.fusion.grouping import has_nest
from nncompiler.passes.lowering.hazards import may_overwrite
from nncompiler.passes.lowering.lower_once import lowered
from nncompiler.passes.lowering.nest_names import AXIS_NAMES
from nncompiler.passes.lowering.order import best_order, root_name
from nncompiler.passes.lowering.place import Place
from nncompiler.record import dataclass, field


@dataclass(frozen=True, slots=True)
class Item:
    """A step to be: the values it reads (views looked through), makes, and the old ones it writes
    over."""

    step: Step
    reads: frozenset[Value]
    makes: frozenset[Value]
    overwrites: frozenset[Value] = frozenset()


@dataclass(slots=True)
class Block:
    """`places` says where values are; a value without a place gets a buffer in the arena, named
    after it.

    `prefix` keeps the buffers of a loop's body apart from those outside; `buffers` is shared by
    all blocks of a plan.
    """

    buffers: dict[str, Buffer]
    prefix: str = ""
    places: dict[Value, list[Place]] = field(default_factory=dict)
    roots: dict[Value, Value] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)

    # --- places ---

    def new_buffer(self, name: str, buffer: Buffer) -> Place:
        self.buffers[name] = buffer
        return Place(name)

    def temporary(self, value: Value) -> Place:
        name = self.prefix + value.name
        return self.new_buffer(name, Buffer(name, value.type, "arena"))

    def at(self, value: Value) -> list[Place]:
        """Where a value is; on first sight, a new buffer."""
        if value not in self.places:
            self.places[value] = [self.temporary(value)]
        return self.places[value]

    def view(self, node: Node) -> None:
        """A reshaped value: the same bytes, in memory by the time it is read."""
        base, name = node.inputs[0], self.prefix + node.output.name
        if self.at(base)[0].inserts:  # a step of a stack need not lie in one piece
            flat = Value(f"{base.name}.flat", base.type)
            self.copy(self.at(flat)[0], base, makes=[flat])
            base = flat
        buffer = Buffer(name, node.output.type, "view", base=self.at(base)[0].buffer)
        self.places[node.output] = [self.new_buffer(name, buffer)]
        self.roots[node.output] = self.root(base)

    def root(self, value: Value) -> Value:
        """The value whose bytes these are."""
        return self.roots.get(value, value)

    # --- steps ---

    def add_kernel(self, node: Node, in_place: Mapping[Value, Value]) -> list[tuple[Value, Value]]:
        """Lower a node or fused group; `in_place` are values to be written over old ones.

        Gives those (old, new) whose write in place would disturb a read: they are in the arena
        instead.
        """
        if has_nest(node):
            return self._add_nest(node, in_place)
        nodes = node.body.nodes if node.body else (node,)
        outputs = [v for _, v in node.body.results] if node.body else list(node.outputs)
        made = {v for n in nodes for v in n.outputs}
        operands = list(dict.fromkeys(v for n in nodes for v in n.inputs if v not in made))
        written = {v: in_place[v] for v in outputs if v in in_place and v not in self.places}
        refused: list[tuple[Value, Value]] = []
        while True:
            places = {v: self.at(v) for v in operands}
            places |= {v: self.at(written[v]) if v in written else self.at(v) for v in outputs}
            body, scratch = lowered(nodes, outputs, places, self._scratch)
            kernel = Kernel("k", body, nodes=tuple(v.name for v in outputs), spans=_spans(nodes))
            unsafe = [v for v, old in written.items() if not self._in_place(kernel, old.name)]
            if not unsafe:
                break
            refused += [(written.pop(v), v) for v in unsafe]
        for v, old in written.items():
            self.places[v] = self.at(old)
        for v in scratch:
            self.temporary(v)
        reads = frozenset(self.root(v) for v in operands)
        self.items.append(Item(kernel, reads, frozenset(outputs), frozenset(written.values())))
        return refused

    def _in_place(self, kernel: Kernel, name: str) -> bool:
        """Whether what is stored to a buffer disturbs no read of it, under another shape neither.
        """
        reads = reads_and_writes(kernel)[0].intersection(self.buffers) - {name}
        viewed = any(root_name(self.buffers, x) == name for x in reads)
        return not viewed and may_overwrite(kernel, name, name)

    def _add_nest(self, node: Node, in_place: Mapping[Value, Value]) -> list[tuple[Value, Value]]:
        """The kernel that an operator writes itself; it never writes over what others read."""
        value = node.output
        target, *others = self.at(value)
        memory = _Memory(node, [self.at(v)[0] for v in node.inputs], target)
        body = lookup(node.op).nest(node, memory)
        kernel = Kernel("k", body, nodes=(value.name,), spans=_spans((node,)))
        reads = frozenset(self.root(v) for v in node.inputs)
        self.items.append(Item(kernel, reads, frozenset((value,))))
        for place in others:
            self.copy(place, value)
        return [(in_place[value], value)] if value in in_place else []

    def _scratch(self, value: Value) -> Place:
        return Place(self.prefix + value.name)

    def copy(
        self,
        target: Place,
        value: Value,
        makes: Iterable[Value] = (),
        overwrites: Iterable[Value] = (),
    ) -> None:
        """A kernel that copies a value."""
        source = self.at(value)[0]
        axes = tuple(Axis(AXIS_NAMES[d], n) for d, n in enumerate(value.shape))
        index = tuple(Affine() if a.extent == 1 else Affine.axis(a.name) for a in axes)
        loops = tuple(a for a in axes if a.extent != 1)
        store = Store(
            target.buffer,
            target.index(index),
            Load(source.buffer, source.index(index), value.dtype),
        )
        body = (For(loops, (store,)),) if loops else (store,)
        kernel = Kernel("k", body, nodes=(value.name,))
        self.items.append(
            Item(kernel, frozenset((self.root(value),)), frozenset(makes), frozenset(overwrites))
        )

    def steps(self) -> tuple[Step, ...]:
        """All steps in the best order found."""
        return tuple(best_order([i.step for i in self.items], self._after(), self.buffers))

    def _after(self) -> list[frozenset[int]]:
        """For every item the items it must follow: makers of what it reads, readers of what it
        overwrites."""
        maker = {v: k for k, i in enumerate(self.items) for v in i.makes}
        found = []
        for k, item in enumerate(self.items):
            need = {maker[v] for v in item.reads if v in maker}
            if item.overwrites:
                need |= {m for m, other in enumerate(self.items) if other.reads & item.overwrites}
            found.append(frozenset(need - {k}))
        return found


@dataclass(frozen=True, slots=True)
class _Memory:
    """The operands and the result of a node that writes its own nest (`ir.op.Memory`)."""

    node: Node
    places: Sequence[Place]
    target: Place

    def load(self, k: int, index: Sequence[Index]) -> Load:
        place = self.places[k]
        return Load(place.buffer, place.index(tuple(index)), self.node.inputs[k].dtype)

    def result(self, index: Sequence[Index]) -> Load:
        return Load(self.target.buffer, self.target.index(tuple(index)), self.node.output.dtype)

    def store(self, index: Sequence[Index], value: Expr) -> Store:
        return Store(self.target.buffer, self.target.index(tuple(index)), value)


def _spans(nodes: Sequence[Node]) -> tuple[Span, ...]:
    return tuple(dict.fromkeys(n.span for n in nodes if n.span))
