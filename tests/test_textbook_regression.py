"""Section 1 of the worked examples: a regression network 2-3-2-1, with logistic and ReLU units.

The network predicts the output of a power plant. Neurons 3 to 5 are `h1`, 6 and 7 `h2`, 8 is `y`.
The printed numbers were rounded by their author, hence the tolerances.
"""

from __future__ import annotations

import numpy as np
import pytest

import nncompiler
from nncompiler.runtime.datasets import range_scaling
from nncompiler.runtime.model import Model
from tests.model_support import MODELS, cache_of_run, close, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

#: Neuron -> bias, then a weight for each input; neurons 1 and 2 are the inputs.
WEIGHTS = {
    3: (0.10, -0.20, 0.11), 4: (-0.19, 0.09, -0.13), 5: (0.04, 0.11, -0.02),
    6: (0.15, -0.04, 0.10, 0.06), 7: (0.12, 0.20, 0.14, -0.09), 8: (0.10, 0.12, -0.50),
}  # fmt: skip
LAYERS = {"h1": (3, 4, 5), "h2": (6, 7), "y": (8,)}
RAW = np.array([(3.21, 86.34, 491.35), (31.41, 68.50, 430.37),
                (19.31, 30.59, 463.00), (20.64, 99.97, 447.14)])  # fmt: skip
LOW, HIGH = (1.81, 25.56, 420.26), (37.11, 100.16, 495.76)
ROWS = np.array([(0.04, 0.81, 0.94), (0.84, 0.58, 0.13), (0.50, 0.07, 0.57), (0.53, 1.00, 0.36)])
D2 = slice(1, 2)
DTYPES = pytest.mark.parametrize("dtype", ["f32", "f64"])


def network(name: str = "powerplant", dtype: str = "f32") -> Model:
    """The compiled network with the printed weights."""
    model = nncompiler.compile(MODELS / f"{name}.nn", batch=(4, 1), dtype=dtype)
    state = {}
    for layer, neurons in LAYERS.items():
        table = np.array([WEIGHTS[n] for n in neurons])
        state[f"{layer}.b"], state[f"{layer}.W"] = table[:, 0], table[:, 1:].T
    kind = model.manifest.dtype
    model.load_state_dict({name: value.astype(kind) for name, value in state.items()})
    return model


def rows(model: Model, which: slice = slice(None)) -> dict[str, np.ndarray]:
    """Some of d1 to d4."""
    data = ROWS[which].astype(model.manifest.dtype)
    return {"x": data[:, :2].copy(), "t": data[:, 2:].copy()}


def predictions(model: Model) -> np.ndarray:
    return model.predict({"x": rows(model)["x"]})["prediction"].ravel()


def deltas(model: Model, which: slice) -> dict[int, float]:
    """Neuron -> dE/dz for one row: what its bias receives."""
    gradients = model.gradients(rows(model, which))
    return {
        n: float(gradients[f"{layer}.b"][k])
        for layer, neurons in LAYERS.items() for k, n in enumerate(neurons)
    }


def epochs_until(model: Model, loss: float, rate: float, most: int) -> int:
    """Full-batch updates until the loss is below `loss`, by the native loop; trains that far."""
    start = model.state_dict()
    model.rate = rate
    data = rows(model)
    history = model.fit(data, epochs=most, batch=4, shuffle=False, progress=False)
    # the loss of an epoch is that before its update
    count = int(np.argmax(np.array(history["loss"]) < loss))
    assert history["loss"][count] < loss, f"{most} epochs are not enough"
    model.init(0)
    model.load_state_dict(start)
    model.rate = rate
    model.fit(data, epochs=count, batch=4, shuffle=False, progress=False)
    assert model.loss(data) < loss
    return count


def test_rows_are_the_measurements_scaled_to_their_ranges() -> None:
    """The raw rows, normalised, are the rows printed."""
    close(range_scaling(LOW, HIGH).apply(RAW), ROWS, 0.005 + 1e-9)


@DTYPES
def test_weighted_sums(dtype: str) -> None:
    """z3 to z8 of d2 are those printed."""
    model = network(dtype=dtype)
    found = model.predict({"x": rows(model, D2)["x"]})
    z = np.concatenate([found[name].ravel() for name in ("z1", "z2", "z3")])
    close(z, (-0.0042, -0.1898, 0.1208, 0.207122, 0.235460, -0.113108), 1e-4)


