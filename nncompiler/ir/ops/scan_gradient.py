"""The gradient of `scan`: a scan in the other direction over what the forward steps saved.

The forward scan is given further stacks: the values its reverse needs (saved, not computed again,
unless they are mere data movement). With `recompute` these are its carries and what is stacked
anyway; from them each reverse step first computes the other values of its forward step.

A captured weight's gradient is a sum over steps: where the step's share is a contraction, a sum
or a scatter, its operands are stacked and the sum over all steps is one such node behind the loop;
any other share is a carry.
"""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.ir.graph import Builder, Function, Node, Param, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.ops.common import Cotangents, Grads, integer
from nncompiler.ir.ops.contract import spec_of
from nncompiler.ir.ops.contract_spec import make_spec
from nncompiler.ir.ops.scan import ScanParts, emit_scan, scan_parts
from nncompiler.ir.scalar import Affine
from nncompiler.ir.sweep import backpropagate, unbroadcast
from nncompiler.record import dataclass, field, replace


def scan_gradient(b: Builder, node: Node, cotangents: Cotangents) -> Grads:
    """Cotangents of all operands; replaces `node` in the builder by one that also stacks what the
    reverse reads."""
    s = scan_parts(node)
    reverse = _Reverse(s, cotangents)
    return reverse.emit(b)


