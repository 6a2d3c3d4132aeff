"""The results as a bar chart in SVG: time per step, each row on a linear scale of its own."""

from __future__ import annotations

from html import escape

from harness.implementation import IMPLEMENTATIONS
from harness.measure import Contestant, Row, Summary
from harness.report import Report, microseconds

WIDTH, LEFT, RIGHT = 760, 150, 130
BAR, GAP, HEAD, TOP = 15, 4, 26, 44
COLOURS = {
    "ours": "#1b7f5c", "torch": "#d9603b", "compile": "#e8a33d", "jax": "#6d6bb3",
    "ort": "#3f88c5", "openvino": "#8d5a97",
}  # fmt: skip
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
    parts: list[str] = []
    y = TOP
    for row in report.rows:
        if row.ours is None:
            continue
        best = (row.best(name) for name in report.peers)
        timed = [("ours", row.threads), *(c for c in best if c is not None)]
        parts += group(row, timed, y)
        y += HEAD + len(timed) * (BAR + GAP) + 8
    title = "Time of one step in µs, shorter is better; the dashed line is the machine's limit"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">',
        f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>",
        f'<rect class="background" width="{WIDTH}" height="{y}"/>',
        f'<text class="title" x="12" y="26">{escape(title)}</text>', *parts, "</svg>\n",
    ])  # fmt: skip


def group(row: Row, timed: list[Contestant], y: int) -> list[str]:
    """The bars of a row, its name above them."""
    medians = {c: Summary.of(row.result.seconds[c]).median for c in timed}
    scale = (WIDTH - LEFT - RIGHT) / max(medians.values())
    parts = [f'<text class="title" x="12" y="{y + 16}">{escape(str(row))}</text>']
    for k, c in enumerate(timed):
        top = y + HEAD + k * (BAR + GAP)
        long = max(1.0, medians[c] * scale)
        label = microseconds(medians[c])
        if c[0] != "ours":
            label += f"  ({row.ratio(c).median:.2f} ×)"
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">'
            f"{escape(IMPLEMENTATIONS[c[0]].title)}</text>",
            f'<rect x="{LEFT}" y="{top}" width="{long:.1f}" height="{BAR}" rx="2" '
            f'fill="{COLOURS[c[0]]}"/>',
            f'<text x="{LEFT + long + 6:.1f}" y="{top + 12}">{label}</text>',
        ]
    x = LEFT + row.limit * scale
    end = y + HEAD + len(timed) * (BAR + GAP)
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{y + HEAD - 2}" y2="{end - 2}"'
    return [*parts, f'<line class="limit" {ends}/>']
