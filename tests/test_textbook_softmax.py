"""Section 3 of the worked examples: softmax, cross-entropy, and their gradients on the logits."""

from __future__ import annotations

import numpy as np
import pytest

import nncompiler
from nncompiler.runtime.model import Model
from tests.model_support import cache_of_run, close, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

#: Three softmax units (neurons 8 to 10) fed by neuron 6; what the other neurons feed them is
#: given. The loss is a sum, so that gradients are not averaged over the rows.
SOURCE = """
model softmax_units {
    input a6 : f32[batch, 1]
    input rest : f32[batch, 3]
    target right : i32[batch]

    from6 = dense(3)
    logits = (a6 |> from6) + rest

    output logits
    output probs = softmax(logits)
    loss summed = batch * cross_entropy(logits, right)
}

train {
    optimizer = sgd(lr=0.01)
    batch = 4
}
"""

LOGITS = np.array([
    (0.107653, 0.099377, 0.103000), (0.106456, 0.098249, 0.104083),
    (0.106093, 0.098227, 0.104006), (0.107395, 0.098955, 0.103460),
])  # fmt: skip
CLASSES = np.array([2, 0, 1, 1], np.int32)
DELTAS = np.array([
    (0.3348, 0.3320, -0.6668), (-0.6655, 0.3318, 0.3337),
    (0.3344, -0.6682, 0.3337), (0.3347, -0.6681, 0.3334),
])  # fmt: skip
A6 = np.array([[0.1145], [0.1211], [0.1167], [0.1195]])
WEIGHTS = np.array([[0.0, -0.07, 0.0]])  # w8,6, w9,6 and w10,6
DTYPES = pytest.mark.parametrize("dtype", ["f32", "f64"])


def units(dtype: str) -> Model:
    model = nncompiler.compile(SOURCE, batch=(4, 1), dtype=dtype)
    kind = model.manifest.dtype
    model.load_state_dict({"from6.W": WEIGHTS.astype(kind), "from6.b": np.zeros(3, kind)})
    return model


def inputs(model: Model, logits: np.ndarray, a6: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs for which the logits are these."""
    kind = model.manifest.dtype
    return {"a6": a6.astype(kind), "rest": (logits - a6 @ WEIGHTS).astype(kind)}


@DTYPES
def test_softmax(dtype: str) -> None:
    """softmax(1.5, -0.9, 0.6), to all the digits printed."""
    model = units(dtype)
    found = model.predict(inputs(model, np.array([[1.5, -0.9, 0.6]]), np.zeros((1, 1))))["probs"]
    close(found, [(0.667874356, 0.060588195, 0.27153745)], 1e-6)


@DTYPES
def test_softmax_of_the_rows(dtype: str) -> None:
    """The logits are those printed, and d1's probabilities follow."""
    model = units(dtype)
    found = model.predict(inputs(model, LOGITS, A6))
    close(found["logits"], LOGITS, 1e-6)
    close(found["probs"][0], (0.3348, 0.3320, 0.3332), 1e-4)
    close(found["probs"].sum(axis=1), np.ones(4), 1e-6)


@DTYPES
@pytest.mark.parametrize("row", range(4))
def test_gradients_on_the_logits(dtype: str, row: int) -> None:
    """Softmax less the right class: the gradient of the biases for a batch of one row."""
    model = units(dtype)
    one = slice(row, row + 1)
    data = {**inputs(model, LOGITS[one], A6[one]), "right": CLASSES[one]}
    close(model.gradients(data)["from6.b"], DELTAS[row], 1e-4)


@DTYPES
def test_cross_entropy(dtype: str) -> None:
    """The loss is the sum of -log of the right class's probability."""
    model = units(dtype)
    data = {**inputs(model, LOGITS, A6), "right": CLASSES}
    right = np.exp(LOGITS)[range(4), CLASSES] / np.exp(LOGITS).sum(axis=1)
    close(model.loss(data), -np.log(right).sum(), 1e-5)


@DTYPES
def test_weight_and_its_update(dtype: str) -> None:
    """The gradient of w9,6 summed over the rows, and the weight after a step at rate 0.01."""
    model = units(dtype)
    data = {**inputs(model, LOGITS, A6), "right": CLASSES}
    close(model.gradients(data)["from6.W"][0, 1], -0.0796, 1e-4)
    model.train_step(**data)
    close(model.parameters["from6.W"][0, 1], -0.0692, 1e-4)
    close(model.parameters["from6.W"][0, 1], -0.07 + 0.01 * 0.0796, 2e-6)
