"""What a mistake in the use of a model is told to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import UserError

HEAD = "model m { input x : f32[batch, 4] target c : i32[batch] y = x |> dense(3) "
LOSS = "loss cross_entropy(y, c) "
TRAIN = "train { optimizer = sgd(lr=0.1) batch = 2 }"
X, C = np.zeros((2, 4), np.float32), np.zeros(2, np.int32)


@pytest.mark.parametrize(("change", "help"), [
    ({"x": X[0]}, "array[None]"), ({"x": X.reshape(2, 2, 2)}, "array.reshape(-1, 4)"),
    ({"c": np.eye(3, dtype=np.float32)[C]}, "array.argmax(-1)"),
    ({"c": C[:, None]}, "array.reshape(-1)"), ({"x": X[:, :3]}, None),
])  # fmt: skip
def test_shapes(change: dict[str, Any], help: str | None) -> None:
    model = nncompiler.compile(HEAD + LOSS + "}" + TRAIN)
    with pytest.raises(UserError) as caught:
        model.evaluate({"x": X, "c": C, **change})
    assert caught.value.code == "NN0703"
    assert caught.value.help is None if help is None else help in str(caught.value.help)


def test_axes_in_another_order() -> None:
    """Images with the channels last are not told to be reshaped, which takes them to pieces."""
    source = "model m { input x : f32[batch, 3, 8, 8] output y = 2 * x }"
    model = nncompiler.compile(source, batch=2)
    images = np.zeros((2, 8, 8, 3), np.float32)
    with pytest.raises(UserError) as caught:
        model.predict(images)
    assert "array.transpose(0, 3, 1, 2)" in str(caught.value.help)
    assert model.predict(images.transpose(0, 3, 1, 2)).shape == (2, 3, 8, 8)


def test_weights_with_axes_in_another_order() -> None:
    model = nncompiler.compile(HEAD + LOSS + "output y }", batch=2)
    weights = model.state_dict()
    with pytest.raises(UserError) as caught:
        model.load_state_dict({**weights, "y.W": weights["y.W"].T})
    assert caught.value.code == "NN0807" and "[in, out]" in str(caught.value.help)


@pytest.mark.parametrize(("text", "function", "help"), [
    (HEAD + LOSS + "}" + TRAIN, "infer", "output y"),
    (HEAD.replace("target c : i32[batch] ", "") + "output y }", "loss", "loss mse(y, t)"),
    (HEAD + LOSS + "}", "train_step", "train {"),
    (HEAD + LOSS + "}" + TRAIN, "input_grad", "--function infer,loss,input_grad"),
])  # fmt: skip
def test_functions_that_are_not_there(text: str, function: str, help: str) -> None:
    with pytest.raises(UserError) as caught:
        nncompiler.compile(text, batch=2).bind(function, x=X, c=C)
    assert caught.value.code == "NN0711" and help in str(caught.value.help)
