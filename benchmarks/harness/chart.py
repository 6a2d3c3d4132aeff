"""The results as a bar chart in SVG: time per step, each row on a linear scale of its own."""

from __future__ import annotations

from html import escape

from harness.implementation import IMPLEMENTATIONS
from harness.measure import Result
from harness.report import Report, microseconds

WIDTH, LEFT, RIGHT = 760, 150, 110
BAR, GAP, HEAD, TOP = 15, 4, 26, 44
COLOURS = {"ours": "#1b7f5c", "torch": "#d9603b", "jax": "#6d6bb3"}
OTHERS = "#888888"
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #222 }
  .title { font-weight: 600 }
  .background { fill: #fff }
  .limit { stroke: #222; stroke-dasharray: 2 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .background { fill: #161616 } .limit { stroke: #ddd }
  }
"""


def bars(report: Report) -> str:
    """The chart; a dashed line is the machine's limit."""
    names = ["ours", *report.peers]
    parts: list[str] = []
    y = TOP
    for result in report.results:
        timed = [name for name in names if name in result.timings]
        if timed:
            parts += group(result, timed, y)
            y += HEAD + len(timed) * (BAR + GAP) + 8
    title = "Time of one step in µs, shorter is better; the dashed line is the machine's limit"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">',
        f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>",
        f'<rect class="background" width="{WIDTH}" height="{y}"/>',
        f'<text class="title" x="12" y="26">{escape(title)}</text>', *parts, "</svg>\n",
    ])  # fmt: skip


def group(result: Result, timed: list[str], y: int) -> list[str]:
    """The bars of a row, its name above them."""
    slowest = max(result.timings[name].seconds.median for name in timed)
    scale = (WIDTH - LEFT - RIGHT) / slowest
    parts = [f'<text class="title" x="12" y="{y + 16}">{escape(str(result.row))}</text>']
    for k, name in enumerate(timed):
        timing = result.timings[name]
        top = y + HEAD + k * (BAR + GAP)
        long = max(1.0, timing.seconds.median * scale)
        label = microseconds(timing.seconds.median)
        if name != "ours":
            label += f"  ({timing.ratio.median:.2f} ×)"
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">'
            f"{escape(IMPLEMENTATIONS[name].title)}</text>",
            f'<rect x="{LEFT}" y="{top}" width="{long:.1f}" height="{BAR}" rx="2" '
            f'fill="{COLOURS.get(name, OTHERS)}"/>',
            f'<text x="{LEFT + long + 6:.1f}" y="{top + 12}">{label}</text>',
        ]
    x = LEFT + result.limit * scale
    end = y + HEAD + len(timed) * (BAR + GAP)
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{y + HEAD - 2}" y2="{end - 2}"'
    return [*parts, f'<line class="limit" {ends}/>']
