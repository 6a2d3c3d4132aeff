"""A memory plan as a picture: time to the right, offsets upwards, one rectangle for each interval.

The SVG is self-contained and needs no scripts. Hovering over a rectangle shows its name, size,
offset and live range.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from nncompiler.passes.allocation import Interval, Problem, Solution, live_bound

_PALETTE = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f", "#ff9da7")
_DARK = {"#4e79a7", "#59a14f", "#e15759", "#b07aa1", "#9c755f"}
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 150, 46, 52
_CHARACTER = 6.2  # width of a label's character at 10 px
_STYLE = (
    "text{font:10px sans-serif;fill:#222}.h{font:bold 14px sans-serif}.s{fill:#555}.w{fill:#fff}"
    "rect.b{stroke:#fff;stroke-width:.6}rect.b:hover{stroke:#000;stroke-width:1.5}"
    ".g{stroke:#ddd}.a{stroke:#444}.p{stroke:#c00;stroke-width:1.5}"
    ".l{stroke:#06c;stroke-width:1.5;stroke-dasharray:6 4}"
)

Scale = Callable[[float], float]


def human_bytes(count: float) -> str:
    """``512 B``, ``1.5 KiB``, ``12 MiB``: at most one decimal."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f}".removesuffix(".0") + f" {unit}"
        count /= 1024
    return f"{count:.1f}".removesuffix(".0") + " TiB"


def svg(
    problem: Problem,
    solution: Solution,
    title: str = "Memory plan",
    time_label: str = "kernel",
    width: int = 1100,
    height: int = 620,
) -> str:
    """The picture of a valid solution; `time_label` says what the numbers on the time axis count.
    """
    shown = [
        (i, offset) for i, offset in zip(problem.intervals, solution.offsets, strict=True) if i.size and i.start < i.end
    ]
    begin = min((i.start for i, _ in shown), default=0)
    end = max((i.end for i, _ in shown), default=1)
    top = max(solution.peak, 1)

    def x(time: float) -> float:
        return _LEFT + (time - begin) / (end - begin) * (width - _LEFT - _RIGHT)

    def y(offset: float) -> float:
        return height - _BOTTOM - offset / top * (height - _TOP - _BOTTOM)

    bound = live_bound(problem)
    if solution.peak > bound:
        gap = f"{solution.peak / bound - 1:.1%} above the bound"
    else:
        gap = "the bound is reached"
    summary = f"{len(shown)} buffers, peak {human_bytes(solution.peak)}, {gap}; {solution.strategy}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="h" x="{_LEFT}" y="20">{escape(title)}</text>',
        f'<text class="s" x="{_LEFT}" y="35">{escape(summary)}</text>',
        *_axes(x, y, (begin, end), top, time_label),
        *(_rectangle(i, offset, k, x, y) for k, (i, offset) in enumerate(shown)),
        *_levels(solution.peak, bound, x(begin), x(end), y),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _rectangle(i: Interval, offset: int, number: int, x: Scale, y: Scale) -> str:
    left, upper = x(i.start), y(offset + i.size)
    w, h = x(i.end) - left, y(offset) - upper
    colour = _PALETTE[number % len(_PALETTE)]
    about = f"{i.name}: {i.size} bytes ({human_bytes(i.size)}) at offset {offset}, live [{i.start}, {i.end})"
    shape = f'<rect class="b" x="{left:.2f}" y="{upper:.2f}" width="{w:.2f}" height="{h:.2f}" fill="{colour}"/>'
    label = ""
    if h >= 11 and w >= len(i.name) * _CHARACTER + 6:
        tone = ' class="w"' if colour in _DARK else ""
        label = f'<text{tone} x="{left + 3:.2f}" y="{upper + h / 2 + 3.5:.2f}">{escape(i.name)}</text>'
    return f"<g><title>{escape(about)}</title>{shape}{label}</g>"


def _axes(x: Scale, y: Scale, span: tuple[int, int], top: int, time_label: str) -> list[str]:
    begin, end = span
    left, right, bottom = x(begin), x(end), y(0)
    lines = []
    for offset in _ticks(0, top, 8, 1024 if top >= 8192 else 10):
        lines.append(f'<line class="g" x1="{left}" x2="{right}" y1="{y(offset):.2f}" y2="{y(offset):.2f}"/>')
        lines.append(f'<text x="{left - 6}" y="{y(offset) + 3.5:.2f}" text-anchor="end">{human_bytes(offset)}</text>')
    for time in _ticks(begin, end, 16, 10):
        lines.append(f'<line class="g" x1="{x(time):.2f}" x2="{x(time):.2f}" y1="{y(top):.2f}" y2="{bottom + 4}"/>')
        lines.append(f'<text x="{x(time):.2f}" y="{bottom + 16}" text-anchor="middle">{time}</text>')
    lines.append(f'<line class="a" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    lines.append(f'<line class="a" x1="{left}" x2="{left}" y1="{y(top):.2f}" y2="{bottom}"/>')
    middle = (left + right) / 2
    lines.append(f'<text class="s" x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(time_label)}</text>')
    return lines


def _levels(peak: int, bound: int, left: float, right: float, y: Scale) -> list[str]:
    """The lines of peak and bound with their labels beside the picture, kept apart."""
    high, low = y(peak), y(bound)
    below = max(low, high + 26)
    return [
        f'<line class="l" x1="{left}" x2="{right + 6}" y1="{low:.2f}" y2="{low:.2f}"/>',
        f'<line class="p" x1="{left}" x2="{right + 6}" y1="{high:.2f}" y2="{high:.2f}"/>',
        f'<text x="{right + 10}" y="{high + 3.5:.2f}" style="fill:#c00">peak {human_bytes(peak)}</text>',
        f'<text x="{right + 10}" y="{high + 15:.2f}" class="s">{peak} bytes</text>',
        f'<text x="{right + 10}" y="{below + 3.5:.2f}" style="fill:#06c">live bound {human_bytes(bound)}</text>',
        f'<text x="{right + 10}" y="{below + 15:.2f}" class="s">{bound} bytes</text>',
    ]


def _ticks(begin: int, end: int, count: int, base: int) -> list[int]:
    """About `count` round numbers in [begin, end]: steps are powers of two, or 1, 2, 5 times of
    ten.
    """
    step, factors = 1, (2, 2) if base == 1024 else (2, 2.5, 2)
    k = 0
    while (end - begin) / step > count:
        step = int(step * factors[k % len(factors)])
        k += 1
    first = -(-begin // step) * step
    return list(range(first, end + 1, step))
