"""Graphs as pictures: boxes for inputs, parameters and operators, ranks downwards.

The SVG is self-contained, needs no scripts, and follows the light or dark scheme of its reader.
Scalar constants stand in the operator that takes them; bodies of regions are drawn inside their
node. Nodes of one call in the source stand in a frame that bears its text, where no other node is
between them. Hovering tells type, attributes and source line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.text import function_lines
from nncompiler.ir.text.scan import literal_text
from nncompiler.record import dataclass
from nncompiler.report.calls import runs
from nncompiler.report.frames import Group, frames
from nncompiler.report.layers import Edge, Placed, Point, place

_CHARACTER = 6.7  # width of a character at 11 px
_SMALL = 6.1  # and of one at 10 px
_LINE = 14.0
_GAP = 40.0  # between ranks: room for the type of a value and the text of a frame
_MARGIN = 14.0
_LABELS = {
    "input": "input", "target": "target", "param": "parameter", "state": "state",
    "slot": "optimizer", "header": "step, rate", "gradient": "gradient", "operand": "operand",
    "node": "operator", "result": "result",
}  # fmt: skip
_LIGHT = {
    "input": "#cfe8ff", "target": "#ffe3c2", "param": "#d3f2ca", "state": "#c9f0ec",
    "slot": "#eadcf8", "header": "#eeeeee", "gradient": "#ffd6d6", "operand": "#eeeeee",
    "node": "#ffffff", "result": "#fff3b0",
}  # fmt: skip
_DARK = {
    "input": "#1d4468", "target": "#6a4517", "param": "#27552a", "state": "#1b5450",
    "slot": "#4b3566", "header": "#3a3a3a", "gradient": "#6b2b2b", "operand": "#3a3a3a",
    "node": "#26282c", "result": "#5c5010",
}  # fmt: skip


def _style() -> str:
    light = "".join(f".g .{kind}{{fill:{colour}}}" for kind, colour in _LIGHT.items())
    dark = "".join(f".g .{kind}{{fill:{colour}}}" for kind, colour in _DARK.items())
    return (
        ".g text{font:11px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1c1c1c}"
        ".g .name{font-weight:bold}.g .dim{fill:#666}.g .head{font:bold 14px sans-serif}"
        ".g rect{stroke:#8a8f98;stroke-width:1}.g .page{fill:#fff;stroke:none}"
        ".g .frame{fill:#f1f4f9;stroke:none}.g .outline{stroke:#ccd3de;stroke-width:2}"
        ".g .call{fill:#3b5b8c;font-size:10px;paint-order:stroke;stroke:#f1f4f9;stroke-width:3px}"
        ".g .edge{fill:none;stroke:#7c828c;stroke-width:1.1}.g .tip{fill:#7c828c;stroke:none}"
        ".g .type{font-size:10px;fill:#555;paint-order:stroke;stroke:#fff;stroke-width:3px}"
        f"{light}@media(prefers-color-scheme:dark){{"
        ".g text{fill:#e6e6e6}.g .dim{fill:#a0a4ab}.g .page{fill:#16181c}"
        ".g .frame{fill:#1f232a}.g .outline{stroke:#3a414d}"
        ".g .call{fill:#8fb4ee;stroke:#1f232a}"
        ".g .type{fill:#b5bac2;stroke:#16181c}"
        f"{dark}}}"
    )


@dataclass(frozen=True, slots=True)
class _Box:
    """What is drawn at one place. `inner` is the drawing of a region, with its size."""

    kind: str
    lines: tuple[str, ...]
    about: str
    width: float
    height: float
    inner: tuple[str, Point] | None = None


def draw(functions: Mapping[str, Function], title: str) -> str:
    """One picture of all functions, one below the other, each under its name."""
    parts: list[str] = []
    y, wide = _MARGIN, 0.0
    for name, function in functions.items():
        body, (w, h) = _graph(function)
        parts.append(_text(_MARGIN, y + 14, f"{title}: {name}", "head"))
        parts.append(_legend(function, y + 26))
        parts.append(f'<g transform="translate({_MARGIN:.1f},{y + 66:.1f})">{body}</g>')
        y += h + 66 + 2 * _MARGIN
        wide = max(wide, w, 7.6 * len(f"{title}: {name}"), _legend_width(function))
    width, height = wide + 2 * _MARGIN, y
    head = (
        f'<svg class="g" xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
    )
    page = f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>'
    return "\n".join([head, f"<style>{_style()}</style>", page, *parts, "</svg>"]) + "\n"


def _kinds(function: Function) -> list[str]:
    found = dict.fromkeys(p.kind for p in function.params)
    return [*found, "node", "result"]


def _legend_width(function: Function) -> float:
    return sum(len(_LABELS[k]) * _CHARACTER + 30 for k in _kinds(function))


def _legend(function: Function, y: float) -> str:
    parts, x = [], _MARGIN
    for kind in _kinds(function):
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="12" height="12"/>')
        parts.append(_text(x + 17, y + 10, _LABELS[kind], "dim"))
        x += len(_LABELS[kind]) * _CHARACTER + 30
    return "".join(parts)


# --- one function ---


def _graph(function: Function) -> tuple[str, Point]:
    """The drawing of a function, and its size."""
    constants = {n.output: _literal(n) for n in function.nodes if n.op == "constant"}
    nodes = [n for n in function.nodes if n.op != "constant"]
    boxes = [_param(p.kind, p.value) for p in function.params]
    texts = {id(shown): text.strip() for text, shown in function_lines(function).found}
    boxes += [_node(n, constants, texts[id(n)]) for n in nodes]
    makers = {p.value: k for k, p in enumerate(function.params)}
    reads: list[tuple[Value, int]] = []
    for k, node in enumerate(nodes, len(function.params)):
        reads += [(v, k) for v in dict.fromkeys(node.inputs) if v not in constants]
        makers.update((v, k) for v in node.outputs)
    for name, value in function.results:
        text = f"{name} = {constants[value]}" if value in constants else name
        reads += [] if value in constants else [(value, len(boxes))]
        boxes.append(_box("result", (text,), f"result {name}: {value.type}"))
    ports = {v: _port(k, len(n.outputs)) for n in nodes for k, v in enumerate(n.outputs)}
    edges = [
        Edge(makers[v], k, ports.get(v, 0.5) * boxes[makers[v]].width - boxes[makers[v]].width / 2)
        for v, k in reads
    ]
    late = _independent(boxes, edges)
    placed = place([(b.width, b.height) for b in boxes], edges, late, _GAP)
    numbers = {id(n): k for k, n in enumerate(nodes, len(function.params))}
    groups = [(span, [numbers[id(n)] for n in group]) for span, group in runs(nodes)]
    frames, calls = _frames(boxes, _with_parameters(groups, boxes, edges), placed)
    drawn = frames + _edges(boxes, reads, edges, placed) + calls
    drawn += [_shape(b, c) for b, c in zip(boxes, placed.corners, strict=True)]
    return "\n".join(drawn), (placed.width, placed.height)


def _independent(boxes: Sequence[_Box], edges: Sequence[Edge]) -> frozenset[int]:
    """Boxes that no input leads to: parameters, targets, what is made of them."""
    leads = {k for k, box in enumerate(boxes) if box.kind in ("input", "operand")}
    for e in edges:
        if e.tail in leads:
            leads.add(e.head)
    return frozenset(range(len(boxes))) - leads


def _literal(node: Node) -> str:
    value = node.attr("value")
    if isinstance(value, (int, float)):
        return literal_text(value, node.output.dtype)
    return str(value)


def _port(number: int, count: int) -> float:
    """Where a result leaves its box, as a share of the width."""
    return (number + 0.5) / count


def _param(kind: str, value: Value) -> _Box:
    about = f"{_LABELS[kind]} %{value.name}: {value.type}"
    return _box(kind, (value.name, str(value.type)), about)


def _node(node: Node, constants: Mapping[Value, str], about: str) -> _Box:
    call = node.op
    if any(v in constants for v in node.inputs):
        call += f"({', '.join(constants.get(v, '·') for v in node.inputs)})"
    names = ", ".join(f"%{v.name}" for v in node.outputs)
    if node.span is not None and node.span.source is not None:
        about += f"\n{node.span.line} | {node.span.source.line(node.span.line).strip()}"
    inner = None if node.body is None else _graph(node.body)
    least = max(len(str(v.type)) * _CHARACTER + 8 for v in node.outputs) * len(node.outputs)
    return _box("node", (call, names), about, inner, least)


def _box(
    kind: str, lines: tuple[str, ...], about: str, inner: tuple[str, Point] | None = None,
    least: float = 0.0,
) -> _Box:  # fmt: skip
    width = max(least, max(map(len, lines)) * _CHARACTER + 16)
    height = len(lines) * _LINE + 10
    if inner is not None:
        (w, h) = inner[1]
        width, height = max(width, w + 2 * _MARGIN), height + h + 2 * _MARGIN
    return _Box(kind, lines, about, width, height, inner)


# --- shapes ---


def _shape(box: _Box, corner: Point) -> str:
    x, y = corner
    radius = 11 if box.kind == "result" else 3
    parts = [
        f"<g><title>{escape(box.about)}</title>",
        f'<rect class="{box.kind}" x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{radius}"/>',
    ]
    for k, line in enumerate(box.lines):
        kind = "dim" if k else "name"
        place = y + 5 + _LINE * (k + 0.78)
        parts.append(_text(x + box.width / 2, place, line, kind, ' text-anchor="middle"'))
    parts.append("</g>")
    if box.inner is not None:
        body, (w, _) = box.inner
        left, top = x + (box.width - w) / 2, y + len(box.lines) * _LINE + 10 + _MARGIN / 2
        parts.append(f'<g transform="translate({left:.1f},{top:.1f})">{body}</g>')
    return "".join(parts)


def _edges(
    boxes: Sequence[_Box], reads: Sequence[tuple[Value, int]], edges: Sequence[Edge],
    placed: Placed,
) -> list[str]:  # fmt: skip
    """Edges with their tips; the type of a value once, where its first edge begins."""
    drawn, labels, said = [], [], set[Value]()
    for (value, _), edge, route in zip(reads, edges, placed.routes, strict=True):
        x, y = route[-1]
        drawn.append(f'<path class="edge" d="{_curve(route[:-1] + ((x, y - 5),))}"/>')
        drawn.append(f'<path class="tip" d="M{x - 3.5:.1f},{y - 6:.1f}h7l-3.5,6z"/>')
        if boxes[edge.tail].kind == "node" and value not in said:
            said.add(value)
            x, y = route[0]
            middle = ' text-anchor="middle"'
            labels.append(_text(x, y + 13, str(value.type), "type", middle))
    return drawn + labels


def _curve(route: Sequence[Point]) -> str:
    """Smooth pieces that leave and arrive vertically."""
    path = f"M{route[0][0]:.1f},{route[0][1]:.1f}"
    for (ax, ay), (bx, by) in pairwise(route):
        if abs(ax - bx) < 0.05:
            path += f"V{by:.1f}"
        else:
            half = (ay + by) / 2
            path += f"C{ax:.1f},{half:.1f} {bx:.1f},{half:.1f} {bx:.1f},{by:.1f}"
    return path


# --- frames ---


def _frames(
    boxes: Sequence[_Box], groups: Sequence[Group], placed: Placed
) -> tuple[list[str], list[str]]:
    """A frame around the boxes of each call, if no other is within; and the texts of the calls."""
    rects = [
        (*c, c[0] + b.width, c[1] + b.height) for b, c in zip(boxes, placed.corners, strict=True)
    ]
    drawn, calls = [], []
    for text, bands in frames(rects, groups, _SMALL):
        for outline in (' class="frame outline"', ' class="frame"'):
            drawn += [
                f'<rect{outline} x="{x:.1f}" y="{y:.1f}" width="{r - x:.1f}" '
                f'height="{b - y:.1f}"><title>{escape(text)}</title></rect>'
                for x, y, r, b in bands
            ]
        left, top, right, _ = bands[0]
        room = int((right - left - 10) / _SMALL)
        shown = text if len(text) <= room else f"{text[: room - 1]}…"
        calls.append(_text(left + 5, top + 11, shown, "call"))
    return drawn, calls


def _with_parameters(
    groups: Sequence[Group], boxes: Sequence[_Box], edges: Sequence[Edge]
) -> list[Group]:
    """Each call with the parameters that only it reads."""
    home = {k: number for number, (_, members) in enumerate(groups) for k in members}
    readers: dict[int, set[int | None]] = {}
    for e in edges:
        if boxes[e.tail].kind in ("param", "state"):
            readers.setdefault(e.tail, set()).add(home.get(e.head))
    whole = [(span, list(members)) for span, members in groups]
    for k, (number, *others) in readers.items():
        if number is not None and not others:
            whole[number][1].append(k)
    return whole


def _text(x: float, y: float, text: str, kind: str, attributes: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'
