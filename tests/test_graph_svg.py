"""`nnc dump --format svg`: a picture in which nothing is missing and no box hides another."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nncompiler.cli import main
from nncompiler.driver import Compilation, read_source
from nncompiler.ir.graph import Function
from nncompiler.report.graph_svg import draw
from nncompiler.report.layers import Edge, place
from tests.model_support import MODELS

SVG = "{http://www.w3.org/2000/svg}"


def titles(text: str) -> list[str]:
    """What is told when hovering over the boxes."""
    groups = ElementTree.fromstring(text).iter(f"{SVG}g")
    return [t.text or "" for g in groups for t in g.findall(f"{SVG}title")]


def shown(function: Function) -> int:
    """How many boxes a function needs, regions included: constants stand in their users."""
    nodes = [n for n in function.nodes if n.op != "constant"]
    inner = sum(shown(n.body) for n in nodes if n.body)
    return len(function.params) + len(nodes) + len(function.results) + inner


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.nn")), ids=lambda p: p.stem)
def test_every_node_is_drawn(path: Path) -> None:
    """A box for each parameter, node and result of every function, at each graph of a model."""
    compilation = Compilation(read_source(path), {"batch": 2})
    for function in compilation.network.functions:
        found = titles(draw({function.name: function}, "m"))
        assert len(found) == shown(function)
        for param in function.params:
            assert any(t.endswith(f"%{param.value.name}: {param.value.type}") for t in found)


def test_lenet(tmp_path: Path) -> None:
    """The command draws the forward pass; calls are framed, and shapes and lines are told."""
    out = tmp_path / "lenet.svg"
    assert main(["dump", str(MODELS / "lenet.nn"), "--format", "svg", "-o", str(out)]) == 0
    texts = [t.text for t in ElementTree.parse(out).getroot().iter(f"{SVG}text")]
    calls = ["conv2d(6, kernel=3)", "conv2d(16, kernel=3)", "dense(120)", "dense(84)"]
    assert {*calls, "max_pool2d(2)", "softmax(logits)"} <= set(texts)
    assert texts.count("f32[64,6,30,30]") == 3 and "lenet: infer" in texts
    first = next(t for t in titles(out.read_text()) if t.startswith("%0: "))
    assert first.split("\n")[1] == "6 | x = image |> conv2d(6, kernel=3) |> relu |> max_pool2d(2)"


def test_functions_and_stages(capsys: pytest.CaptureFixture[str]) -> None:
    """Functions that are named are drawn together; plans are not graphs."""
    words = ["dump", str(MODELS / "tiny.nn"), "--format", "svg"]
    assert main([*words, "--stage", "opt", "--function", "infer,grad"]) == 0
    text = capsys.readouterr().out
    assert "tiny: infer" in text and "tiny: grad" in text
    assert main([*words, "--stage", "plan"]) == 2
    assert "graph or train or opt" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(40))
def test_layout(seed: int) -> None:
    """Boxes keep apart, edges go downwards from box to box, and all is within the size."""
    draws = random.Random(seed)
    count = draws.randrange(1, 30)
    sizes = [(draws.uniform(10, 120), draws.choice((20.0, 34.0, 90.0))) for _ in range(count)]
    pairs = [p for p in combinations(range(count), 2) if draws.random() < 2 / count]
    late = frozenset(k for k in range(count) if draws.random() < 0.3)
    placed = place(sizes, [Edge(a, b) for a, b in pairs], late, 40)
    corners = placed.corners
    for a, b in combinations(range(count), 2):
        (ax, ay), (bx, by) = corners[a], corners[b]
        beside = ax + sizes[a][0] <= bx + 1e-6 or bx + sizes[b][0] <= ax + 1e-6
        assert beside or ay + sizes[a][1] <= by or by + sizes[b][1] <= ay
    for (tail, head), route in zip(pairs, placed.routes, strict=True):
        heights = [y for _, y in route]
        assert heights == sorted(heights)
        assert heights[0] == corners[tail][1] + sizes[tail][1] < heights[-1] == corners[head][1]
        assert corners[head][0] <= route[-1][0] <= corners[head][0] + sizes[head][0]
    for (x, y), (w, h) in zip(corners, sizes, strict=True):
        assert x >= -1e-6 and x + w <= placed.width + 1e-6
        assert y >= 0 and y + h <= placed.height + 1e-6


def test_chain_is_straight() -> None:
    """What has one box above and below stands in one line."""
    placed = place([(50.0, 20.0)] * 5, [Edge(k, k + 1) for k in range(4)], (), 40)
    assert placed.corners == tuple((0.0, 60.0 * k) for k in range(5))
    assert all(len({x for x, _ in route}) == 1 for route in placed.routes)
