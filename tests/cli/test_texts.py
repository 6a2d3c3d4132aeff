"""The verbs about texts: `nnc dump`, `opt` and `fmt`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nncompiler.ir.graph import Function
from nncompiler.passes.graph.dce import DeadCode
from tests.cli.conftest import LINE, MODELS, Nnc

TINY = MODELS / "tiny.nn"
GRAPH = """graph @f {
  input %x: f32[4]
  %a: f32[4] = exp %x
  %b: f32[4] = exp %x
  %c: f32[4] = add %a, %b
  return y=%c
}
"""


KEEPING = """model kept {
    input x : f32[batch, 4]
    target t : f32[batch, 2]
    y = x |> dense(2) |> batch_norm() as b
    output y
    loss mse(y, t)
}

train { optimizer = adam(lr=0.1) batch = 4 }
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The file of `GRAPH`."""
    path = tmp_path / "f.nnir"
    path.write_text(GRAPH)
    return path


@pytest.mark.parametrize(("stage", "text"), [
    ("syntax", "Model tiny"), ("graph", "graph @objective {"), ("train", "graph @train_step {"),
    ("opt", "= fused "), ("plan", "plan @train_step: arena "), ("llvm", "define "),
    ("asm", ".text"),
])  # fmt: skip
def test_dump_text(nnc: Nnc, stage: str, text: str) -> None:
    """Every stage has a text."""
    result = nnc("dump", TINY, "--stage", stage)
    assert (result.code, result.err) == (0, "") and text in result.out


def test_dump_one_function_to_a_file(nnc: Nnc, tmp_path: Path) -> None:
    """--function picks functions, -o writes a file that `nnc opt` reads back."""
    path = tmp_path / "infer.nnir"
    assert nnc("dump", TINY, "--stage", "opt", "--function", "infer", "-o", path).out == ""
    assert path.read_text().count("graph @") == 1
    assert nnc("opt", path).out == path.read_text()
    plan = tmp_path / "step.nnplan"
    nnc("dump", TINY, "--stage", "plan", "--function", "train_step", "-o", plan)
    assert nnc("opt", plan).out == plan.read_text()


def test_dump_unknown_function(nnc: Nnc) -> None:
    """A function that the stage does not have is refused with those it has."""
    result = nnc("dump", TINY, "--stage", "graph", "--function", "train_step")
    assert result.code == 2 and "init, infer, loss, objective" in result.err


def test_dump_json_is_structural(nnc: Nnc) -> None:
    """The JSON of a graph holds its nodes with their types; that of a plan its buffers."""
    graph = nnc("dump", TINY, "--function", "infer", "--format", "json").json["infer"]
    assert graph["form"] == "Function" and graph["params"][0]["value"]["type"] == "f32[4,2]"
    assert [n["op"] for n in graph["nodes"]].count("contract") == 3
    plan = nnc("dump", TINY, "--stage", "plan", "--function", "infer", "--format", "json").json
    assert {"x", "prediction"} <= {b["name"].removeprefix("%") for b in plan["infer"]["buffers"]}
    tree = nnc("dump", TINY, "--stage", "syntax", "--format", "json").json
    assert tree["items"][0]["name"]["text"] == "tiny"


@pytest.mark.parametrize("stage", ["graph", "opt", "plan"])
def test_dump_dot_is_well_formed(nnc: Nnc, stage: str) -> None:
    """Every edge of a drawing joins boxes that are declared, and there are edges."""
    text = nnc("dump", TINY, "--stage", stage, "--format", "dot").out
    assert text.startswith("digraph nn {") and text.count("{") == text.count("}")
    boxes = set(re.findall(r"^ +(\w+) \[label=\"", text, re.M))
    edges = re.findall(r"^ +(\w+) -> (\w+) \[label=\"", text, re.M)
    assert edges and {end for edge in edges for end in edge} <= boxes
    assert all(line.rstrip().endswith(("{", "}", ";")) for line in text.splitlines())


@pytest.mark.parametrize("stage", ["graph", "train", "opt", "plan"])
def test_dump_dot_draws_what_a_model_keeps(nnc: Nnc, tmp_path: Path, stage: str) -> None:
    """Inputs, parameters, states, slots and headers all have a colour."""
    model = tmp_path / "kept.nn"
    model.write_text(KEEPING)
    text = nnc("dump", model, "--stage", stage, "--format", "dot").out
    assert "state b.running_mean" in text or "state %b.running_mean" in text


def test_dump_cannot_draw_assembly(nnc: Nnc) -> None:
    """Only graphs and plans can be drawn."""
    assert nnc("dump", TINY, "--stage", "asm", "--format", "dot").code == 2


def test_opt_runs_passes(nnc: Nnc, graph: Path, tmp_path: Path) -> None:
    """Passes run in order; -o writes the result, which is accepted again."""
    out = tmp_path / "out.nnir"
    assert nnc("opt", graph, "-p", "cse,dce", "-o", out).code == 0
    assert out.read_text().count("exp") == 1
    again = nnc("opt", out, "-p", "cse,dce,fuse{max-nodes=1}", "--check-passes")
    assert again.code == 0 and "add %a, %a" in again.out


def test_opt_without_passes_reprints(nnc: Nnc, graph: Path) -> None:
    """No passes: the text in its one layout."""
    assert nnc("opt", graph).out == GRAPH


def test_opt_shows_ill_formed_graphs(nnc: Nnc, tmp_path: Path) -> None:
    """A problem is shown below the line that has it."""
    path = tmp_path / "bad.nnir"
    path.write_text(GRAPH.replace("add %a, %b", "add %a, %b").replace("%c: f32[4]", "%c: f32[5]"))
    result = nnc("opt", path)
    assert result.code == 1 and "// error:" in result.err and "f32[5]" in result.err


@pytest.mark.parametrize(("passes", "code"), [("bogus", "NN0403"), ("fuse{x=1}", "NN0404"),
                                              ("fuse{max-nodes=0}", "NN0404"),
                                              ("cse;", "NN0402")])  # fmt: skip
def test_opt_refuses_unknown_passes(nnc: Nnc, graph: Path, passes: str, code: str) -> None:
    """Names and options that there are not are errors."""
    result = nnc("opt", graph, "-p", passes)
    assert result.code == 2 and code in result.err


def test_opt_dump_dir_that_cannot_be_written(nnc: Nnc, graph: Path) -> None:
    """A folder that cannot be made is an error of the user, not of the compiler."""
    result = nnc("opt", graph, "-p", "cse", "--dump-dir", graph / "below-a-file")
    assert result.code == 1 and "NN0906" in result.err


@pytest.mark.parametrize("flags", [("--cpu", "bogus"), ("--function", "bogus")])
@pytest.mark.parametrize("verb", ["compile", "dump"])
def test_words_that_no_flag_takes_are_wrong_command_lines(
    nnc: Nnc, tmp_path: Path, verb: str, flags: tuple[str, str]
) -> None:
    """Whatever the verb and the flag, the exit code is 2, and the word is named."""
    result = nnc(verb, TINY, *flags, "-o", tmp_path / "out.so")
    assert result.code == 2 and "bogus" in result.err


def test_opt_check_passes_names_a_wrong_pass(
    nnc: Nnc, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that changes a value is named, and the exit code is 4."""
    def wrong(self: DeadCode, function: Function) -> Function:
        from dataclasses import replace

        nodes = [replace(n, op="mul") if n.op == "add" else n for n in function.nodes]
        return function.with_nodes(nodes)

    monkeypatch.setattr(DeadCode, "run", wrong)
    assert nnc("opt", graph, "-p", "cse,dce").code == 0
    result = nnc("opt", graph, "-p", "cse,dce", "--check-passes")
    assert result.code == 4 and "pass 'dce' changed the value" in result.err
    assert nnc("opt", graph, "-p", "cse,dce", "--check-passes", "--stop-after", "cse").code == 0


