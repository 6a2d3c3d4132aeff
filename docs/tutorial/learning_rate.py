"""The power plant network of the textbook at learning rates of 0.1 and 0.2.

    python docs/tutorial/learning_rate.py [--out out]
"""

from __future__ import annotations

import numpy as np
from experiment import MODELS, draw, folder, table

import nncompiler
from nncompiler.report.chart import Panel, Series

X = np.array([(0.04, 0.81), (0.84, 0.58), (0.50, 0.07), (0.53, 1.00)], np.float32)
T = np.array([[0.94], [0.13], [0.57], [0.36]], np.float32)
WEIGHTS = {
    "h1.W": [[-0.20, 0.09, 0.11], [0.11, -0.13, -0.02]], "h1.b": [0.10, -0.19, 0.04],
    "h2.W": [[-0.04, 0.20], [0.10, 0.14], [0.06, -0.09]], "h2.b": [0.15, 0.12],
    "y.W": [[0.12], [-0.50]], "y.b": [0.10],
}  # fmt: skip
GOAL = 1e-4
#: Model, title, epochs to train.
NETWORKS = (("powerplant", "logistic units", 16000), ("powerplant_relu", "ReLU units", 600))


def losses(name: str, rate: float, epochs: int) -> np.ndarray:
    """The loss before each step, all four rows in one batch."""
    model = nncompiler.compile(MODELS / f"{name}.nn", batch=4, dtype="f64")
    model.load_state_dict({n: np.array(w, np.float64) for n, w in WEIGHTS.items()})
    model.rate = rate
    history = model.fit({"x": X.astype(float), "t": T.astype(float)}, epochs=epochs,
                        shuffle=False, progress=False)  # fmt: skip
    return np.array(history["loss"])


def main() -> None:
    out = folder(__doc__)
    rows: list[list[object]] = [["network", "rate", "epochs to 0.0001", "steps that raise it"]]
    panels = []
    for name, title, epochs in NETWORKS:
        lines = []
        for rate in (0.1, 0.2):
            found = losses(name, rate, epochs)
            below = np.flatnonzero(found < GOAL)
            reached = str(below[0]) if len(below) else f"not in {epochs}"
            seen = found[: below[0] + 1] if len(below) else found
            rows.append([title, str(rate), reached, str(int((np.diff(seen) > 0).sum()))])
            step = max(1, epochs // 400)
            at = [float(k) for k in range(0, epochs, step)]
            lines.append(Series(f"rate {rate}", found[::step].tolist(), at))
        panels.append(Panel(f"loss, {title}", lines, logarithmic=True))
    table(rows)
    draw(out / "learning_rate.svg", panels)


if __name__ == "__main__":
    main()
