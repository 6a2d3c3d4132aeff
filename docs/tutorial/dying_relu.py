"""ReLU units that answer 0 to every row learn nothing more: how many die, and what helps.

    python docs/tutorial/dying_relu.py [--out out]
"""

from __future__ import annotations

import numpy as np
from experiment import MODELS, draw, folder, table

import nncompiler
from nncompiler.report.chart import Panel, Series
from nncompiler.runtime import datasets
from nncompiler.runtime.callbacks import Callback, Logs
from nncompiler.runtime.training import Run

UNITS, EPOCHS = 64, 20
RATES = (0.05, 0.4, 0.8, 1.2)
#: What is compared: name, activation, initial bias.
CASES = (
    ("relu, bias 0", "relu", "zeros()"),
    ("relu, bias 0.5", "relu", "constant(0.5)"),
    ("leaky_relu, bias 0", "leaky_relu", "zeros()"),
)


def network(activation: str, bias: str) -> str:
    """Two layers whose weighted sums are outputs, as are the predictions."""
    return f"""\
model units {{
    input image : f32[batch, 64]
    target digit : i32[batch]
    z1 = image |> biased({UNITS})
    z2 = {activation}(z1) |> biased({UNITS})
    logits = {activation}(z2) |> dense(10)
    output z1
    output z2
    loss cross_entropy(logits, digit)
    metric accuracy = mean(argmax(logits) == digit)
}}
train {{ optimizer = sgd(lr = 0.1) batch = 32 }}
layer biased(units)(x : f32[..., n]) {{
    param W : f32[n, units] = he_uniform()
    param b : f32[units] = {bias}
    return x @ W + b
}}
"""


class Dead(Callback):
    """Counts, after every epoch, the units whose weighted sum is positive for no row."""

    def __init__(self, image: np.ndarray) -> None:
        self.image, self.found = image, [0.0] * 0

    def epoch_end(self, run: Run, logs: Logs) -> None:
        outputs = run.model.predict({"image": self.image})
        silent = [(outputs[z] <= 0).all(axis=0).sum() for z in ("z1", "z2")]
        self.found.append(float(sum(silent)))


def power_plant() -> None:
    """The textbook's network: one of its hidden units is dead from the beginning."""
    model = nncompiler.compile(MODELS / "powerplant_relu.nn", batch=4)
    model.load_state_dict({
        "h1.W": np.array([[-0.20, 0.09, 0.11], [0.11, -0.13, -0.02]], np.float32),
        "h1.b": np.array([0.10, -0.19, 0.04], np.float32),
        "h2.W": np.array([[-0.04, 0.20], [0.10, 0.14], [0.06, -0.09]], np.float32),
        "h2.b": np.array([0.15, 0.12], np.float32),
        "y.W": np.array([[0.12], [-0.50]], np.float32), "y.b": np.array([0.10], np.float32),
    })  # fmt: skip
    x = np.array([(0.04, 0.81), (0.84, 0.58), (0.50, 0.07), (0.53, 1.00)], np.float32)
    t = np.array([[0.94], [0.13], [0.57], [0.36]], np.float32)
    print("power plant, weighted sums of neurons 3, 4, 5 for the four rows")
    print(model.predict({"x": x})["z1"].round(3))
    print("gradients of their biases:", model.gradients({"x": x, "t": t})["h1.b"].round(4))


def main() -> None:
    out = folder(__doc__)
    power_plant()
    digits = datasets.digits()
    rows: list[list[object]] = [["rate", *(name for name, _, _ in CASES)]]
    lines = []
    models = [nncompiler.compile(network(*case[1:]), batch=[32, 1]) for case in CASES]
    for rate in RATES:
        row: list[object] = [f"{rate}"]
        for model in models:
            dead = Dead(digits.train["image"])
            model.init(0)
            model.rate = rate
            model.fit(digits.train, epochs=EPOCHS, callbacks=[dead], progress=False)
            accuracy = model.evaluate(digits.validation)["accuracy"]
            row.append(f"{dead.found[-1]:.0f} silent, accuracy {accuracy:.3f}")
            if model is models[0]:
                lines.append(Series(f"rate {rate}", dead.found))
        rows.append(row)
    print(f"\ndigits, of {2 * UNITS} hidden units after {EPOCHS} epochs")
    table(rows)
    title = "units that are 0 for every row (relu, bias 0)"
    draw(out / "dying_relu.svg", [Panel(title, lines, logarithmic=False)])


if __name__ == "__main__":
    main()