def test_opt_refuses_passes_on_plans(nnc: Nnc, tmp_path: Path) -> None:
    """Passes are for graphs."""
    path = tmp_path / "a.nnplan"
    path.write_text("")
    assert nnc("opt", path, "-p", "cse").code == 2


@pytest.mark.parametrize("data", [b"", b"graph", b"\xff\xfe", b"graph @f {\n" * 50, b"}" * 99])
def test_opt_refuses_other_texts(nnc: Nnc, tmp_path: Path, data: bytes) -> None:
    """What is not a graph, or not text at all, is an error of the user."""
    path = tmp_path / "a.nnir"
    path.write_bytes(data)
    result = nnc("opt", path)
    assert result.code == 1 and re.search(r"error NN\d{4}: ", result.err)


def test_fmt_check_and_write(nnc: Nnc, tmp_path: Path) -> None:
    """--check lists files that differ and exits with 4; -w rewrites them; then all is well."""
    good, bad = tmp_path / "good.nn", tmp_path / "bad.nn"
    good.write_text(LINE)
    bad.write_text(LINE.replace("    y = x |>", "  y=x|>"))
    result = nnc("fmt", "--check", good, bad)
    assert (result.code, result.out) == (4, f"{bad}\n") and "1 of 2 files" in result.err
    assert nnc("fmt", bad).out == LINE
    assert nnc("fmt", "-w", good, bad).out == f"{bad}\n"
    assert bad.read_text() == LINE
    assert nnc("fmt", "--check", good, bad).code == 0
