"""From a graph to a plan: one kernel per node or `fused` node, in an order that keeps little alive at once.

    %2 = fused %x, %w { … yield %2 }            kernel k0
    %3 = fused %2, %v { … yield %3 }    ──▶       for i < 64, j < 512 { … %2[i,j] = … }
    return y=%3                                 kernel k1
                                                  for i < 64 { … y[i] = … }

Results become arguments of the entry point; a result `update.NAME` is written over the state's NAME by the kernel that
computes it where no read can be disturbed, and copied at the end otherwise. Buffers get no offsets here (`memory`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nncompiler.errors import CompilerBug, Span
from nncompiler.ir.analysis import UPDATE, updates
from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.kernel import (
    Argument, Axis, Buffer, Check, For, Kernel, Plan, Store,
)  # fmt: skip
from nncompiler.ir.model import StateLayout
from nncompiler.ir.sampling import index_bounds
from nncompiler.ir.scalar import Affine, Load
from nncompiler.passes.grouping import find_frame, is_view
from nncompiler.passes.hazards import may_overwrite
from nncompiler.passes.lower import AXIS_NAMES, lower_group
from nncompiler.passes.order import best_order


#: Parameters that live in the state.
IN_STATE = ("param", "state", "slot", "header")


def schedule(function: Function, state: StateLayout) -> Plan:
    """The plan of `function`, kernels in order, buffers without offsets."""
    return _Scheduler(function, state).plan()


@dataclass(frozen=True, slots=True)
class _Item:
    """A kernel to be: the values it reads (views looked through), makes, and the old ones it writes over."""

    kernel: Kernel
    reads: frozenset[Value]
    makes: frozenset[Value]
    overwrites: frozenset[Value] = frozenset()


@dataclass(slots=True)
class _Scheduler:
    function: Function
    state: StateLayout
    buffers: dict[str, Buffer] = field(default_factory=dict)
    place: dict[Value, str] = field(default_factory=dict)
    items: list[_Item] = field(default_factory=list)
    late: list[tuple[str, Value]] = field(default_factory=list)
    root: dict[Value, Value] = field(default_factory=dict)

    def plan(self) -> Plan:
        arguments = self._parameters() + self._results()
        self._views()
        in_place = updates(self.function)
        for node in self.function.nodes:
            if not is_view(node):
                self._node(node, in_place)
        for target, value in self._saved(self.late):
            self._copy(target, value)
        kernels = best_order([i.kernel for i in self.items], self._after(), self.buffers)
        numbered = tuple(
            Kernel(f"k{n}", k.body, k.schedule, k.nodes, k.spans) for n, k in enumerate(kernels)
        )
        return Plan(
            self.function.name, tuple(arguments), tuple(self.buffers.values()), numbered,
            state_bytes=self.state.bytes, checks=tuple(self._checks()),
        )  # fmt: skip

    # --- buffers ---

    def _parameters(self) -> list[Argument]:
        arguments = []
        for p in self.function.params:
            name, type = p.value.name, p.value.type
            if p.kind in IN_STATE:
                self.buffers[name] = Buffer(name, type, "state", self.state.entry(name).offset)
            else:
                self.buffers[name] = Buffer(name, type, "argument")
                arguments.append(Argument(name, "target" if p.kind == "target" else "input"))
            self.place[p.value] = name
        return arguments

    def _results(self) -> list[Argument]:
        """Buffers of the results; a value that cannot be computed right there is copied at the end."""
        arguments = []
        views = {n.output for n in self.function.nodes if is_view(n)}
        for name, value in self.function.results:
            if name.startswith(UPDATE):
                if value not in updates(self.function) or value in views:
                    self._state_target(name)
                    self.late.append((name.removeprefix(UPDATE), value))
                continue
            target = name if name not in self.buffers else f"{name}.out"
            self.buffers[target] = Buffer(target, value.type, "argument")
            arguments.append(Argument(target, "output"))
            if value in self.place or value in views:
                self.late.append((target, value))
            else:
                self.place[value] = target
        return arguments

    def _state_target(self, name: str) -> None:
        entry = self.state.entry(name.removeprefix(UPDATE))
        self.buffers.setdefault(entry.name, Buffer(entry.name, entry.type, "state", entry.offset))

    def _views(self) -> None:
        for node in self.function.nodes:
            if is_view(node):
                base = self._buffer(node.inputs[0])
                self.buffers[node.output.name] = Buffer(node.output.name, node.output.type, "view", base=base)
                self.place[node.output] = node.output.name
                self.root[node.output] = self.root.get(node.inputs[0], node.inputs[0])

    def _buffer(self, value: Value) -> str:
        """The buffer of a value, a new one in the arena on first sight."""
        if value not in self.place:
            self.place[value] = value.name
            self.buffers[value.name] = Buffer(value.name, value.type, "arena")
        return self.place[value]

    # --- kernels ---

    def _node(self, node: Node, in_place: dict[Value, Value]) -> None:
        nodes = node.body.nodes if node.body else (node,)
        outputs = [v for _, v in node.body.results] if node.body else list(node.outputs)
        frame = find_frame(nodes, outputs)
        if frame is None:
            raise CompilerBug("NN0492", f"the group that makes {node.outputs[0]} has no iteration frame")
        written = {v: in_place[v] for v in outputs if v in in_place and v not in self.place}
        while True:
            names = {v: self._buffer(v) for n in nodes for v in n.inputs if self._outer(v, nodes)}
            names |= {v: written[v].name if v in written else self._buffer(v) for v in outputs}
            body, scratch = lower_group(nodes, outputs, frame, names)
            kernel = Kernel("k", body, nodes=tuple(v.name for v in outputs), spans=_spans(nodes))
            unsafe = [v for v, old in written.items() if not may_overwrite(kernel, old.name, old.name)]
            if not unsafe:
                break
            for v in unsafe:
                self.late.append((written.pop(v).name, v))
        for v, old in written.items():
            self.place[v] = old.name
        for v in scratch:
            self.buffers[v.name] = Buffer(v.name, v.type, "arena")
        reads = frozenset(self._root(v) for n in nodes for v in n.inputs if self._outer(v, nodes))
        self.items.append(_Item(kernel, reads, frozenset(outputs), frozenset(written.values())))

    def _root(self, value: Value) -> Value:
        return self.root.get(value, value)

    def _outer(self, value: Value, nodes: Sequence[Node]) -> bool:
        return all(value not in n.outputs for n in nodes)

    def _saved(self, copies: Sequence[tuple[str, Value]]) -> list[tuple[str, Value]]:
        """Copies at the end, each from bytes that no write disturbs: old state is saved in the arena first."""
        found = []
        for target, value in copies:
            if self.buffers[self.place[self._root(value)]].space == "state" and self._root(value) in self._old():
                kept = Value(f"{value.name}.old", value.type)
                self.buffers[kept.name] = Buffer(kept.name, kept.type, "arena")
                self.place[kept] = kept.name
                self._copy(kept.name, value, kept)
                value = kept
            found.append((target, value))
        return found

    def _old(self) -> frozenset[Value]:
        """Parameters that live in the state."""
        return frozenset(self.function.params_of(*IN_STATE))

    def _copy(self, target: str, value: Value, makes: Value | None = None) -> None:
        """A kernel that copies a value."""
        source = self._buffer(value)
        axes = tuple(Axis(AXIS_NAMES[d], n) for d, n in enumerate(value.shape))
        index = tuple(Affine() if a.extent == 1 else Affine.axis(a.name) for a in axes)
        loops = tuple(a for a in axes if a.extent != 1)
        store = Store(target, index, Load(source, index, value.dtype))
        body = (For(loops, (store,)),) if loops else (store,)
        kernel = Kernel("k", body, nodes=(value.name,))
        overwrites = frozenset(v for v in self._old() if v.name == target)
        self.items.append(
            _Item(kernel, frozenset((self._root(value),)), frozenset((makes,) if makes else ()), overwrites)
        )

    def _after(self) -> list[frozenset[int]]:
        """For every item the items it must follow: makers of what it reads, readers of what it overwrites."""
        maker = {v: k for k, i in enumerate(self.items) for v in i.makes}
        found = []
        for k, item in enumerate(self.items):
            need = {maker[v] for v in item.reads if v in maker}
            need |= {m for m, other in enumerate(self.items) if other.reads & item.overwrites}
            found.append(frozenset(need - {k}))
        return found

    def _checks(self) -> list[Check]:
        """Indices that come straight from an argument are range-checked by the entry point."""
        bounds = index_bounds(self.function)
        arguments = self.function.params_of("input", "target")
        return [Check(v.name, bounds[v]) for v in arguments if v in bounds]


def _spans(nodes: Sequence[Node]) -> tuple[Span, ...]:
    return tuple(dict.fromkeys(n.span for n in nodes if n.span))
