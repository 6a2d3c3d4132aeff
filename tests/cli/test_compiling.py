"""The verbs about the compiler: check, compile, dump, opt, fmt, ops, passes, doctor, gradcheck."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import Limitation, UserError
from nncompiler.ir.graph import Function
from nncompiler.passes.graph.dce import DeadCode
from tests.cli.conftest import LINE, MODELS, REPOSITORY, Nnc

TINY = MODELS / "tiny.nn"
GRAPH = """graph @f {
  input %x: f32[4]
  %a: f32[4] = exp %x
  %b: f32[4] = exp %x
  %c: f32[4] = add %a, %b
  return y=%c
}
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The file of `GRAPH`."""
    path = tmp_path / "f.nnir"
    path.write_text(GRAPH)
    return path


# --- check


def test_check_lists_parameters(nnc: Nnc) -> None:
    """`check --params` names each parameter with type and bytes, and the totals."""
    result = nnc("check", TINY, "--params")
    assert result.code == 0
    assert re.search(r"^h1\.W +f32\[2,3\] +6 +24$", result.out, re.M)
    assert re.search(r"^total +20 +80$", result.out, re.M)
    assert result.out.endswith("tiny.nn: ok, model tiny, 20 parameters in 6 tensors, batch 4\n")


def test_check_json_follows_sizes_and_type(nnc: Nnc) -> None:
    """The JSON has the shapes for the sizes given, in the float type given."""
    found = nnc("check", TINY, "--size", "batch=7", "--dtype", "f64", "--json").json
    assert found["sizes"] == {"batch": 7}
    assert found["inputs"] == [{"name": "x", "dtype": "f64", "shape": [7, 2], "bytes": 112}]
    assert [p["name"] for p in found["parameters"]][:2] == ["h1.W", "h1.b"]


def test_check_shows_errors_with_their_line(nnc: Nnc, tmp_path: Path) -> None:
    """An error in the file is shown with place and caret, exit code 1."""
    path = tmp_path / "bad.nn"
    path.write_text(LINE.replace("dense(1)", "dens(1)"))
    result = nnc("check", path)
    assert result.code == 1
    assert f"{path}:4:" in result.err and "^^^^" in result.err and "dense" in result.err


def test_check_unknown_size(nnc: Nnc) -> None:
    """A size the model does not have is an error."""
    result = nnc("check", TINY, "--size", "bach=3")
    assert result.code == 1 and "bach" in result.err


# --- compile


def test_compile_writes_library_and_header(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """The library loads and predicts for both batch sizes; the header declares them."""
    out = tmp_path / "out.so"
    result = nnc("compile", line, "-o", out, "--batch", "4,1", "--time")
    assert result.code == 0 and str(out) in result.out
    assert re.search(r"^codegen +\d+\.\d+ s  \d+ bytes", result.err, re.M)
    assert "line_infer_b4" in (tmp_path / "out.h").read_text()
    assert stat.S_IMODE(out.stat().st_mode) & 0o400
    model = nncompiler.load(out)
    assert model.predict({"x": np.zeros((9, 2), np.float32)}).shape == (9, 1)
    assert model.bindings.sizes("infer") == [4, 1]


def test_compile_by_sizes_and_functions(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """Each --size is a binding; --function leaves out what it never names."""
    out, header = tmp_path / "a.so", tmp_path / "b.h"
    words = ("--size", "batch=3", "--size", "batch=5", "--function", "infer", "--header", header)
    assert nnc("compile", line, "-o", out, *words).code == 0
    model = nncompiler.load(out)
    assert model.bindings.sizes("infer") == [5, 3]
    with pytest.raises(UserError, match="--function loss"):
        model.evaluate({"x": np.zeros((3, 2)), "t": np.zeros((3, 1))})
    assert header.exists() and not (tmp_path / "a.h").exists()
    words = ("--function", "infer", "--function", "init,infer")
    assert nnc("compile", line, "-o", out, *words).code == 0
    manifest = nncompiler.load(out).manifest
    assert manifest.initialises and {e.function for e in manifest.entries} == {"infer", "init"}


def test_compile_without_init(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """Parameters that nothing has set are refused; those that are loaded or embedded are not."""
    out, header, weights = tmp_path / "a.so", tmp_path / "a.h", tmp_path / "w.npz"
    drawn = nncompiler.compile(line, batch=3, functions="infer")
    assert drawn.parameters["y.W"].all()
    drawn.save(weights)
    x = np.ones((3, 2), np.float32)
    assert nncompiler.compile(line, batch=3, functions=[]).predict(x).shape == (3, 1)  # all
    words = ("compile", line, "-o", out, "--batch", "3", "--function", "infer")
    assert nnc(*words).code == 0 and "zeros: line_load gives" in header.read_text()
    model = nncompiler.load(out)
    uses = (
        lambda: model.init(1), lambda: model.predict(x), lambda: model.bind("infer", x=x),
        lambda: model.save(tmp_path / "zeros.npz"),
        lambda: model.save_checkpoint(tmp_path / "zeros.npz"),
    )  # fmt: skip
    for use in uses:
        with pytest.raises(UserError, match="compiled without `init`"):
            use()
    model.load_weights(weights)
    assert (model.predict(x) == drawn.predict(x)).all()
    assert nnc(*words, "--weights", weights).code == 0
    assert (nncompiler.load(out).predict(x) == drawn.predict(x)).all()


def test_compile_again_is_cached_and_the_same(
    nnc: Nnc, line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time the artifact comes from the cache; without the cache its bytes are equal."""
    monkeypatch.setattr("nncompiler.cache._compiler", lambda: b"as it is")
    out = tmp_path / "a.so"
    words = ("compile", line, "-o", out, "--function", "infer", "--json")
    first = nnc(*words).json
    data = out.read_bytes()
    second = nnc(*words).json
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["stages"] == second["stages"] and out.read_bytes() == data
    third = nnc(*words, "--no-cache").json
    assert not third["cached"] and out.read_bytes() == data


