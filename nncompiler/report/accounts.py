"""Who pays for what: arithmetic, bytes and kernels of a compilation, charged to source lines.

Arithmetic is counted on the optimised graph, so it is what the network asks for: a multiply-add
per term of a `contract`, an operation per element of every other operator that computes
(`Operator.operations`); moving data counts as bytes only. Bytes are counted on the kernels
(`traffic`) and charged to the nodes that read or make the values. So the lines of a function add
up to its kernels, and its kernels to the function.

A node is *forward* when a loss or an output needs it, and *backward* otherwise: gradients and the
optimizer, which is charged to the line that declares the parameter. Where several objectives share
parameters, what one updated and a later one reads again counts as forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nncompiler.errors import Span
from nncompiler.ir.analysis import UPDATE
from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.kernel import Fold, For, Plan, Schedule, Stmt
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.fusion.grouping import is_view
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.report.cost import (
    NOWHERE,
    FunctionCost,
    KernelCost,
    LineCost,
    Profile,
    Report,
    Work,
)
from nncompiler.report.shares import Share, computes, is_copy, members, repeated, shares
from nncompiler.report.traffic import distances, traffic

if TYPE_CHECKING:
    from nncompiler.driver import Compilation

#: The function a report describes in detail when none is named: the first that the model has.
PREFERRED = ("train_step", "grad", "infer", "loss", "init")


def analyse(compilation: Compilation, functions: Sequence[str] | None = None) -> Report:
    """What every function costs, and in detail `functions` (default: the first of `PREFERRED`)."""
    network, layout, plans = compilation.network, compilation.layout, compilation.plans
    if functions is None:
        functions = [f for f in PREFERRED if f in plans][:1]
    optimised = compilation.optimised
    accounts = {n: _Accounts(optimised[n], plan, network.source) for n, plan in plans.items()}
    return Report(
        network.name, network.source, network.dtype.name, network.sizes,
        parameters=sum(t.size for _, t in network.parameters),
        parameter_bytes=sum(t.nbytes for _, t in network.parameters),
        slot_bytes=sum(e.type.nbytes for e in layout.of_kind("slot")),
        state_bytes=layout.bytes, infer_bytes=layout.infer_bytes,
        functions=tuple(_summary(compilation, a) for a in accounts.values()),
        profiles=tuple(_profile(compilation, accounts[name]) for name in functions),
    )  # fmt: skip


class _Accounts:
    """The kernels of one function, and for each the nodes it implements with their work."""

    def __init__(self, function: Function, plan: Plan, source: str) -> None:
        self.function, self.plan, self.source = function, plan, source
        self.forward = self._forward()
        self.kernels = shares(function, plan, self.forward)

    def _forward(self) -> frozenset[Value]:
        """Values a loss or output needs; the walk back ends at parameters, also updated ones."""
        results = self.function.results
        makers = {v: n for m in self.function.nodes for n in members(m) for v in n.outputs}
        made = {v for name, v in results if name.startswith((UPDATE, "grad."))}
        queue = [v for _, v in results if v not in made or self.function.name == "init"]
        seen = set[Value]()
        while queue:
            value = queue.pop()
            if value not in seen and value in makers:
                seen.add(value)
                queue.extend(v for v in makers[value].inputs if v not in made)
        return frozenset(seen)

    def line(self, node: Node) -> int:
        return _line(node.span, self.source)

    def is_forward(self, share: Share, node: Node) -> bool:
        if share.forward is not None:
            return share.forward
        return any(v in self.forward for v in node.outputs)


def _line(span: Span | None, source: str) -> int:
    return span.line if span is not None and span.file == source else NOWHERE


# --- one function ---


def _summary(c: Compilation, accounts: _Accounts) -> FunctionCost:
    function, plan = accounts.function, accounts.plan
    graph = c.graphs[function.name]
    pipeline = [Fuse(max_nodes=1) if isinstance(p, Fuse) else p for p in c.options.pipeline]
    unfused = schedule(run_passes(graph, pipeline), c.layout)
    moved = [n * traffic(k, unfused).bytes for k, n in repeated(unfused.steps)]
    return FunctionCost(
        function.name, len(graph.nodes), sum(not is_view(n) for n in function.nodes),
        kernels=len(accounts.kernels),
        work=sum((share.work for share in accounts.kernels), Work()),
        unfused_kernels=len(moved), unfused_bytes=sum(moved),
        arena_bytes=plan.arena_bytes, bound=plan.bound,
        recomputing=sum(loop.recompute for loop in plan.loops()),
    )  # fmt: skip


def _profile(c: Compilation, accounts: _Accounts) -> Profile:
    network = c.network
    rows = {k: LineCost(k, text.rstrip()) for k, text in enumerate(c.source.text.splitlines(), 1)}
    rows[NOWHERE] = LineCost(NOWHERE, "")
    spans = dict(network.parameter_spans)
    for name, type in network.parameters:
        line = _line(spans.get(name), network.source)
        rows[line] = replace(rows[line], parameters=rows[line].parameters + type.size)
    for share in accounts.kernels:
        for node, work in share.nodes:
            line, forward = accounts.line(node), accounts.is_forward(share, node)
            rows[line] = _charged(rows[line], node, work, share.kernel.name, forward)
    if rows[NOWHERE] == LineCost(NOWHERE, ""):
        del rows[NOWHERE]
    touched, far = distances(accounts.plan)
    kernels = tuple(
        replace(_kernel(share, accounts), far=far.get(share.kernel.name, 0))
        for share in accounts.kernels
    )
    return Profile(accounts.function.name, tuple(rows.values()), kernels, touched)


def _charged(row: LineCost, node: Node, work: Work, kernel: str, forward: bool) -> LineCost:
    if (not computes(node) and work == Work()) or node.op == "constant":
        return row
    kernels = row.kernels if kernel in row.kernels else (*row.kernels, kernel)
    if forward:
        return replace(row, forward=row.forward + work, kernels=kernels)
    return replace(row, backward=row.backward + work, kernels=kernels)


def _kernel(share: Share, accounts: _Accounts) -> KernelCost:
    kernel, nodes = share.kernel, [n for n, _ in share.nodes]
    if is_copy(kernel):
        operators: tuple[str, ...] = ("copy",)
    else:
        nodes = [n for n in nodes if computes(n)] or nodes
        operators = tuple(n.op for n in nodes)
    lines = sorted({accounts.line(n) for n in nodes} - {NOWHERE})
    return KernelCost(
        kernel.name, tuple(lines), operators, space(kernel.body), describe(kernel.schedule),
        share.work, share.calls,
    )  # fmt: skip


def space(body: Sequence[Stmt]) -> str:
    """The loops of a nest: ``i<64, j<512 { sum k<784 }``."""
    parts = []
    for s in body:
        if isinstance(s, (For, Fold)):
            head = "" if isinstance(s, For) else f"{s.combine} "
            head += ", ".join(f"{a.name}<{a.extent}" for a in s.axes)
            inner = space(s.body)
            parts.append(f"{head} {{ {inner} }}" if inner else head)
    return "; ".join(parts)


def describe(schedule: Schedule) -> str:
    """``contract, vector j, register i, tile 13x8``."""
    parts = [schedule.strategy]
    if schedule.vector:
        parts.append(f"vector {' '.join(schedule.vector)}")
    if schedule.register:
        parts.append(f"register {schedule.register}")
    if schedule.tile:
        parts.append(f"tile {schedule.tile[0]}x{schedule.tile[1]}")
    return ", ".join(parts)
