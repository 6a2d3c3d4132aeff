"""`report.chart`: lines are where their values are, whatever the values."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from nncompiler.report.chart import Panel, Series, chart, history_panels

SVG = "{http://www.w3.org/2000/svg}"


def paths(text: str) -> list[list[tuple[float, float]]]:
    """The points of every line."""
    found = []
    for element in ElementTree.fromstring(text).iter(f"{SVG}path"):
        pairs = re.findall(r"(-?[\d.]+),(-?[\d.]+)", element.get("d", ""))
        found.append([(float(x), float(y)) for x, y in pairs])
    return found


def texts(text: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(text).iter(f"{SVG}text")]


def test_linear() -> None:
    """Equal steps are equally far apart, larger values higher."""
    (points,) = paths(chart([Panel("p", [Series("s", [1.0, 2.0, 3.0, 2.0])])]))
    steps = [b[0] - a[0] for a, b in pairwise(points)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    ys = [y for _, y in points]
    assert ys[0] > ys[1] > ys[2] and ys[1] == ys[3]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)


def test_logarithmic() -> None:
    """Equal ratios are equally far apart, on an axis with powers of ten."""
    drawn = chart([Panel("p", [Series("s", [1.0, 0.1, 0.01])])])
    (points,) = paths(drawn)
    ys = [y for _, y in points]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.2)
    assert {"1", "0.1", "0.01"} <= set(texts(drawn))


@pytest.mark.parametrize("values", [
    [], [5.0], [0.0, 0.0], [-1.0, -2.0], [1e-30, 1e30], [math.nan, 1.0, math.inf, 2.0],
    [math.nan], [3.0] * 4, [1e6, 2e6], [-0.5, 0.5],
])  # fmt: skip
def test_any_values(values: list[float]) -> None:
    """Every finite value has a point inside the frame; what is no number is a gap."""
    drawn = chart([Panel("p", [Series("s", values)])], "t <&>")
    (points,) = paths(drawn)
    assert len(points) == sum(map(math.isfinite, values))
    assert all(62 <= x <= 572 and 34 <= y <= 284 for x, y in points)
    assert "t <&>" in texts(drawn)


def test_labels_keep_apart() -> None:
    """The names of lines that end at one place do not cover each other."""
    drawn = chart([Panel("p", [Series(f"s{k}", [1.0, 2.0]) for k in range(6)])])
    ends = [float(e.get("y", "")) for e in ElementTree.fromstring(drawn).iter(f"{SVG}text")
            if "label" in e.get("class", "")]  # fmt: skip
    assert len(ends) == 6
    assert all(b - a >= 13.9 for a, b in pairwise(ends))


def test_history() -> None:
    """Training and validation of one name share a panel."""
    history = {"loss": [2.0, 1.0], "val_loss": [2.5, 1.5], "val_accuracy": [0.1, 0.9]}
    panels = history_panels(history)
    assert [(p.title, [s.name for s in p.series]) for p in panels] == [
        ("loss", ["training", "validation"]), ("accuracy", ["validation"])]  # fmt: skip
