"""Graphs and plans as drawings in the language of Graphviz."""

from __future__ import annotations

from collections.abc import Mapping

from nncompiler.ir.body import reads_and_writes
from nncompiler.ir.graph import Function, Node
from nncompiler.ir.kernel import Kernel, Loop, Plan, Step

_COLOURS = {
    "input": "#cfe8ff", "target": "#ffe3c2", "param": "#d8f5d0", "state": "#c9f0ec",
    "slot": "#eadcf8", "header": "#eeeeee", "gradient": "#ffd6d6", "operand": "#ffffff",
}  # fmt: skip


def draw(found: Mapping[str, Function | Plan]) -> str:
    """One digraph, with a cluster for each function or plan."""
    lines = [
        "digraph nn {",
        "  rankdir=TB;",
        '  node [shape=box, fontname="monospace", fontsize=10];',
    ]
    for number, (name, value) in enumerate(found.items()):
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quote(name)};"]
        body = (
            _graph(value, f"f{number}")
            if isinstance(value, Function)
            else _plan(value, f"f{number}")
        )
        lines += [f"    {line}" for line in body]
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _graph(function: Function, scope: str) -> list[str]:
    """Parameters, nodes and results; an edge for every use of a value, labelled with its type."""
    lines, where = [], {}
    for k, p in enumerate(function.params):
        where[p.value] = f"{scope}_p{k}"
        colour = _COLOURS[p.kind]
        label = f"{p.kind} %{p.value.name}\n{p.value.type}"
        lines.append(f'{scope}_p{k} [label={_quote(label)}, style=filled, fillcolor="{colour}"];')
    for k, node in enumerate(function.nodes):
        lines.append(f"{scope}_n{k} [label={_quote(_title(node))}];")
        for value in dict.fromkeys(node.inputs):
            lines.append(f"{where[value]} -> {scope}_n{k} [label={_quote(str(value.type))}];")
        where.update((v, f"{scope}_n{k}") for v in node.outputs)
    for k, (name, value) in enumerate(function.results):
        lines.append(f"{scope}_r{k} [label={_quote(name)}, shape=oval];")
        lines.append(f"{where[value]} -> {scope}_r{k} [label={_quote(str(value.type))}];")
    return lines


def _title(node: Node) -> str:
    names = ", ".join(f"%{v.name}" for v in node.outputs)
    if node.op == "constant" and not node.output.type.rank:
        names += f" = {node.attr('value')}"
    body = "" if node.body is None else "\n" + "\n".join(n.op for n in node.body.nodes)
    place = f"\n{node.span}" if node.span else ""
    return f"{node.op} {names}{body}{place}"


def _plan(plan: Plan, scope: str) -> list[str]:
    """Kernels in order, with an edge from the last writer of a buffer to each of its readers."""
    lines: list[str] = []
    writer: dict[str, str] = {}
    sources: dict[str, str] = {}

    def source(buffer: str) -> str:
        """Where the bytes of `buffer` come from: the kernel that wrote them, or the outside."""
        owner = plan.root(buffer)
        if owner.name in writer:
            return writer[owner.name]
        if owner.name not in sources:
            sources[owner.name] = f"{scope}_b{len(sources)}"
            label = f"{owner.space} {owner.name}\n{owner.type}"
            lines.append(f"{sources[owner.name]} [label={_quote(label)}, shape=oval];")
        return sources[owner.name]

    def visit(steps: tuple[Step, ...], depth: str) -> None:
        for step in steps:
            match step:
                case Loop(counter=counter, extent=extent, body=body):
                    visit(body, f"{depth}{counter} < {extent}: ")
                case Kernel():
                    kernel(step, depth)

    def kernel(step: Kernel, depth: str) -> None:
        here = f"{scope}_k_{len(lines)}"
        places = "\n".join(dict.fromkeys(f"{s.file}:{s.line}" for s in step.spans))
        title = f"{depth}{step.name}: {step.schedule.strategy}\n{places}".rstrip("\n")
        reads, writes = reads_and_writes(step)
        found = {name: source(name) for name in sorted(reads)}
        lines.append(f"{here} [label={_quote(title)}];")
        for name, origin in found.items():
            label = f"{name}\n{plan.buffer(name).type}"
            lines.append(f"{origin} -> {here} [label={_quote(label)}];")
        writer.update((plan.root(name).name, here) for name in writes)

    visit(plan.steps, "")
    return lines


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
