"""Which nodes a kernel implements, and the work of each; kernels of loops with all their rounds.

A loop of a plan is a `scan` of the graph: its kernels belong to the nodes of the scan's body,
whose values have names of their own. Bytes go to the first node that reads a buffer, or to the one
that makes it, else to the kernel's last node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from nncompiler.ir.analysis import UPDATE
from nncompiler.ir.body import stores
from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.kernel import For, Kernel, Loop, Plan, Step, Store
from nncompiler.ir.nests import contraction
from nncompiler.ir.op import lookup
from nncompiler.ir.ops.scan import scan_parts
from nncompiler.ir.scalar import Load
from nncompiler.passes.fusion.grouping import is_loop
from nncompiler.record import dataclass, field, replace
from nncompiler.report.cost import Work
from nncompiler.report.traffic import traffic

Names: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """The nodes of a kernel, each with its work in all of the kernel's `calls`."""

    kernel: Kernel
    calls: int
    nodes: tuple[tuple[Node, Work], ...]
    forward: bool | None
    """Of a kernel in a loop: whether the whole loop is forward."""

    @property
    def work(self) -> Work:
        return sum((work for _, work in self.nodes), Work())


def repeated(steps: Sequence[Step], calls: int = 1) -> Iterator[tuple[Kernel, int]]:
    """Every kernel with the number of times that it runs."""
    for step in steps:
        if isinstance(step, Loop):
            yield from repeated(step.body, calls * step.extent)
        else:
            yield step, calls


def shares(function: Function, plan: Plan, forward: frozenset[Value]) -> list[Share]:
    """Of every kernel of `plan`, in order; `forward` are the values that are."""
    homes = {v: [v.name] for n in function.nodes for v in (*n.inputs, *n.outputs)}
    for name, value in function.results:
        target = name.removeprefix(UPDATE)
        homes.setdefault(value, []).extend((target, f"{target}.out"))
    roots = {n: plan.root(n).name for n in plan.table()}
    scope = _Scope(function.nodes, homes, "", plan, roots, forward, 1, None)
    return list(scope.whole(plan.steps))


#: Stands for a kernel that only copies an argument: no node of the graph does.
_COPY = "copy"


