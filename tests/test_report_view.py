"""`nncompiler.report.view`: functions as graphs of networkx."""

from __future__ import annotations

import networkx
import pytest

from nncompiler.driver import Compilation, read_source
from nncompiler.errors import Source
from nncompiler.report import accounts
from nncompiler.report.view import digraph

CHAIN = """\
model chain {
    input  x : f32[batch, 7]
    target t : f32[batch, 3]
    h = x |> dense(6) |> relu
    y = h |> dense(3)
    output y
    loss mse(y, t)
}
"""


def test_nodes_edges_and_results():
    graph = Compilation(Source("chain.nn", CHAIN), {"batch": 5}).graphs["infer"]
    found = digraph(graph)
    assert list(found)[: len(graph.params)] == [p.value.name for p in graph.params]
    assert found.nodes["x"] == {"op": "input", "line": None, "bytes": 5 * 7 * 4, "flops": 0}
    products = [name for name, data in found.nodes(data=True) if data["op"] == "contract"]
    assert [found.nodes[n]["flops"] for n in products] == [2 * 5 * 7 * 6, 2 * 5 * 6 * 3]
    assert [found.nodes[n]["line"] for n in products] == [4, 5]
    assert found.edges["x", products[0]] == {"bytes": 5 * 7 * 4}
    assert networkx.has_path(found, products[0], found.graph["results"]["y"])
    assert not networkx.has_path(found, products[1], products[0])


@pytest.mark.parametrize(("path", "batch"), [("mlp", 3), ("char_lstm", 2), ("lenet", 2)])
def test_work_is_that_of_the_report(path, batch):
    """Loops with all their rounds, groups with all that is in them."""
    c = Compilation(read_source(f"models/{path}.nn"), {"batch": batch})
    report = accounts.analyse(c, ())
    for function in report.functions:
        found = digraph(c.optimised[function.name])
        assert networkx.is_directed_acyclic_graph(found)
        assert sum(flops for _, flops in found.nodes(data="flops")) == function.work.flops