@dataclass(slots=True)
class _Reverse:
    """Building the reverse scan. `joint` holds the body followed by its gradient."""

    s: ScanParts
    cotangents: Cotangents
    joint: Builder = field(init=False)
    forward: dict[Value, Node] = field(init=False)
    seeds_carry: list[tuple[int, Value]] = field(default_factory=list)
    seeds_stack: list[tuple[int, Value]] = field(default_factory=list)
    found: dict[Value, Value] = field(default_factory=dict)
    stacks: dict[Value, None] = field(default_factory=dict)

    def emit(self, b: Builder) -> Grads:
        s = self.s
        self._differentiate()
        steps, carries, captured = s.split(s.params)
        grads = {p: self.found[p] for p in s.params if p in self.found}
        hoisted = {p: v for p, v in grads.items() if p in captured and self._can_hoist(v)}
        summed = [p for p in captured if p in grads and p not in hoisted]
        accumulators = {p: self.joint.operand(f"sum.{p.name}", p.type) for p in summed}
        for p in summed:
            grads[p] = self.joint.emit(
                "add", accumulators[p], unbroadcast(self.joint, grads[p], p)
            )
        for v in hoisted.values():
            self._stack_operands(v)
        stepped = {grads[p] for p in steps if p in grads}  # stacked anyway
        made = [v for v in self.stacks if v not in (*self.forward, *s.params, *stepped)]
        carry_out = [self._carry_cotangent(j) for j, _ in self.seeds_carry]
        outputs = [
            *carry_out,
            *(grads[p] for p in summed),
            *(grads[p] for p in steps if p in grads),
            *made,
        ]
        stacks = [v for v in self.stacks if v in self.forward or v in carries]
        kept = self._save(b, stacks, self._saved(outputs, stacks))
        results = self._loop(
            b,
            accumulators,
            outputs,
            kept,
            [s.axes[steps.index(p)] for p in steps if p in grads],
            made,
        )
        return self._results(b, results, grads, summed, hoisted, kept, made)

    # --- the body and its gradient ---

    def _differentiate(self) -> None:
        s = self.s
        self.joint = Builder.extending(s.body)
        self.forward = {v: n for n in s.body.nodes for v in n.outputs}
        seeds: dict[Value, Value] = {}
        for j, v in enumerate(s.next_carries):
            if v.dtype.is_float:
                d = self.joint.operand(f"d.carry{j}", v.type)
                self.seeds_carry.append((j, d))
                self._add_seed(seeds, v, d)
        for j, v in enumerate(s.step_results):
            if v.dtype.is_float and self.cotangents[s.carries + j] is not None:
                d = self.joint.operand(f"d.stack{j}", v.type)
                self.seeds_stack.append((j, d))
                self._add_seed(seeds, v, d)
        wanted = [p for p in s.params if p.dtype.is_float]
        sums = backpropagate(self.joint, s.body.nodes, seeds, wanted)
        self.found = {p: sums[p] for p in wanted if p in sums}

    def _add_seed(self, seeds: dict[Value, Value], value: Value, seed: Value) -> None:
        seeds[value] = self.joint.emit("add", seeds[value], seed) if value in seeds else seed

    def _carry_cotangent(self, j: int) -> Value:
        """The cotangent a step hands to the step before it, for carry `j`."""
        _, carries, _ = self.s.split(self.s.params)
        found = self.found.get(carries[j])
        return self.joint.full(0.0, carries[j].type) if found is None else found

    # --- sums over steps behind the loop ---

    def _maker(self, value: Value) -> Node | None:
        return next((n for n in self.joint.nodes if value in n.outputs), None)

    def _can_hoist(self, value: Value) -> bool:
        """Whether a step's share is a contraction or sum of values that change from step to
        step."""
        node = self._maker(value)
        if node is None or value in self.forward:
            return False
        if node.op == "add":
            return (
                all(self._can_hoist(v) for v in node.inputs)
                and node.inputs[0].shape == node.inputs[1].shape
            )
        if node.op == "reshape":
            return self._can_hoist(node.inputs[0])
        if node.op == "contract":
            return spec_of(node).is_bare and all(self._varies(v) for v in node.inputs)
        return node.op in ("reduce_sum", "scatter_add") and all(map(self._varies, node.inputs))

    def _varies(self, value: Value) -> bool:
        _, _, captured = self.s.split(self.s.params)
        node = self._maker(value)
        return value not in captured and (node is None or node.op not in ("constant", "iota"))

    def _stack_operands(self, value: Value) -> None:
        node = self._maker(value)
        assert node is not None
        if node.op in ("add", "reshape"):
            for v in node.inputs:
                self._stack_operands(v)
        else:
            self.stacks.update(dict.fromkeys(node.inputs))

    def _hoist(self, b: Builder, value: Value, stack_of: dict[Value, tuple[Value, int]]) -> Value:
        """The sum over all steps of a step's share, from stacked operands."""
        node = self._maker(value)
        assert node is not None
        if node.op == "add":
            left, right = (self._hoist(b, v, stack_of) for v in node.inputs)
            return b.emit("add", left, right)
        if node.op == "reshape":
            return b.emit("reshape", self._hoist(b, node.inputs[0], stack_of), shape=value.shape)
        operands = [stack_of[v] for v in node.inputs]
        if node.op == "reduce_sum":
            (stack, axis), reduced = operands[0], node.ints("axes")
            axes = sorted([axis, *(a + (a >= axis) for a in reduced)])
            total = b.emit("reduce_sum", stack, axes=tuple(axes), keepdims=False)
            return (
                total
                if total.shape == value.shape
                else b.emit("reshape", total, shape=value.shape)
            )
        if node.op == "scatter_add":
            (parts, at), (indices, steps) = operands
            axis = integer(node, "axis")
            # the steps come in front of the indices in both, so they are looked up step by step
            parts, indices = _moved(b, parts, at, axis), _moved(b, indices, steps, 0)
            extent = integer(node, "extent")
            return b.emit("scatter_add", parts, indices, axis=axis, extent=extent)
        spec = spec_of(node)
        t = next(name for n in range(99) if (name := f"t{n}") not in spec.axes)
        maps = [
            (*m[:axis], Affine.axis(t), *m[axis:])
            for m, (_, axis) in zip(spec.operands, operands, strict=True)
        ]
        sizes = {**dict(spec.extents([v.shape for v in node.inputs])), t: self.s.extent}
        whole = make_spec(tuple(maps), list(spec.output), sizes)
        return b.emit("contract", *(v for v, _ in operands), spec=str(whole))

    # --- what the forward scan saves ---

    def _saved(self, outputs: Sequence[Value], stacks: Sequence[Value]) -> list[Value]:
        """Forward values the reverse body reads: carries, and computed ones that are not mere data
        movement, or where they are recomputed those that are stacked anyway."""
        s = self.s
        carries = {*s.split(s.params)[1], *stacks, *(s.next_carries if s.recompute else ())}
        needed: dict[Value, None] = {}
        queue, seen = list(outputs), set[Value]()
        while queue:
            v = queue.pop()
            if v in seen:
                continue
            seen.add(v)
            node = self.forward.get(v) or self._maker(v)
            costly = v in self.forward and node is not None and not lookup(node.op).cheap
            if v in carries or (costly and not s.recompute):
                needed[v] = None
            elif node is not None:
                queue.extend(node.inputs)
        return sorted(needed, key=lambda v: self._position(v))

    def _position(self, value: Value) -> int:
        order = [*self.s.params, *(v for n in self.s.body.nodes for v in n.outputs)]
        return order.index(value)

    def _save(
        self, b: Builder, stacks: Sequence[Value], saved: Sequence[Value]
    ) -> dict[Value, Value]:
        """Give the forward scan a stack (axis 0) for each value; gives the stacks."""
        s, wanted = self.s, list(dict.fromkeys([*saved, *stacks]))
        results = (*s.body.results, *((f"saved.{v.name}", v) for v in wanted))
        body = replace(s.body, results=results)
        attrs = dict(s.node.attrs) | {"out_axes": (*s.out_axes, *(0 for _ in wanted))}
        attrs.pop("recompute", None)  # said of the reverse from now on
        fresh = tuple(Value(b.fresh(), v.type.with_shape((s.extent, *v.shape))) for v in wanted)
        at = next(k for k, n in enumerate(b.nodes) if n.outputs == s.node.outputs)
        b.nodes[at] = replace(
            s.node,
            body=body,
            attrs=tuple(sorted(attrs.items())),
            outputs=(*s.node.outputs, *fresh),
        )
        return dict(zip(wanted, fresh, strict=True))

    # --- the reverse scan ---

    def _loop(
        self,
        b: Builder,
        accumulators: dict[Value, Value],
        outputs: Sequence[Value],
        kept: dict[Value, Value],
        axes: Sequence[int],
        made: Sequence[Value],
    ) -> tuple[Value, ...]:
        """Emit the reverse scan; gives its results."""
        s = self.s
        x_params, _, captured = s.split(s.params)
        x_values, _, captured_values = s.split(s.node.inputs)
        sequences: list[tuple[Value, int, Value]] = []
        for j, d in self.seeds_stack:
            cotangent = self.cotangents[s.carries + j]
            assert cotangent is not None
            sequences.append((d, s.out_axes[j], cotangent))
        sequences += [(v, 0, stack) for v, stack in kept.items()]
        sequences += [(p, a, v) for p, a, v in zip(x_params, s.axes, x_values, strict=True)]
        carried = [d for _, d in self.seeds_carry] + list(accumulators.values())
        params = [*(p for p, _, _ in sequences), *carried, *captured]
        body = Function(
            "body", tuple(Param("operand", p) for p in params), self._nodes(outputs, set(params)),
            tuple((f"r{k}", v) for k, v in enumerate(outputs)),
        )  # fmt: skip
        starts = [
            self.cotangents[j] or b.full(0.0, s.node.outputs[j].type) for j, _ in self.seeds_carry
        ] + [b.full(0.0, p.type) for p in accumulators]
        return emit_scan(
            b, body, [(v, a) for _, a, v in sequences], starts, captured_values,
            [*axes, *(0 for _ in made)], s.extent, not s.reverse, s.recompute,
        )  # fmt: skip

    def _nodes(self, outputs: Sequence[Value], given: set[Value]) -> tuple[Node, ...]:
        """The nodes of the joint body that `outputs` need, given the parameters."""
        needed, kept = set(outputs) - given, []
        for node in reversed(self.joint.nodes):
            if any(v in needed and v not in given for v in node.outputs):
                kept.append(node)
                needed.update(v for v in node.inputs if v not in given)
        return tuple(reversed(kept))

    def _results(
        self,
        b: Builder,
        results: Sequence[Value],
        grads: dict[Value, Value],
        summed: Sequence[Value],
        hoisted: dict[Value, Value],
        kept: dict[Value, Value],
        made: Sequence[Value],
    ) -> Grads:
        """Results of the reverse scan as cotangents of the operands, in order."""
        s = self.s
        steps, carries, captured = s.split(s.params)
        left = iter(results)
        by_param: dict[Value, Value] = {carries[j]: next(left) for j, _ in self.seeds_carry}
        by_param.update((p, next(left)) for p in summed)
        by_param.update((p, next(left)) for p in steps if p in grads)
        stack_of = {v: (stack, 0) for v, stack in kept.items()}
        stepped = ((p, a) for p, a in zip(steps, s.axes, strict=True) if p in grads)
        stack_of.update((grads[p], (by_param[p], a)) for p, a in stepped)
        stack_of.update((v, (next(left), 0)) for v in made)
        x_values, _, _ = s.split(s.node.inputs)
        stack_of.update((p, (v, a)) for p, v, a in zip(steps, x_values, s.axes, strict=True))
        by_param.update((p, self._hoist(b, v, stack_of)) for p, v in hoisted.items())
        return [by_param.get(p) for p in s.params]


def _moved(b: Builder, value: Value, source: int, target: int) -> Value:
    """`value` with its axis `source` at `target`, the others in order."""
    perm = [d for d in range(value.type.rank) if d != source]
    perm.insert(target, source)
    return b.emit("transpose", value, perm=tuple(perm)) if source != target else value