@dataclass(slots=True)
class _Scope:
    """The nodes of a function, or of the body of a loop that runs `calls` times.

    `homes` are the buffers that the schedule may have given to a value. In a loop over tiles,
    `rounds` of them compute a node together. `parts` are the kernels that compute nodes together.
    """

    nodes: Sequence[Node]
    homes: Mapping[Value, Sequence[str]]
    prefix: str
    plan: Plan
    roots: Mapping[str, str]
    forward: frozenset[Value]
    calls: int
    direction: bool | None
    rounds: int = 1
    parts: Mapping[Names, Sequence[Kernel]] = field(default_factory=dict)

    def whole(self, steps: Sequence[Step]) -> Iterator[Share]:
        """All steps of the function or body."""
        parts: dict[Names, list[Kernel]] = {}
        for kernel in self.kernels(steps):
            if not is_copy(kernel):
                parts.setdefault(kernel.nodes, []).append(kernel)
        return replace(self, parts=parts).walk(steps)

    def kernels(self, steps: Sequence[Step]) -> Iterator[Kernel]:
        """Those of nodes of this scope."""
        for step in steps:
            if isinstance(step, Kernel):
                yield step
            elif self.scan(step) is None:
                yield from self.kernels(step.body)

    def walk(self, steps: Sequence[Step]) -> Iterator[Share]:
        groups = {tuple(v.name for v in n.outputs): members(n) for n in self.nodes}
        makers = {v: n for group in groups.values() for n in group for v in n.outputs}
        for step in steps:
            if isinstance(step, Loop):
                node = self.scan(step)
                if node is None:
                    yield from replace(self, rounds=self.rounds * step.extent).walk(step.body)
                else:
                    yield from self.inside(step, node).whole(step.body)
                continue
            nodes = () if is_copy(step) else joined(groups, step.nodes)
            bills = [self.arithmetic(step, n) for n in nodes]
            if not nodes:
                found = tuple(n for v, n in makers.items() if v.name in step.nodes)
                nodes, bills = found[:1] or (Node(_COPY, (), ()),), [Work()]
            moved = [Work()] * len(nodes)
            self.charge(step, nodes, moved)
            pairs = zip(nodes, bills, moved, strict=True)
            calls = self.calls * self.rounds
            whole = tuple((n, w * self.calls + m * calls) for n, w, m in pairs)
            yield Share(step, calls, whole, self.direction)

    def arithmetic(self, kernel: Kernel, node: Node) -> Work:
        """What a kernel computes of a node. Of several that compute it together, as those of a
        convolution by transforms do, the one that sums products has the multiply-adds, and the
        last one all else.
        """
        work, parts = arithmetic(node), self.parts.get(kernel.nodes, (kernel,))
        here = parts[-1]
        if work.multiply_adds:
            here = next((k for k in parts if contraction(k) is not None), here)
        return work if kernel is here else Work()

    def charge(self, kernel: Kernel, nodes: Sequence[Node], bills: list[Work]) -> None:
        """Add the bytes of one call."""
        readers: dict[str, int] = {}
        makers: dict[str, int] = {}
        for k, node in enumerate(nodes):
            for v in node.inputs:
                for home in self.places(v):
                    readers.setdefault(home, k)
            for v in node.outputs:
                makers.update(dict.fromkeys(self.places(v) or [v.name], k))
        moved, last = traffic(kernel, self.plan), len(nodes) - 1
        for name, count in moved.read.items():
            bills[readers.get(name, last)] += Work(read=count)
        for name, count in moved.written.items():
            bills[makers.get(name, last)] += Work(written=count)

    def places(self, value: Value) -> list[str]:
        names = self.homes.get(value, ())
        return [self.roots[n] for n in names if n in self.roots]

    def inside(self, loop: Loop, node: Node) -> _Scope:
        """The scope of the body of a scan that became a loop."""
        s = scan_parts(node)
        prefix = f"{self.prefix}{node.outputs[0].name}."
        local = [v for n in s.body.nodes for v in (*n.inputs, *n.outputs)]
        homes = {v: [f"{prefix}{v.name}"] for v in local}
        for param, value in zip(s.params, node.inputs, strict=True):
            homes[param] = list(self.homes.get(value, ()))
        carries = [f"{prefix}carry{j}" for j in range(s.carries)]
        for param, carry in zip(s.split(s.params)[1], carries, strict=True):
            homes[param] = [carry]
        for v, carry in zip(s.next_carries, carries, strict=True):
            homes.setdefault(v, []).append(carry)
        for v, output in zip(s.step_results, node.outputs[s.carries :], strict=True):
            homes.setdefault(v, []).extend(self.homes.get(output, ()))
        direction = self.direction
        if direction is None:
            direction = any(v in self.forward for v in node.outputs)
        return _Scope(
            s.body.nodes, homes, prefix, self.plan, self.roots, self.forward,
            self.calls * loop.extent, direction,
        )  # fmt: skip

    def scan(self, loop: Loop) -> Node | None:
        """The node that became `loop`: the one whose carries or results it stores, if any."""
        written = {s.buffer for kernel, _ in repeated((loop,)) for s in stores(kernel)}
        for node in self.nodes:
            if is_loop(node):
                prefix = f"{self.prefix}{node.outputs[0].name}."
                own = {name for v in node.outputs for name in self.homes.get(v, ())}
                if own & written or any(name.startswith(prefix) for name in written):
                    return node
        return None


def joined(groups: Mapping[Names, tuple[Node, ...]], names: Names) -> tuple[Node, ...]:
    """The nodes of the groups whose outputs, one group behind the other, are these; of a kernel
    that computes several. None where that is not what they are.
    """
    for n in range(len(names), 0, -1):
        if names[:n] in groups:
            rest = joined(groups, names[n:])
            if rest or n == len(names):
                return *groups[names[:n]], *rest
    return ()


def members(node: Node) -> tuple[Node, ...]:
    """The nodes of a group."""
    return node.body.nodes if node.op == "fused" and node.body else (node,)


def computes(node: Node) -> bool:
    """Whether the operator computes something, rather than only moves data or counts."""
    if node.op == _COPY:
        return False
    operator = lookup(node.op)
    return not operator.cheap and operator.kind != "view"


def arithmetic(node: Node) -> Work:
    if not computes(node):
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
