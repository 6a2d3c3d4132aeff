"""From a graph to a plan: one kernel per node or `fused` node, in an order that keeps little
alive at once.

    %2 = fused %x, %w { … yield %2 }            kernel k0
    %3 = fused %2, %v { … yield %3 }    ──▶       for i < 64, j < 512 { … %2[i,j] = … }
    return y=%3                                 kernel k1
                                                  for i < 64 { … y[i] = … }

Results become arguments of the entry point; a result `update.NAME` is written over the state's
NAME by the kernel that computes it where no read can be disturbed, and copied at the end
otherwise. A `scan` becomes a loop of steps (`scan_loop`). Buffers get no offsets here (`memory/`).
"""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.ir.analysis import UPDATE, updates
from nncompiler.ir.graph import Function, Value
from nncompiler.ir.index_bounds import index_bounds, joined, whole
from nncompiler.ir.kernel import Argument, Buffer, Check, Plan
from nncompiler.ir.model import StateLayout
from nncompiler.passes.fusion.grouping import is_loop, is_view
from nncompiler.passes.lowering.block import Block
from nncompiler.passes.lowering.place import Place
from nncompiler.passes.lowering.rewriting import numbered
from nncompiler.passes.lowering.scan_loop import add_scan
from nncompiler.record import dataclass, field

#: Parameters that live in the state.
IN_STATE = ("param", "state", "slot", "header")


def schedule(function: Function, state: StateLayout) -> Plan:
    """The plan of `function`, kernels in order, buffers without offsets."""
    return _Scheduler(function, state).plan()


@dataclass(slots=True)
class _Scheduler:
    function: Function
    state: StateLayout
    block: Block = field(default_factory=lambda: Block({}))
    late: list[tuple[str, Value]] = field(default_factory=list)

    def plan(self) -> Plan:
        arguments = self._parameters() + self._results()
        in_place = updates(self.function)
        for node in self.function.nodes:
            if is_view(node):
                self.block.view(node)
            elif is_loop(node):
                add_scan(self.block, node)
            else:
                refused = self.block.add_kernel(node, in_place)
                self.late += [(old.name, new) for old, new in refused]
        for target, value in self._saved(self.late):
            old = [v for v in self._old() if v.name == target]
            self.block.copy(Place(target), value, overwrites=old)
        steps = numbered(self.block.steps())
        return Plan(
            self.function.name, tuple(arguments), tuple(self.block.buffers.values()), steps,
            state_bytes=self.state.bytes, checks=tuple(self._checks()),
        )  # fmt: skip

    def _parameters(self) -> list[Argument]:
        arguments = []
        for p in self.function.params:
            name, type = p.value.name, p.value.type
            if p.kind in IN_STATE:
                buffer = Buffer(name, type, "state", self.state.entry(name).offset)
            else:
                buffer = Buffer(name, type, "argument")
                arguments.append(Argument(name, "target" if p.kind == "target" else "input"))
            self.block.places[p.value] = [self.block.new_buffer(name, buffer)]
        return arguments

    def _results(self) -> list[Argument]:
        """Buffers of the results; a value that cannot be computed right there is copied at the
        end."""
        arguments, buffers, places = [], self.block.buffers, self.block.places
        in_place = updates(self.function)
        views = {n.output for n in self.function.nodes if is_view(n)}
        views |= {v for n in self.function.nodes if is_loop(n) for v in n.outputs}  # of stacks
        for name, value in self.function.results:
            if name.startswith(UPDATE):
                if value not in in_place or value in views:
                    entry = self.state.entry(name.removeprefix(UPDATE))
                    buffers.setdefault(
                        entry.name, Buffer(entry.name, entry.type, "state", entry.offset)
                    )
                    self.late.append((entry.name, value))
                continue
            target = name if name not in buffers else f"{name}.out"
            buffers[target] = Buffer(target, value.type, "argument")
            arguments.append(Argument(target, "output"))
            if value in places or value in views:
                self.late.append((target, value))
            else:
                places[value] = [Place(target)]
        return arguments

    def _saved(self, copies: Sequence[tuple[str, Value]]) -> list[tuple[str, Value]]:
        """Copies at the end, each from bytes that no write disturbs: old state is saved in the
        arena first."""
        found = []
        for target, value in copies:
            if self.block.root(value) in self._old():
                kept = Value(f"{value.name}.old", value.type)
                self.block.copy(self.block.at(kept)[0], value, makes=[kept])
                value = kept
            found.append((target, value))
        return found

    def _old(self) -> frozenset[Value]:
        return frozenset(self.function.params_of(*IN_STATE))

    def _checks(self) -> list[Check]:
        """Indices that come straight from an argument are range-checked by the entry point."""
        bounds = index_bounds(self.function)
        arguments = self.function.params_of("input", "target")
        return [
            Check(v.name, extent, () if part == whole(v.shape) else part)
            for v in arguments
            for part, extent in joined(bounds.get(v, {}))
        ]
