"""Line charts as SVG: panels one below the other, each with its series over the same kind of axis.

Like all pictures here the SVG is self-contained, needs no scripts, and follows the light or dark
scheme of its reader. Values that are no finite numbers are gaps in their line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby

from nncompiler.record import dataclass

_LIGHT = ("#2f6fb5", "#d9730d", "#3a923a", "#c03d3e", "#7f5fb0", "#0f8f8f", "#8a6a1f")
_DARK = ("#74aef0", "#f5a55a", "#76c476", "#ef8182", "#b79be6", "#58c8c8", "#d0ae5c")
_WIDTH, _HEIGHT = 510.0, 250.0  # of a panel's plot
_LEFT, _TOP, _BOTTOM = 62.0, 34.0, 42.0
_END = _LEFT + _WIDTH  # where labels of series begin
_CHARACTER = 7.8  # width of one of their characters, bold, in the wider of the usual fonts
_LABEL = 14.0  # from one label of a series to the next
#: Positive values that differ by more than this factor are drawn on a logarithmic axis.
_LOGARITHMIC = 30.0


@dataclass(frozen=True, slots=True)
class Series:
    """A line: values at 1, 2, 3, ... unless `at` says where; its colour goes by its place in the
    panel unless `colour` does."""

    name: str
    values: Sequence[float]
    at: Sequence[float] | None = None
    colour: int | None = None

    def points(self) -> list[tuple[float, float]]:
        at = self.at if self.at is not None else range(1, len(self.values) + 1)
        return [(float(x), float(y)) for x, y in zip(at, self.values, strict=True)]


@dataclass(frozen=True, slots=True)
class Panel:
    """Series in one frame; `logarithmic` None chooses by the values."""

    title: str
    series: Sequence[Series]
    across: str = "epoch"
    logarithmic: bool | None = None


def chart(panels: Sequence[Panel], title: str = "") -> str:
    """The picture of all panels."""
    parts: list[str] = []
    y = 12.0
    if title:
        parts.append(_text(_LEFT, y + 14, title, "head"))
        y += 22
    for panel in panels:
        parts.append(f'<g transform="translate(0,{y:.1f})">{_panel(panel)}</g>')
        y += _TOP + _HEIGHT + _BOTTOM
    names = [len(_about(s)) for panel in panels for s in panel.series]
    width = _END + 20 + _CHARACTER * max(names, default=0)
    head = (
        f'<svg class="c" xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
        f'height="{y:.0f}" viewBox="0 0 {width:.0f} {y:.0f}">'
    )
    page = f'<rect class="page" width="{width:.0f}" height="{y:.0f}"/>'
    return "\n".join([head, f"<style>{_style()}</style>", page, *parts, "</svg>"]) + "\n"


def history_panels(history: Mapping[str, Sequence[float]]) -> list[Panel]:
    """A panel for each loss and metric, training and validation together."""
    groups: dict[str, list[Series]] = {}
    for name, values in history.items():
        later = name.startswith("val_")
        line = Series("validation" if later else "training", values, colour=int(later))
        groups.setdefault(name.removeprefix("val_"), []).append(line)
    return [Panel(name, series) for name, series in groups.items()]


def _style() -> str:
    def lines(colours: Sequence[str]) -> str:
        return "".join(
            f".c .s{k}{{stroke:{colour}}}.c .t{k}{{fill:{colour}}}"
            for k, colour in enumerate(colours)
        )

    return (
        ".c text{font:11px system-ui,sans-serif;fill:#444}.c .head{font-size:15px;fill:#111;"
        "font-weight:600}.c .title{font-size:13px;fill:#111;font-weight:600}.c .page{fill:#fff}"
        ".c .grid{stroke:#e4e6ea}.c .axis{stroke:#8a8f98}.c .line{fill:none;stroke-width:1.8;"
        f"stroke-linejoin:round}}.c .label{{font-weight:600}}{lines(_LIGHT)}"
        "@media(prefers-color-scheme:dark){.c text{fill:#b5bac2}.c .head,.c .title{fill:#eee}"
        f".c .page{{fill:#16181c}}.c .grid{{stroke:#2c3037}}{lines(_DARK)}}}"
    )


# --- one panel ---


def _panel(panel: Panel) -> str:
    points = [p for s in panel.series for p in s.points() if math.isfinite(p[1])]
    ys = [y for _, y in points] or [0.0, 1.0]
    spread = min(ys) > 0 and max(ys) / min(ys) > _LOGARITHMIC
    logarithmic = spread if panel.logarithmic is None else panel.logarithmic and min(ys) > 0
    xs = [x for x, _ in points] or [0.0, 1.0]
    x = _scale(min(xs), max(xs), _LEFT, _END, False)
    floor, ceiling = _range(min(ys), max(ys), logarithmic)
    y = _scale(floor, ceiling, _TOP + _HEIGHT, _TOP, logarithmic)
    parts = [_text(_LEFT, _TOP - 10, panel.title, "title")]
    parts += _grid(x, y, (min(xs), max(xs)), (floor, ceiling), logarithmic)
    parts.append(_text((_LEFT + _END) / 2, _TOP + _HEIGHT + 32, panel.across, "", "middle"))
    ends = []
    for k, series in enumerate(panel.series):
        colour = (k if series.colour is None else series.colour) % len(_LIGHT)
        parts.append(f'<path class="line s{colour}" d="{_path(series, x, y)}"/>')
        last = _last(series)
        ends.append((_TOP if last is None else y(last), colour, _about(series)))
    return "".join([*parts, *_labels(ends)])


def _last(series: Series) -> float | None:
    """The last value that is a number."""
    return next((y for _, y in reversed(series.points()) if math.isfinite(y)), None)


def _about(series: Series) -> str:
    last = _last(series)
    return series.name if last is None else f"{series.name} {_number(last)}"


def _range(low: float, high: float, logarithmic: bool) -> tuple[float, float]:
    """A little more than the values take."""
    if logarithmic:
        return low / 1.15, high * 1.15
    room = 0.04 * (high - low) or 0.5 * abs(high) or 1.0
    return (0.0 if 0 <= low <= 0.2 * high else low - room), high + room


def _scale(
    low: float, high: float, begin: float, end: float, logarithmic: bool
) -> Callable[[float], float]:
    a, b = (math.log(low), math.log(high)) if logarithmic else (low, high)
    width = (b - a) or 1.0
    return lambda v: begin + ((math.log(v) if logarithmic else v) - a) / width * (end - begin)


def _path(series: Series, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    path = ""
    for finite, run in groupby(series.points(), key=lambda p: math.isfinite(p[1])):
        if finite:
            path += "M" + "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in run)
    return path


def _labels(ends: Sequence[tuple[float, int, str]]) -> list[str]:
    """The names of series at the ends of their lines, kept apart."""
    parts, below = [], -math.inf
    room = _TOP + _HEIGHT + 4 - _LABEL * (len(ends) - 1)
    for k, (y, colour, name) in enumerate(sorted(ends)):
        place = max(min(y, room + k * _LABEL), below + _LABEL)
        below = place
        parts.append(_text(_END + 8, place + 4, name, f"label t{colour}"))
    return parts


def _grid(
    x: Callable[[float], float], y: Callable[[float], float], across: tuple[float, float],
    along: tuple[float, float], logarithmic: bool,
) -> list[str]:  # fmt: skip
    left, right, bottom = _LEFT, _END, _TOP + _HEIGHT
    parts = []
    for value in _decades(*along) if logarithmic else _ticks(*along):
        parts.append(_line("grid", left, right, y(value), y(value)))
        parts.append(_text(left - 7, y(value) + 4, _number(value), "", "end"))
    for value in _ticks(*across):
        parts.append(_line("axis", x(value), x(value), bottom, bottom + 4))
        parts.append(_text(x(value), bottom + 17, _number(value), "", "middle"))
    return [*parts, _line("axis", left, right, bottom, bottom)]


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten; with 2 and 5 times of them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    step = max(1, (last - first) // 8)
    found = [f * 10.0**k for k in range(first, last + 1, step) for f in factors]
    return [v for v in found if low <= v <= high]


def _number(value: float) -> str:
    """At most three digits, without an exponent where that is short."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2g}"


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
