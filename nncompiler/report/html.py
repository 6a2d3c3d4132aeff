"""A report as one HTML page: the model, what it costs, its memory and its graph.

The page holds everything it needs: it loads nothing, runs no scripts, and follows the light or
dark scheme of its reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from nncompiler.passes.memory.picture import human_bytes
from nncompiler.report import graph_svg
from nncompiler.report.calls import calls
from nncompiler.report.cost import NOWHERE, FunctionCost, LineCost, Profile, Report
from nncompiler.report.picture import memory_svg
from nncompiler.report.text import number, ranges

if TYPE_CHECKING:
    from nncompiler.driver import Compilation
    from nncompiler.ir.graph import Function

_STYLE = """
:root{color-scheme:light dark;--page:#fff;--text:#1c1e21;--dim:#62666d;--line:#dfe2e7;
--head:#f4f6f9;--bar:#b9d3f5;--back:#f5d3b3;--link:#2a5db0}
@media(prefers-color-scheme:dark){:root{--page:#16181c;--text:#e6e6e6;--dim:#a0a4ab;--line:#33373e;
--head:#1f232a;--bar:#3b639b;--back:#8a5a30;--link:#8fb4ee}}
body{margin:0 auto;padding:24px 28px 60px;max-width:1180px;font:15px/1.5 system-ui,sans-serif;
background:var(--page);color:var(--text)}
h1{margin:0}h2{margin:44px 0 6px;padding-bottom:4px;border-bottom:1px solid var(--line)}
h3{margin:26px 0 4px}p{margin:6px 0 12px;max-width:46em}.dim{color:var(--dim)}
nav a{margin-right:18px;color:var(--link)}
.code{font:13px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.facts{display:flex;flex-wrap:wrap;gap:10px;margin:18px 0}
.fact{border:1px solid var(--line);border-radius:8px;padding:8px 14px;background:var(--head)}
.fact b{display:block;font-size:20px;font-weight:600}.fact span{color:var(--dim);font-size:13px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px}
th{background:var(--head);font-weight:600;text-align:right;vertical-align:bottom}
th,td{padding:3px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
td{text-align:right;font-variant-numeric:tabular-nums}.left{text-align:left}
td.code{white-space:pre-wrap;min-width:6em}td.source{min-width:29em}td.fold{white-space:normal;min-width:9em}
tr.total td{font-weight:600;border-top:2px solid var(--line)}
.bar{display:flex;width:90px;height:11px}.bar i{background:var(--bar)}
.bar i+i,.key.back{background:var(--back)}
.key{display:inline-block;width:11px;height:11px;margin:0 6px 0 0;background:var(--bar)}
.key.back{margin-left:16px}
.picture{overflow:auto;max-height:85vh;border:1px solid var(--line);border-radius:8px}
.picture svg{display:block;margin:0 auto}.memory svg{width:100%;height:auto}
"""


def page(compilation: Compilation, report: Report) -> str:
    """The whole page; functions in detail are the profiles of `report`."""
    title = f"{report.model}: what it costs"
    sizes = "".join(f", {name} {n}" for name, n in report.sizes)
    about = f"{escape(report.source)} · {report.dtype}{escape(sizes)}"
    sections = [
        ("model", "Model", _model(compilation)),
        ("cost", "Cost", _cost(report)),
        ("memory", "Memory", _memory(compilation, report)),
        ("graph", "Graph", _graph(compilation)),
    ]
    links = " ".join(f'<a href="#{key}">{label}</a>' for key, label, _ in sections)
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{escape(report.model)}</h1><p class="dim">{about}</p><nav>{links}</nav>',
        _facts(report),
        *(f'<h2 id="{key}">{label}</h2>\n{body}' for key, label, body in sections),
        "</body></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _facts(report: Report) -> str:
    main = next(f for f in report.functions if f.name == report.profiles[0].function)
    rows = (
        (f"{report.parameters:,}", "parameters"),
        (human_bytes(report.state_bytes), "state: parameters and optimizer"),
        (human_bytes(main.arena_bytes), f"arena of {main.name}"),
        (_short(main.work.flops), f"FLOPs in {main.name}"),
        (human_bytes(main.work.bytes), "moved by its kernels"),
        (f"{main.kernels}", f"kernels, of {main.unfused_kernels} without fusion"),
    )
    cells = (f'<div class="fact"><b>{b}</b><span>{escape(s)}</span></div>' for b, s in rows)
    return f'<div class="facts">{"".join(cells)}</div>'


def _short(count: int) -> str:
    """``14.1 M``: three digits."""
    value = float(count)
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:,.3g} T"


# --- the model ---


def _model(c: Compilation) -> str:
    rows = [
        (_cell(k.line), _code(k.text), _text(str(k.result.type)), _cell(k.size),
         _cell(k.work.multiply_adds), _code(", ".join(v.name for v in k.parameters)))
        for k in calls(_forward(c))
    ]  # fmt: skip
    heads = ("line", "call", "makes", "parameters", "multiply-adds", "names")
    layers = _table(heads, rows, left=(1, 2, 5))
    named = [
        (_code(name), _text(str(type)), _cell(type.size), _cell(type.nbytes))
        for name, type in c.network.parameters
    ]
    held = _table(("parameter", "type", "elements", "bytes"), named, left=(0, 1))
    return (
        "<p>Every call of the forward pass, with the last value it makes and the parameters it "
        f"brings.</p>{layers}<h3>Parameters</h3>{held}"
    )


def _forward(c: Compilation) -> Function:
    """`infer`, or the loss of a model without outputs."""
    functions = {f.name: f for f in c.network.functions}
    return functions.get("infer") or functions["loss"]


# --- cost ---


def _cost(report: Report) -> str:
    parts = [_functions(report.functions)]
    for profile in report.profiles:
        parts += [_lines(profile), _kernels(profile)]
    return "\n".join(parts)


def _functions(functions: Sequence[FunctionCost]) -> str:
    heads = (
        "function", "nodes", "kernels unfused", "kernels", "multiply-adds", "FLOPs",
        "bytes unfused", "bytes moved", "arena bytes", "arena / bound",
    )  # fmt: skip
    rows = []
    for f in functions:
        figures = (
            f.nodes, f.unfused_kernels, f.kernels, f.work.multiply_adds, f.work.flops,
            f.unfused_bytes, f.work.bytes, f.arena_bytes,
        )  # fmt: skip
        rows.append((_text(f.name), *map(_cell, figures), _cell(f"{f.ratio:.3f}")))
    return _table(heads, rows, left=(0,))


def _lines(profile: Profile) -> str:
    heads = ("line", "source", "parameters", "FLOPs", "", "bytes moved", "", "kernels")
    flops = max((x.forward.flops + x.backward.flops for x in profile.lines), default=0)
    moved = max((x.forward.bytes + x.backward.bytes for x in profile.lines), default=0)
    rows = [_line(x, flops, moved) for x in profile.lines]
    rows.append(_line(profile.total, 0, 0))
    key = '<span class="key"></span>forward<span class="key back"></span>backward, optimizer'
    title = f'<h3>{escape(profile.function)}, line by line</h3><p class="dim">{key}</p>'
    return title + _table(heads, rows, left=(1, 4, 6, 7), total=True)


def _line(x: LineCost, flops: int, moved: int) -> tuple[str, ...]:
    """The row of a line; the largest of all costs so many FLOPs, and moves so many bytes."""
    fore, back = x.forward, x.backward
    text = x.text if x.line != NOWHERE or x.text else "(no line)"
    return (
        _cell(x.line), _source(text), _cell(x.parameters),
        _cell(fore.flops + back.flops), _bar(fore.flops, back.flops, flops),
        _cell(fore.bytes + back.bytes), _bar(fore.bytes, back.bytes, moved),
        _fold(ranges(x.kernels)),
    )  # fmt: skip


def _kernels(profile: Profile) -> str:
    flops = max((k.work.flops for k in profile.kernels), default=0)
    moved = max((k.work.bytes for k in profile.kernels), default=0)
    rows = [
        (_text(k.name), _text(", ".join(map(str, k.lines))), _fold(", ".join(k.operators)),
         _fold(f"{k.space or 'one element'} [{k.schedule}]"), _cell(k.work.flops),
         _bar(k.work.flops, 0, flops), _cell(k.work.bytes), _bar(k.work.bytes, 0, moved),
         _cell(f"{k.intensity:.2f}"))
        for k in profile.kernels
    ]  # fmt: skip
    heads = ("kernel", "lines", "operators", "loops [schedule]", "FLOPs", "", "bytes moved", "",
             "FLOP/byte")  # fmt: skip
    title = f"<h3>{escape(profile.function)}, kernel by kernel</h3>"
    return title + _table(heads, rows, left=(0, 1, 2, 3, 5, 7))


# --- pictures ---


def _memory(c: Compilation, report: Report) -> str:
    parts = ["<p>Kernels to the right, addresses upwards, a rectangle for each buffer while it "
             "lives. Hovering tells its name and size.</p>"]  # fmt: skip
    for profile in report.profiles:
        plan = c.plans[profile.function]
        if plan.arena_bytes:
            drawing = memory_svg(plan, f"{report.model}.{profile.function}")
            parts.append(f'<div class="picture memory">{drawing}</div>')
        else:
            parts.append(f"<p>{escape(profile.function)} needs no memory but its arguments.</p>")
    return "\n".join(parts)


def _graph(c: Compilation) -> str:
    function = _forward(c)
    drawing = graph_svg.draw({function.name: function}, c.network.name)
    return (
        "<p>The forward pass as it stands in the source, before any pass. Hovering tells the "
        f'attributes and the source line.</p><div class="picture">{drawing}</div>'
    )


# --- tables ---


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int], total: bool = False
) -> str:
    """Rows of cells under heads, flush right but for those in `left`; the last may be the total.
    """
    tops = (
        f'<th class="left">{h}</th>' if k in left else f"<th>{h}</th>" for k, h in enumerate(heads)
    )
    lines = [f"<tr>{''.join(tops)}</tr>", *(f"<tr>{''.join(row)}</tr>" for row in rows)]
    if total:
        lines[-1] = lines[-1].replace("<tr>", '<tr class="total">', 1)
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _cell(value: int | str) -> str:
    """A figure; nothing for 0."""
    return f"<td>{number(value) if isinstance(value, int) else escape(value)}</td>"


def _text(text: str) -> str:
    return f'<td class="left">{escape(text)}</td>'


def _code(text: str) -> str:
    return f'<td class="left code">{escape(text)}</td>'


def _source(text: str) -> str:
    """A line of the source, as wide as may be."""
    return f'<td class="left code source">{escape(text)}</td>'


def _fold(text: str) -> str:
    """A text that may go on in further lines."""
    return f'<td class="left fold">{escape(text)}</td>'


def _bar(first: int, second: int, most: int) -> str:
    """Two lengths of at most `most` together, side by side."""
    if not most:
        return "<td></td>"
    parts = "".join(f'<i style="width:{100 * n / most:.1f}%"></i>' for n in (first, second))
    return f'<td><div class="bar">{parts}</div></td>'
