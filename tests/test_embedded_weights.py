"""Artifacts that carry their weights: parameters, and what a model keeps beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.cli import main

MODEL = """
model norm {
    input x : f32[batch, 3]
    state seen : i32[] = 0
    h = x |> dense(4) |> batch_norm()
    if training {
        seen = seen + 1
    }
    output y = h |> dense(2)
    target t : f32[batch, 2]
    loss mse(y, t)
}

train {
    optimizer = sgd(lr=0.1)
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The model as a file."""
    (tmp_path / "norm.nn").write_text(MODEL)
    return tmp_path / "norm.nn"


def test_running_statistics_are_embedded(source, tmp_path):
    """What a trained model keeps predicts the same from an artifact of its weights."""
    rng = np.random.default_rng(0)
    x = rng.random((4, 3), np.float32)
    model = nncompiler.compile(source, batch=4)
    model.init(1)
    for _ in range(3):
        model.train_step(x=x, t=x[:, :2])
    model.save(tmp_path / "w.npz")
    assert model.state_dict()["seen"] == 3
    command = ["compile", str(source), "--batch", "4", "--weights", str(tmp_path / "w.npz")]
    assert main([*command, "-o", str(tmp_path / "norm.so")]) == 0
    loaded = nncompiler.load(tmp_path / "norm.so")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], value)
    np.testing.assert_array_equal(loaded.predict({"x": x}), model.predict({"x": x}))


def test_weights_without_the_statistics_are_refused(source, tmp_path, capsys):
    """Predictions from statistics of no data would be wrong."""
    model = nncompiler.compile(source, batch=4)
    kept = {n: v for n, v in model.state_dict().items() if "running" not in n}
    np.savez(tmp_path / "w.npz", **kept)
    command = ["compile", str(source), "--batch", "4", "--weights", str(tmp_path / "w.npz")]
    assert main([*command, "-o", str(tmp_path / "norm.so")]) != 0
    assert "NN0805" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--weights", "--freeze"])
@pytest.mark.parametrize(("suffix", "value"), [("running_mean", 1e300), ("seen", 2**40)])
def test_weights_that_the_types_cannot_hold(source, tmp_path, capsys, flag, suffix, value):
    """They are refused, as they are when they are loaded, not made infinite or cut off."""
    model = nncompiler.compile(source, batch=4)
    weights = model.state_dict()
    name = next(n for n in weights if n.endswith(suffix))
    wide = np.int64 if isinstance(value, int) else np.float64
    np.savez(tmp_path / "w.npz", **{**weights, name: np.full(weights[name].shape, value, wide)})
    command = ["compile", str(source), "--batch", "4", flag, str(tmp_path / "w.npz")]
    assert main([*command, "-o", str(tmp_path / "norm.so")]) == 1
    assert "NN0807" in capsys.readouterr().err