def test_warm_compile_imports_little(line: Path, tmp_path: Path, nnc: Nnc) -> None:
    """What is cached is written without importing llvmlite, NumPy or the driver."""
    words = ["compile", str(line), "-o", str(tmp_path / "a.so"), "--function", "infer"]
    nnc(*words)
    code = (
        "import sys; from nncompiler.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'llvmlite', 'numpy', 'lark', 'nncompiler.driver'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy or code else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code, *words], cwd=REPOSITORY,
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


def test_compile_embeds_weights(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """A library compiled with --weights starts with these, whatever the seed."""
    weights, out = tmp_path / "w.npz", tmp_path / "a.so"
    values = {"y.W": np.array([[3.0], [4.0]], np.float32), "y.b": np.array([5.0], np.float32)}
    np.savez(weights, **values)
    assert nnc("compile", line, "-o", out, "--function", "infer", "--weights", weights).code == 0
    model = nncompiler.load(out)
    for name, value in values.items():
        np.testing.assert_array_equal(model.parameters[name], value)


@pytest.mark.parametrize(("change", "text"), [
    ({"y.b": None}, "expected the parameter 'y.b', but the weights lack it"),
    ({"y.b": np.zeros(2)}, "expected parameter 'y.b' to be f32[1], but found float64[2]"),
    ({"z": np.zeros(1)}, "the weights hold 'z' too"),
])  # fmt: skip
def test_compile_refuses_weights_of_another_model(
    nnc: Nnc, line: Path, tmp_path: Path, change: dict[str, object], text: str
) -> None:
    """Weights that lack a parameter, or have another shape or one too many, are refused."""
    values = {"y.W": np.zeros((2, 1)), "y.b": np.zeros(1), **change}
    np.savez(tmp_path / "w.npz", **{k: v for k, v in values.items() if v is not None})
    out = tmp_path / "a.so"
    result = nnc("compile", line, "-o", out, "--weights", tmp_path / "w.npz")
    assert result.code == 1 and text in result.err and not out.exists()


def test_compile_cannot_write(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """A folder that is not there is an error of the user."""
    result = nnc("compile", line, "-o", tmp_path / "no" / "a.so", "--function", "infer")
    assert result.code == 1 and "NN0906: cannot write" in result.err


@pytest.mark.parametrize("place", ["no/a.so", "a.nn/a.so", "folder.so"])
def test_compile_says_so_before_it_works(nnc: Nnc, tmp_path: Path, place: str) -> None:
    """Where it cannot write it does not even read the model, which is wrong here."""
    (tmp_path / "folder.so").mkdir()
    (tmp_path / "a.nn").write_text("no model")
    result = nnc("compile", tmp_path / "a.nn", "-o", tmp_path / place)
    assert result.code == 1 and "NN0906: cannot write" in result.err, result.err
    flags = ("--data", tmp_path / "none.npz", "-o", tmp_path / "no" / "a.npz")
    assert "NN0906: cannot write" in nnc("predict", tmp_path / "a.nn", *flags).err


def test_compile_unknown_function(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """A function that models do not have is named with the nearest."""
    result = nnc("compile", line, "-o", tmp_path / "a.so", "--function", "inferr")
    assert result.code == 2 and "did you mean 'infer'?" in result.err


def test_compile_keeps_its_input(nnc: Nnc, line: Path) -> None:
    """The library does not overwrite the source, nor the header the library."""
    assert nnc("compile", line, "-o", line).code == 2
    assert nnc("compile", line, "-o", line.with_suffix(".h")).code == 2
    assert line.read_text() == LINE


def test_compile_function_the_model_lacks(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """A function that only other models have is refused, with what the model lacks."""
    line.write_text(LINE[: LINE.index("train {")])
    result = nnc("compile", line, "-o", tmp_path / "a.so", "--function", "train_step",
                 "--batch", "4")  # fmt: skip
    assert result.code == 1 and "NN0924" in result.err and "`train { ... }`" in result.err


def test_compile_watching_passes(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """--dump-dir, --time-passes, --check-passes and --print-changed work on a compilation."""
    out, folder = tmp_path / "a.so", tmp_path / "passes"
    result = nnc("compile", line, "-o", out, "--function", "infer", "--dump-dir", folder,
                 "--time-passes", "--check-passes", "--print-changed")  # fmt: skip
    assert result.code == 0 and out.exists()
    assert (folder / "09-infer-upstream.nnir").read_text().startswith("graph @infer")
    assert "// after upstream" in result.err and re.search(r"^total +\d", result.err, re.M)
    result = nnc("compile", line, "-o", out, "--stop-after", "bogus")
    known = "narrow, simplify, cse, fold-affine, dce, quotients, factor, fuse, upstream"
    assert result.code == 2 and f"{known}, downstream" in result.err


# --- dump


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


def test_dump_cannot_draw_assembly(nnc: Nnc) -> None:
    """Only graphs and plans can be drawn."""
    assert nnc("dump", TINY, "--stage", "asm", "--format", "dot").code == 2


# --- opt


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


# --- fmt


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


# --- ops, passes, doctor


def test_ops_lists_the_registry(nnc: Nnc) -> None:
    """Every operator is listed with its kind and a line on its meaning."""
    found = {op["name"]: op for op in nnc("ops", "--json").json}
    assert found["contract"]["kind"] == "contract" and not found["floor"]["differentiable"]
    assert all(op["doc"] for op in found.values())
    table = nnc("ops").out
    assert len(table.splitlines()) == len(found) + 1
    assert re.search(r"^reshape +view +yes +\S", table, re.M)


def test_passes_lists_options_and_pipeline(nnc: Nnc) -> None:
    """Every pass with its options, and the pipeline in order."""
    found = nnc("passes", "--json").json
    pipeline = "narrow,simplify,cse,fold-affine,dce,quotients,factor,fuse,upstream,downstream"
    assert found["pipeline"] == pipeline
    fuse = next(p for p in found["passes"] if p["name"] == "fuse")
    assert fuse["doc"] and "max-nodes" in fuse["options"]
    text = nnc("passes", "--long").out
    assert re.search(r"^dce +\S", text, re.M)
    assert f"pipeline    {pipeline}" in text


def test_doctor_finds_all_well(nnc: Nnc, cache_folder: Path) -> None:
    """Here everything is installed and works."""
    result = nnc("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    found = result.json
    assert found["cache"]["folder"] == str(cache_folder)
    assert found["self test"] == "compiled, trained and predicted" and found["problems"] == []


def test_doctor_tells_what_fails(nnc: Nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that fails is told, the rest still shown, and the exit code is 4."""
    from nncompiler.cli import doctor

    def broken() -> str:
        raise Limitation("NN0502", "no such processor")

    monkeypatch.setattr(doctor, "_self_test", broken)
    result = nnc("doctor")
    assert result.code == 4 and "NN0502: no such processor" in result.err
    assert re.search(r"^self test +FAILED$", result.out, re.M)


# --- gradcheck


def test_gradcheck_passes(nnc: Nnc) -> None:
    """The gradients of a model are right, and each parameter has a line."""
    result = nnc("gradcheck", TINY)
    assert (result.code, result.err) == (0, "")
    assert len(re.findall(r" ok$", result.out, re.M)) == 6
    words = ("--samples", "2", "--seed", "3", "--dtype", "f64", "--json")
    found = nnc("gradcheck", TINY, *words).json
    assert found["ok"] and {p["sampled"] for p in found["parameters"]} <= {1, 2}
    assert all(p["compiled"] < 1e-12 for p in found["parameters"])


def test_gradcheck_of_draws_in_f64(nnc: Nnc, tmp_path: Path) -> None:
    """Draws are rounded to f32 in f64, too: the reference rounds them as the model does."""
    path = tmp_path / "noisy.nn"
    path.write_text("""
model noisy {
    input x : f32[batch, 6]
    h = x |> dense(4)
    if training {
        h = h + normal(0, 1, h)
    }
    output h
    loss mean(exp(h))
}
train { optimizer = sgd(lr=0.1) batch = 5 }
""")
    for dtype in ("f32", "f64"):
        assert nnc("gradcheck", path, "--dtype", dtype).code == 0


def test_gradcheck_fails_on_wrong_gradients(nnc: Nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled gradient that is off by a thousandth is found; so is a wrong graph of it."""
    from nncompiler.runtime.model import Model

    right = Model.gradients
    monkeypatch.setattr(
        Model, "gradients", lambda self, data: {n: g * 1.001 for n, g in right(self, data).items()}
    )
    result = nnc("gradcheck", TINY)
    assert result.code == 4 and "gradients differ: h1.W, h1.b" in result.err
    assert result.out.count("FAILED") == 6
    assert nnc("gradcheck", TINY, "--tolerance", "0.01").code == 0


def test_gradcheck_differences_find_a_wrong_derivative(
    nnc: Nnc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If graph and code share a wrong derivative, central differences disagree."""
    from nncompiler.ir.interp import run
    from nncompiler.runtime.model import Model

    right = Model.gradients
    monkeypatch.setattr(
        Model, "gradients", lambda self, data: {n: g * 1.01 for n, g in right(self, data).items()}
    )

    def wrong(function: Function, arguments: object, *more: object) -> dict[str, object]:
        found = run(function, arguments, *more)  # type: ignore[arg-type]
        return {n: v * 1.01 if n.startswith("grad.") else v for n, v in found.items()}

    monkeypatch.setattr("nncompiler.ir.interp.run", wrong)
    found = nnc("gradcheck", TINY, "--json")
    assert found.code == 4
    for p in json.loads(found.out)["parameters"]:
        assert p["compiled"] < 1e-4 and p["differences"] > 0.005 and not p["ok"]


def test_gradcheck_needs_a_loss(nnc: Nnc, tmp_path: Path) -> None:
    """A model without a loss has no gradients."""
    path = tmp_path / "a.nn"
    path.write_text("model a {\n    input x : f32[4]\n    output y = x |> dense(2)\n}\n")
    result = nnc("gradcheck", path)
    assert result.code == 1 and "NN0924" in result.err
