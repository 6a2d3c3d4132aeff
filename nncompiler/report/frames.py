"""Where frames around the boxes of one call may stand in a picture of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nncompiler.errors import Span
from nncompiler.report.calls import call_text

Rect = tuple[float, float, float, float]  # left, top, right, bottom
Group = tuple[Span, list[int]]  # a call in the source, and its boxes


def frames(
    rects: Sequence[Rect], groups: Sequence[Group], letter: float
) -> Iterator[tuple[str, list[Rect]]]:
    """The text of each call whose boxes stand apart from all others, and the rectangles that
    together frame them; the first is widened for the text, of such letters, where there is room.
    """
    for span, members in groups:
        text = call_text(span)
        others = [r for k, r in enumerate(rects) if k not in members]
        bands = _bands([rects[k] for k in members], others)
        if len(members) < 2 or not text or any(_meet(r, b) for r in others for b in bands):
            continue
        left, top, right, bottom = bands[0]
        wide = (left, top, max(right, left + len(text) * letter + 12), bottom)
        if not any(_meet(r, wide) for r in others):
            bands[0] = wide
        yield text, bands


def _bands(rects: Sequence[Rect], others: Sequence[Rect]) -> list[Rect]:
    """Rectangles that together frame these: a row of them for each rank, down to the next; a row
    is parted where another box stands in it."""
    rows: dict[float, list[Rect]] = {}
    for r in sorted(rects):
        rows.setdefault(r[1], []).append(r)
    tops = sorted(rows)
    ends = [top - 17 for top in tops[1:]] + [max(r[3] for r in rects) + 18]
    bands = []
    for top, end in zip(tops, ends, strict=True):
        first, *rest = rows[top]
        left, right = first[0], first[2]
        for r in rest:
            if any(o[1] == top and right < o[0] < r[0] for o in others):
                bands.append((left - 7, top - 17, right + 7, end))
                left = r[0]
            right = r[2]
        bands.append((left - 7, top - 17, right + 7, end))
    return bands


def _meet(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
