"""`nnc check` and `nnc compile`."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import UserError
from tests.cli.conftest import LINE, MODELS, REPOSITORY, Nnc

TINY = MODELS / "tiny.nn"


def test_check_lists_parameters(nnc: Nnc) -> None:
    """`check --params` names each parameter with type and bytes, and the totals."""
    result = nnc("check", TINY, "--params")
    assert result.code == 0
    assert re.search(r"^h1\.W +f32\[2,3\] +6 +24$", result.out, re.M)
    assert re.search(r"^total +20 +80$", result.out, re.M)
    assert result.out.endswith("tiny.nn: ok, model tiny, 20 parameters in 6 tensors, batch 4\n")


def test_check_lists_states(nnc: Nnc, tmp_path: Path) -> None:
    """What a model keeps without training is listed, and counted, apart."""
    path = tmp_path / "norm.nn"
    path.write_text(LINE.replace("y = x |> dense(1)", "y = x |> dense(1) |> batch_norm()"))
    result = nnc("check", path, "--params")
    parameters, states = result.out.split("\n\n")[:2]
    assert "running" not in parameters and re.search(r"^total +5 +20$", parameters, re.M)
    assert re.search(r"^batch_norm1\.running_mean +f32\[1\] +1 +4$", states, re.M)
    assert "5 parameters in 4 tensors" in result.out
    found = nnc("check", path, "--json").json
    assert [s["name"].split(".")[-1] for s in found["states"]] == ["running_mean", "running_var"]


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
    ({"y.b": None}, "expected 2 parameters, but 1 is missing: y.b"),
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
    assert (folder / "10-infer-upstream.nnir").read_text().startswith("graph @infer")
    assert "// after upstream" in result.err and re.search(r"^total +\d", result.err, re.M)
    result = nnc("compile", line, "-o", out, "--stop-after", "bogus")
    known = "narrow, simplify, cse, fold-affine, dce, quotients, factor, sink, fuse, upstream"
    assert result.code == 2 and f"{known}, downstream" in result.err
