"""A memory plan as a picture: time to the right, offsets upwards, one rectangle for each interval.

The SVG is self-contained and needs no scripts, and follows the light or dark scheme
of its reader. Hovering over a rectangle shows its name, size,
offset and live range.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from nncompiler.passes.memory.allocation import Interval, Problem, Solution, live_bound

_PALETTE = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2"),
    *("#edc948", "#b07aa1", "#9c755f", "#ff9da7"),
)
_DARK = {"#4e79a7", "#59a14f", "#e15759", "#b07aa1", "#9c755f"}
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 150, 46, 52
_MIDDLE = ' text-anchor="middle"'
_CHARACTER = 6.2  # width of a label's character at 10 px
_STYLE = (
    ".m text{font:10px sans-serif;fill:#222}.m .h{font:bold 14px sans-serif}.m .s{fill:#555}"
    ".m .k{fill:#222}.m .w{fill:#fff}.m .page{fill:#fff}.m .pt{fill:#c00}.m .lt{fill:#06c}"
    ".m .b{stroke:#fff;stroke-width:.6}.m .b:hover{stroke:#000;stroke-width:1.5}"
    ".m .g{stroke:#ddd}.m .a{stroke:#444}.m .p{stroke:#c00;stroke-width:1.5}"
    ".m .l{stroke:#06c;stroke-width:1.5;stroke-dasharray:6 4}"
    "@media(prefers-color-scheme:dark){.m text{fill:#e6e6e6}.m .s{fill:#a0a4ab}.m .k{fill:#222}"
    ".m .page{fill:#16181c}.m .b{stroke:#16181c}.m .b:hover{stroke:#fff}.m .g{stroke:#333}"
    ".m .a{stroke:#999}.m .p{stroke:#f66}.m .l{stroke:#6af}.m .pt{fill:#f66}.m .lt{fill:#6af}}"
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
        (i, offset)
        for i, offset in zip(problem.intervals, solution.offsets, strict=True)
        if i.size and i.start < i.end
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
    peak = human_bytes(solution.peak)
    summary = f"{len(shown)} buffers, peak {peak}, {gap}; {solution.strategy}"
    parts = [
        f'<svg class="m" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
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
    about = f"{i.name}: {i.size} bytes ({human_bytes(i.size)}) at offset {offset}"
    about += f", live [{i.start}, {i.end})"
    shape = f'<rect class="b" x="{left:.2f}" y="{upper:.2f}" width="{w:.2f}" height="{h:.2f}" '
    shape += f'fill="{colour}"/>'
    label = ""
    if h >= 11 and w >= len(i.name) * _CHARACTER + 6:
        tone = "w" if colour in _DARK else "k"
        place = f'x="{left + 3:.2f}" y="{upper + h / 2 + 3.5:.2f}"'
        label = f'<text class="{tone}" {place}>{escape(i.name)}</text>'
    return f"<g><title>{escape(about)}</title>{shape}{label}</g>"


def _axes(x: Scale, y: Scale, span: tuple[int, int], top: int, time_label: str) -> list[str]:
    begin, end = span
    left, right, bottom, ceiling = x(begin), x(end), y(0), y(top)
    parts = []
    for offset in _ticks(0, top, 8, 1024 if top >= 8192 else 10):
        parts.append(_line("g", left, right, y(offset), y(offset)))
        parts.append(_text(left - 6, y(offset) + 3.5, human_bytes(offset), ' text-anchor="end"'))
    for time in _ticks(begin, end, 16, 10):
        parts.append(_line("g", x(time), x(time), ceiling, bottom + 4))
        parts.append(_text(x(time), bottom + 16, str(time), _MIDDLE))
    parts.append(_line("a", left, right, bottom, bottom))
    parts.append(_line("a", left, left, ceiling, bottom))
    parts.append(_text((left + right) / 2, bottom + 34, time_label, _MIDDLE + ' class="s"'))
    return parts


def _levels(peak: int, bound: int, left: float, right: float, y: Scale) -> list[str]:
    """The lines of peak and bound with their labels beside the picture, kept apart."""
    high, low = y(peak), y(bound)
    below = max(low, high + 26)
    x = right + 10
    return [
        _line("p", left, right + 6, high, high),
        _line("l", left, right + 6, low, low),
        _text(x, high + 3.5, f"peak {human_bytes(peak)}", ' class="pt"'),
        _text(x, high + 15, f"{peak} bytes", ' class="s"'),
        _text(x, below + 3.5, f"live bound {human_bytes(bound)}", ' class="lt"'),
        _text(x, below + 15, f"{bound} bytes", ' class="s"'),
    ]


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.2f}" x2="{x2:.2f}" y1="{y1:.2f}" y2="{y2:.2f}"/>'


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.2f}" y="{y:.2f}"{attributes}>{escape(text)}</text>'


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
