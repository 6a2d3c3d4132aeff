"""`nnc gradcheck`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nncompiler.ir.graph import Function
from tests.cli.conftest import MODELS, Nnc

TINY = MODELS / "tiny.nn"


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


def test_gradcheck_of_a_gradient_that_is_zero_but_for_rounding(nnc: Nnc, tmp_path: Path) -> None:
    """A bias before a normalisation has none; its rounding is no error, a wrong gradient is."""
    path = tmp_path / "normal.nn"
    path.write_text("""
model normal {
    input x : f32[batch, 1, 8, 8]
    target t : i32[batch]
    h = x |> conv2d(8, 3) as first |> batch_norm() |> relu
    logits = flatten(h) |> dense(4)
    output logits
    loss cross_entropy(logits, t)
}
train { optimizer = sgd(lr=0.1) batch = 32 }
""")
    found = nnc("gradcheck", path, "--json", "--tolerance", "1e-6")
    rows = {p["name"]: p for p in found.json["parameters"]}
    assert found.code == 0 and rows["first.b"]["largest"] < 1e-12
    assert rows["first.b"]["compiled"] > 1e-6 and rows["first.b"]["rounding"] > 1e-7
    assert re.search(r"first\.b .* ok, rounding$", nnc(
        "gradcheck", path, "--tolerance", "1e-6").out, re.M)  # fmt: skip


def test_gradcheck_at_kinks(nnc: Nnc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference over a kink disagrees; a shorter one does not."""
    path = tmp_path / "kinks.nn"
    path.write_text("""
model kinks {
    input x : f32[batch, 3]
    target t : f32[batch, 4]
    y = x |> dense(4)
    output y
    loss mean(abs(y - t))
}
train { optimizer = sgd(lr=0.1) batch = 100 }
""")
    monkeypatch.setattr("nncompiler.cli.gradcheck.STEPS", (1e-2,))
    assert nnc("gradcheck", path).code == 4
    monkeypatch.setattr("nncompiler.cli.gradcheck.STEPS", (1e-2, 1e-5, 1e-6))
    assert nnc("gradcheck", path).code == 0
