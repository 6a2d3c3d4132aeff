"""`nnc report --html`: one page that needs nothing else and holds the figures of the report."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nncompiler.cli import main
from nncompiler.driver import Compilation, read_source
from nncompiler.errors import Source
from nncompiler.report import accounts, html
from nncompiler.report.calls import calls
from tests.model_support import MODELS

#: Elements that have no end tag.
VOID = {"meta"}


class Page(HTMLParser):
    """Fails unless elements nest; keeps the rows of tables as texts, and what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [str(v) for k, v in attrs if k in ("src", "href") and str(v)[:1] != "#"]
        self.ids += [str(found["id"])] if "id" in found else []
        if tag in ("script", "link"):
            self.loads.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("rect", "path", "line")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.mark.parametrize("name", ["lenet", "rnn_sine", "gan", "scalar_graphs", "perceptron"])
def test_page_is_whole(name: str) -> None:
    """Elements nest, nothing is loaded, every line and kernel is there."""
    compilation = Compilation(read_source(MODELS / f"{name}.nn"), {"batch": 2})
    report = accounts.analyse(compilation)
    text = html.page(compilation, report)
    page = Page(text)
    assert page.loads == [] and {"model", "cost", "memory", "graph"} <= set(page.ids)
    assert not re.search(r"url\(|@import", text)
    kernels = {row[0] for row in page.rows}
    assert kernels >= {k.name for p in report.profiles for k in p.kernels}
    sources = {row[1] for row in page.rows if len(row) == 8}
    assert sources >= {x.text for p in report.profiles for x in p.lines if x.text}


def test_figures_are_those_of_the_report() -> None:
    """The layers of LeNet with shapes, parameters and multiply-adds; the lines with their sums."""
    compilation = Compilation(read_source(MODELS / "lenet.nn"), {"batch": 1})
    rows = Page(html.page(compilation, accounts.analyse(compilation))).rows
    first = ["6", "conv2d(6, kernel=3)", "f32[1,6,30,30]", "60", "48,600", "conv2d1.W, conv2d1.b"]
    assert first in rows
    assert ["9", "dense(classes)", "f32[1,10]", "850", "840", "logits.W, logits.b"] in rows
    assert ["conv2d2.W", "f32[16,6,3,3]", "864", "3,456"] in rows
    assert any(row[1:3] == ["total", "81,194"] for row in rows)


def test_calls_of_a_loop() -> None:
    """The arithmetic of a scan counts every round; parameters count where they are first read."""
    text = """\
model m {
    input x : f32[batch, 7, 3]
    cell = rnn(5)
    a = cell(x)
    b = cell(x)
    output a
    output b
}
"""
    network = Compilation(Source("m.nn", text), {"batch": 2}).network
    first, second = (k for k in calls(network.function("infer")) if k.work.multiply_adds)
    products = 2 * 7 * (3 * 5 + 5 * 5)
    assert first.work.multiply_adds == second.work.multiply_adds == products
    assert (first.size, second.size) == (3 * 5 + 5 * 5 + 5, 0)
    assert (first.text, first.line) == ("cell(x)", 4)


def test_a_layer_used_twice_has_two_rows() -> None:
    """Calls inside a layer count for each use of it, with the parameters of that use."""
    text = """\
model m {
    input x : f32[batch, 4]
    a = x |> block()
    b = a |> block()
    output b
}
layer block()(x : f32[batch, n]) {
    return x |> dense(n) |> relu
}
"""
    network = Compilation(Source("m.nn", text), {"batch": 2}).network
    found = [(k.text, k.line, k.size) for k in calls(network.function("infer"))]
    assert found == [("dense(n)", 8, 20), ("relu", 8, 0)] * 2


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page is written beside the report, or to stdout instead of it; not beside JSON."""
    words = ["report", str(MODELS / "tiny.nn"), "--html"]
    assert main([*words, str(tmp_path / "tiny.html")]) == 0
    assert "kernel by kernel" in capsys.readouterr().out
    page = (tmp_path / "tiny.html").read_text(encoding="utf-8")
    assert main([*words, "-"]) == 0
    assert capsys.readouterr().out == page
    assert main([*words, "-", "--json"]) == 2
    assert "a page and JSON" in capsys.readouterr().err


def test_names_are_escaped() -> None:
    """Source text is text, whatever is in it."""
    text = "model m { input x : f32[4] # <script>&amp;\n output y = x * 2 }"
    compilation = Compilation(Source("<b>.nn", text), {})
    page = Page(html.page(compilation, accounts.analyse(compilation)))
    assert any("# <script>&amp;" in cell for row in page.rows for cell in row)