@DTYPES
def test_predictions_and_loss(dtype: str) -> None:
    """Predictions of the four rows, and half the sum of squared errors."""
    model = network(dtype=dtype)
    close(predictions(model), (0.4715, 0.4718, 0.4717, 0.4716), 1e-4)
    close(model.loss(rows(model)), 0.1792, 1e-4)


@DTYPES
def test_deltas(dtype: str) -> None:
    """dE/dz of d2, as the gradients of the biases of a batch of one row."""
    found = deltas(network(dtype=dtype), D2)
    expected = {8: 0.0852, 7: -0.0105, 6: 0.0025, 5: 0.0003, 4: -0.0003, 3: -0.0006}
    close([found[n] for n in expected], list(expected.values()), 1e-4)


@DTYPES
def test_weight_gradients_of_a_row(dtype: str) -> None:
    """Gradients of single weights for d2."""
    model = network(dtype=dtype)
    g = model.gradients(rows(model, D2))
    found = g["y.W"][0, 0], g["y.W"][1, 0], g["h2.W"][2, 1], g["h2.W"][1, 0]
    close(found, (0.0470, 0.0476, -0.0056, 0.0011), 1e-4)


@DTYPES
def test_weight_gradient_row_by_row_and_summed(dtype: str) -> None:
    """The gradient of w7,5 for each row alone, and that of the batch, which is their sum."""
    model = network(dtype=dtype)
    single = [model.gradients(rows(model, slice(k, k + 1)))["h2.W"][2, 1] for k in range(4)]
    whole = model.gradients(rows(model))["h2.W"][2, 1]
    close(single, (0.0073, -0.0056, 0.0016, -0.0018), 1e-4)
    close(whole, 0.0015, 1e-4)
    close(whole, np.sum(single, dtype=np.float64), 1e-8)


@DTYPES
def test_one_step(dtype: str) -> None:
    """One full-batch step of gradient descent at rate 0.2."""
    model = network(dtype=dtype)
    model.rate = 0.2
    before = model.train_step(**rows(model))
    close(before, 0.1792, 1e-4)
    close(predictions(model), (0.4738, 0.4741, 0.4740, 0.4739), 1e-4)
    close(model.loss(rows(model)), 0.1790, 1e-4)


def test_training() -> None:
    """7609 epochs at rate 0.2 bring the loss below 0.0001; then the predictions are close."""
    model = network(dtype="f64")
    assert abs(epochs_until(model, 1e-4, 0.2, 8000) - 7609) <= 76
    close(predictions(model), (0.9266, 0.1346, 0.5700, 0.3606), 5e-4)


def test_training_in_single_precision() -> None:
    """The default float type comes to the same number of epochs and the same predictions."""
    model = network()
    assert abs(epochs_until(model, 1e-4, 0.2, 8000) - 7609) <= 76
    close(predictions(model), (0.9266, 0.1346, 0.5700, 0.3606), 5e-4)


@DTYPES
def test_relu_predictions_and_loss(dtype: str) -> None:
    """With ReLU units: predictions and loss."""
    model = network("powerplant_relu", dtype)
    close(predictions(model), (0.0405, 0.0643, 0.0621, 0.0512), 1e-4)
    close(model.loss(rows(model)), 0.5834, 1e-4)


@DTYPES
def test_relu_dead_unit(dtype: str) -> None:
    """Neuron 4 is dead: below zero for all rows, and without any gradient."""
    model = network("powerplant_relu", dtype)
    z = model.predict({"x": rows(model)["x"]})["z1"]
    assert (z[:, 1] < 0).all()
    gradients = model.gradients(rows(model))
    assert gradients["h1.b"][1] == 0
    assert not gradients["h1.W"][:, 1].any()


@DTYPES
def test_relu_deltas(dtype: str) -> None:
    """dE/dz of d2 with ReLU units."""
    found = deltas(network("powerplant_relu", dtype), D2)
    expected = {8: -0.0657, 7: 0.0329, 6: -0.0079, 5: -0.0034, 4: 0, 3: 0}
    close([found[n] for n in expected], list(expected.values()), 1e-4)


@pytest.mark.parametrize(("rate", "epochs"), [(0.1, 412), (0.2, 429)])
def test_relu_training(rate: float, epochs: int) -> None:
    """Epochs until the loss is below 0.0001; at rate 0.2 training is unstable, and no faster."""
    model = network("powerplant_relu", "f64")
    assert abs(epochs_until(model, 1e-4, rate, 600) - epochs) <= round(0.01 * epochs)
