"""Plain gradient descent, momentum and Adam on the same network, each at its best rate of a few.

    python docs/tutorial/momentum.py [--out out]
"""

from __future__ import annotations

from experiment import MODELS, draw, folder, table

import nncompiler
from nncompiler.report.chart import Panel, Series
from nncompiler.runtime import datasets

EPOCHS = 15
#: Name, optimizer, rates to choose from.
CASES = (
    ("SGD", "sgd", "", (0.03, 0.1, 0.3)),
    ("momentum 0.9", "sgd", ", momentum = 0.9", (0.01, 0.03, 0.1)),
    ("Nesterov 0.9", "sgd", ", momentum = 0.9, nesterov = true", (0.01, 0.03, 0.1)),
    ("Adam", "adam", "", (0.001, 0.003, 0.01)),
)


def main() -> None:
    out = folder(__doc__)
    model_text = (MODELS / "digits_mlp.nn").read_text(encoding="utf-8").split("train {")[0]
    digits = datasets.digits()
    rows: list[list[object]] = [
        ["optimizer", "rate", "loss after 1", "5", f"{EPOCHS}", "validation accuracy"]]
    lines = []
    for name, kind, more, rates in CASES:
        text = f"{model_text}train {{ optimizer = {kind}(lr = 0.1{more}) batch = 32 }}"
        model = nncompiler.compile(text, batch=[32, 1])
        tried = []
        for rate in rates:
            model.init(0)
            model.rate = rate
            history = model.fit(digits.train, epochs=EPOCHS, progress=False,
                                validation_data=digits.validation)  # fmt: skip
            tried.append((history["loss"][-1], rate, history))
        _, rate, history = min(tried, key=lambda found: found[:2])
        loss = history["loss"]
        figures = (loss[0], loss[4], loss[-1], history["val_accuracy"][-1])
        rows.append([name, str(rate), *(f"{v:.4f}" for v in figures)])
        lines.append(Series(name, loss))
    table(rows)
    draw(out / "momentum.svg", [Panel("training loss", lines, logarithmic=True)])


if __name__ == "__main__":
    main()
