"""What the experiments of the tutorial share: their command line, their tables, their pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nncompiler.report.chart import Panel, chart

MODELS = Path(__file__).resolve().parents[2] / "models"


def folder(about: str | None) -> Path:
    """Where the pictures go: --out, by default `out`."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    found: Path = parser.parse_args().out
    found.mkdir(parents=True, exist_ok=True)
    return found


def draw(path: Path, panels: Sequence[Panel], title: str = "") -> None:
    """Line charts as an SVG file."""
    path.write_text(chart(panels, title), encoding="utf-8")


def table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows under the first; figures flush right, the first column flush left."""
    cells = [[c if isinstance(c, str) else f"{c:.4g}" for c in row] for row in rows]
    wide = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    for row in cells:
        first, *rest = (c.rjust(w) for c, w in zip(row, wide, strict=True))
        print("  ".join([first.strip().ljust(wide[0]), *rest]).rstrip())
