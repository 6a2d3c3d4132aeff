"""`nnc train --averaged`, and `input_grad` among the functions of `nnc compile`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import nncompiler
from tests.cli.conftest import LINE, Nnc


def test_training_ends_with_the_averages(
    nnc: Nnc, line: Path, line_data: Path, tmp_path: Path
) -> None:
    """Weights and results are those of the averages that a checkpoint of the same run holds."""
    line.write_text(LINE.replace("epochs = 30", "epochs = 3\n    ema = 0.9"))
    weights, checkpoint = tmp_path / "w.npz", tmp_path / "c.npz"
    words = ("train", line, "--data", line_data, "--quiet", "--json")
    found = nnc(*words, "--averaged", "--weights-out", weights, "--checkpoint", checkpoint)
    plain = nnc(*words)
    assert (found.code, plain.code) == (0, 0)
    with np.load(weights) as written, np.load(checkpoint) as held:
        for name in ("y.W", "y.b"):
            np.testing.assert_array_equal(written[name], held[f"slot/opt.ema.{name}"])
            assert not np.array_equal(written[name], held[f"param/{name}"])
    losses = [r.json["validation"]["loss"] for r in (found, plain)]
    assert losses[0] > losses[1]  # the averages lag behind at the beginning


def test_without_averages_it_is_refused_before_training(
    nnc: Nnc, line: Path, line_data: Path
) -> None:
    """The message names the setting."""
    found = nnc("train", line, "--data", line_data, "--quiet", "--averaged")
    assert found.code == 1 and "NN0718" in found.err and "ema = 0.999" in found.err


def test_input_gradients_are_compiled_where_named(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """The library has the function, the header declares it; without the name, neither does."""
    so = tmp_path / "line.so"
    assert nnc("compile", line, "-o", so).code == 0
    assert "input_grad" not in so.with_suffix(".h").read_text()
    assert nnc("compile", line, "-o", so, "--function", "init,loss,input_grad").code == 0
    assert "int line_input_grad_b8(" in so.with_suffix(".h").read_text()
    model = nncompiler.load(so)
    x, t = np.ones((8, 2), np.float32), np.zeros((8, 1), np.float32)
    w, b = (np.asarray(model.parameters[n]) for n in ("y.W", "y.b"))
    expected = 2 / 8 * (x @ w + b - t) @ w.T
    found = model.input_gradients({"x": x, "t": t})["x"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
