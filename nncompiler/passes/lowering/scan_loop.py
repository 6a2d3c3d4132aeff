"""A `scan` as a loop of plan steps.

A carry is a stack with one row more than the scan has steps: step t reads row t and writes row t
+ 1 (a reverse scan reads row t + 1 and writes row t). So no step overwrites what it reads,
nothing is copied from step to step, and the values that training saves are this very stack.

    %3, %4 = scan %xs, %h0, %w {        kernel k0: carry[0,i,j] = %h0[i,j]
      …                          ──▶    loop t < 5 {
      yield h=%1, y=%1                    kernel k1: carry[t+1,i,j] = tanh(xs[i,t,j] + …)
    }                                   }
"""

from __future__ import annotations

from nncompiler.ir.graph import Node, Value
from nncompiler.ir.kernel import Buffer, Loop
from nncompiler.ir.ops.scan import ScanParts, scan_parts
from nncompiler.ir.scalar import Affine
from nncompiler.passes.fusion.grouping import is_loop, is_view
from nncompiler.passes.lowering.block import Block, Item
from nncompiler.passes.lowering.place import Place
from nncompiler.record import dataclass


def add_scan(outer: Block, node: Node) -> None:
    """Append the steps of a scan to a block: the first rows of the carries, then the loop."""
    _ScanLoop(outer, scan_parts(node)).add()


@dataclass(slots=True)
class _ScanLoop:
    outer: Block
    s: ScanParts

    @property
    def name(self) -> str:
        return f"{self.outer.prefix}{self.s.node.outputs[0].name}"

    @property
    def counter(self) -> Affine:
        return Affine.axis(f"t{self.name.count('.')}")

    @property
    def reads_at(self) -> Affine:
        return self.counter + (1 if self.s.reverse else 0)

    @property
    def writes_at(self) -> Affine:
        return self.counter + (0 if self.s.reverse else 1)

    def add(self) -> None:
        s, outer = self.s, self.outer
        sequences, starts, captured = s.split(s.node.inputs)
        steps, carried, shared = s.split(s.params)
        inner = Block(outer.buffers, f"{self.name}.")
        for p, v, axis in zip(steps, sequences, s.axes, strict=True):
            inner.places[p] = [outer.at(v)[0].step(axis, self.counter)]
        for p, v in zip(shared, captured, strict=True):
            inner.places[p] = outer.at(v)
        carries = [self._carry(j, v) for j, v in enumerate(starts)]
        for p, carry in zip(carried, carries, strict=True):
            inner.places[p] = [carry.step(0, self.reads_at)]
        wanted = self._targets(inner, carries)
        copies = [(t, v) for v, ts in wanted.items() for t in ts if not self._computed(v)]
        inner.places.update((v, ts) for v, ts in wanted.items() if self._computed(v))
        for child in s.body.nodes:
            if is_view(child):
                inner.view(child)
            elif is_loop(child):
                add_scan(inner, child)
            else:
                inner.add_kernel(child, {})
        for target, v in copies:
            inner.copy(target, v)
        loop = Loop(self.counter.axes[0], s.extent, inner.steps(), s.reverse, s.recompute)
        reads = frozenset(outer.root(v) for v in s.node.inputs) | frozenset(self._started)
        outer.items.append(Item(loop, reads, frozenset(s.node.outputs)))

    @property
    def _started(self) -> list[Value]:
        return [
            Value(f"{self.name}.carry{j}", v.type)
            for j, v in enumerate(self.s.split(self.s.node.inputs)[1])
        ]

    def _carry(self, j: int, start: Value) -> Place:
        """The stack of a carry; its first row is copied in front of the loop, its last is the
        scan's result."""
        extent, made = self.s.extent, self._started[j]
        type = start.type.with_shape((extent + 1, *start.shape))
        stack = self.outer.new_buffer(made.name, Buffer(made.name, type, "arena"))
        first, last = (extent, 0) if self.s.reverse else (0, extent)
        self.outer.copy(stack.step(0, Affine((), first)), start, makes=[made])
        self._view_of(stack, self.s.node.outputs[j], last)
        return stack

    def _view_of(self, stack: Place, value: Value, row: int) -> None:
        """`value` is what the carry's stack holds from `row` on."""
        per_row = self.outer.buffers[stack.buffer].type.strides[0] * value.dtype.bytes
        name = f"{self.outer.prefix}{value.name}"
        view = Buffer(name, value.type, "view", offset=row * per_row, base=stack.buffer)
        self.outer.places[value] = [self.outer.new_buffer(name, view)]

    def _targets(self, inner: Block, carries: list[Place]) -> dict[Value, list[Place]]:
        """Where each result of a step is to be stored; stacks that a carry holds anyway become
        views of it."""
        s = self.s
        _, carried, _ = s.split(s.params)
        wanted: dict[Value, list[Place]] = {}
        for v, carry in zip(s.next_carries, carries, strict=True):
            wanted.setdefault(v, []).append(carry.step(0, self.writes_at))
        for v, output, axis in zip(
            s.step_results, s.node.outputs[s.carries :], s.out_axes, strict=True
        ):
            if axis == 0 and output not in self.outer.places:
                if v in carried:
                    self._view_of(carries[carried.index(v)], output, int(s.reverse))
                    continue
                if v in s.next_carries:
                    self._view_of(carries[s.next_carries.index(v)], output, int(not s.reverse))
                    continue
            wanted.setdefault(v, []).append(self.outer.at(output)[0].step(axis, self.counter))
        return wanted

    def _computed(self, value: Value) -> bool:
        """Whether a kernel of the body makes the value (parameters, views and results of inner
        scans are copied)."""
        for node in self.s.body.nodes:
            if value in node.outputs:
                return not is_view(node) and not is_loop(node)
        return False
