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
from nncompiler.ir.kernel import Fold, For, Kernel, Plan, Schedule, Stmt, Store
from nncompiler.ir.op import lookup
from nncompiler.ir.scalar import Load
from nncompiler.passes.fuse import Fuse
from nncompiler.passes.grouping import is_view
from nncompiler.passes.manager import run_passes
from nncompiler.passes.schedule import schedule
from nncompiler.report.cost import (
    NOWHERE,
    FunctionCost,
    KernelCost,
    LineCost,
    Profile,
    Report,
    Work,
)
from nncompiler.report.traffic import traffic

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
        self.groups = {tuple(v.name for v in n.outputs): _members(n) for n in function.nodes}
        members = [n for group in self.groups.values() for n in group]
        self.makers = {v: n for n in members for v in n.outputs}
        self.forward = self._forward()
        self.homes = self._homes()
        self.kernels = [(k, self._shares(k)) for k in plan.kernels()]

    def _forward(self) -> set[Value]:
        """Values a loss or output needs; the walk back ends at parameters, also updated ones."""
        results = self.function.results
        made = {v for name, v in results if name.startswith((UPDATE, "grad."))}
        queue = [v for _, v in results if v not in made or self.function.name == "init"]
        seen = set[Value]()
        while queue:
            value = queue.pop()
            if value not in seen and value in self.makers:
                seen.add(value)
                queue.extend(v for v in self.makers[value].inputs if v not in made)
        return seen

    def _homes(self) -> dict[Value, list[str]]:
        """The buffers that the schedule may have given to a value."""
        homes = {v: [v.name] for n in self.function.nodes for v in (*n.inputs, *n.outputs)}
        for name, value in self.function.results:
            target = name.removeprefix(UPDATE)
            homes.setdefault(value, []).extend((target, f"{target}.out"))
        roots = {n: self.plan.root(n).name for n in self.plan.table()}
        return {v: [roots[n] for n in names if n in roots] for v, names in homes.items()}

    def _shares(self, kernel: Kernel) -> list[tuple[Node, Work]]:
        """The work of a kernel by nodes: bytes go to the first reader or the maker, else the last.
        """
        copy = is_copy(kernel)
        members = self._copied(kernel) if copy else self.groups[kernel.nodes]
        bills = [Work() if copy else _arithmetic(n) for n in members]
        readers: dict[str, int] = {}
        makers: dict[str, int] = {}
        for k, node in enumerate(members):
            for v in node.inputs:
                for home in self.homes.get(v, ()):
                    readers.setdefault(home, k)
            for v in node.outputs:
                makers.update(dict.fromkeys(self.homes.get(v, (v.name,)), k))
        moved, last = traffic(kernel, self.plan), len(members) - 1
        for name, count in moved.read.items():
            bills[readers.get(name, last)] += Work(read=count)
        for name, count in moved.written.items():
            bills[makers.get(name, last)] += Work(written=count)
        return list(zip(members, bills, strict=True))

    def _copied(self, kernel: Kernel) -> tuple[Node, ...]:
        """The node whose value a kernel copies; one without a place where that is a parameter."""
        found = tuple(n for v, n in self.makers.items() if v.name in kernel.nodes)
        return found[:1] or (Node("copy", (), ()),)

    def line(self, node: Node) -> int:
        return _line(node.span, self.source)

    def is_forward(self, node: Node) -> bool:
        return any(v in self.forward for v in node.outputs)


def _members(node: Node) -> tuple[Node, ...]:
    return node.body.nodes if node.op == "fused" and node.body else (node,)


def _line(span: Span | None, source: str) -> int:
    return span.line if span is not None and span.file == source else NOWHERE


def _computes(node: Node) -> bool:
    """Whether the operator computes something, rather than only moves data or counts."""
    operator = lookup(node.op)
    return not operator.cheap and operator.kind != "view"


def _arithmetic(node: Node) -> Work:
    if not _computes(node):
        return Work()
    count = lookup(node.op).operations(node)
    contract = lookup(node.op).kind == "contract"
    return Work(multiply_adds=count) if contract else Work(elements=count)


def is_copy(kernel: Kernel) -> bool:
    """A kernel that only moves one buffer to another."""
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], For):
        body = body[0].body
    return len(body) == 1 and isinstance(body[0], Store) and isinstance(body[0].value, Load)


# --- one function ---


def _summary(c: Compilation, accounts: _Accounts) -> FunctionCost:
    function, plan = accounts.function, accounts.plan
    graph = c.graphs[function.name]
    pipeline = [Fuse(max_nodes=1) if isinstance(p, Fuse) else p for p in c.options.pipeline]
    unfused = schedule(run_passes(graph, pipeline), c.layout)
    moved = [traffic(k, unfused).bytes for k in unfused.kernels()]
    return FunctionCost(
        function.name, len(graph.nodes), sum(not is_view(n) for n in function.nodes),
        kernels=len(accounts.kernels),
        work=sum((work for _, shares in accounts.kernels for _, work in shares), Work()),
        unfused_kernels=len(moved), unfused_bytes=sum(moved),
        arena_bytes=plan.arena_bytes, bound=plan.bound,
    )  # fmt: skip


def _profile(c: Compilation, accounts: _Accounts) -> Profile:
    network = c.network
    rows = {k: LineCost(k, text.rstrip()) for k, text in enumerate(c.source.text.splitlines(), 1)}
    rows[NOWHERE] = LineCost(NOWHERE, "")
    spans = dict(network.parameter_spans)
    for name, type in network.parameters:
        line = _line(spans.get(name), network.source)
        rows[line] = replace(rows[line], parameters=rows[line].parameters + type.size)
    for kernel, shares in accounts.kernels:
        for node, work in shares:
            line = accounts.line(node)
            rows[line] = _charged(rows[line], node, work, kernel.name, accounts.is_forward(node))
    if rows[NOWHERE] == LineCost(NOWHERE, ""):
        del rows[NOWHERE]
    kernels = tuple(_kernel(k, shares, accounts) for k, shares in accounts.kernels)
    return Profile(accounts.function.name, tuple(rows.values()), kernels)


def _charged(row: LineCost, node: Node, work: Work, kernel: str, forward: bool) -> LineCost:
    if (not _computes(node) and work == Work()) or node.op == "constant":
        return row
    kernels = row.kernels if kernel in row.kernels else (*row.kernels, kernel)
    if forward:
        return replace(row, forward=row.forward + work, kernels=kernels)
    return replace(row, backward=row.backward + work, kernels=kernels)


def _kernel(
    kernel: Kernel, shares: Sequence[tuple[Node, Work]], accounts: _Accounts
) -> KernelCost:
    nodes = [n for n, _ in shares]
    if is_copy(kernel):
        operators: tuple[str, ...] = ("copy",)
    else:
        nodes = [n for n in nodes if _computes(n)] or nodes
        operators = tuple(n.op for n in nodes)
    lines = sorted({accounts.line(n) for n in nodes} - {NOWHERE})
    return KernelCost(
        kernel.name, tuple(lines), operators, space(kernel.body), describe(kernel.schedule),
        sum((w for _, w in shares), Work()),
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
