"""Dropout on a network that could learn its data by heart, of which some are wrong.

    python docs/tutorial/dropout.py [--out out]
"""

from __future__ import annotations

import numpy as np
from experiment import draw, folder, table

import nncompiler
from nncompiler.report.chart import Panel, Series
from nncompiler.runtime import datasets

ROWS, WRONG, EPOCHS, SEEDS = 400, 0.2, 60, 3
NETWORK = """\
model wide(rate = RATE) {
    input image : f32[batch, 64]
    target digit : i32[batch]
    h1 = image |> dense(256) |> relu |> dropout(rate)
    h2 = h1 |> dense(256) |> relu |> dropout(rate)
    logits = h2 |> dense(10)
    output probs = softmax(logits)
    loss cross_entropy(logits, digit)
    metric accuracy = mean(argmax(logits) == digit)
}
train { optimizer = adam(lr = 0.001) batch = 32 }
"""


def main() -> None:
    out = folder(__doc__)
    digits = datasets.digits()
    few = {name: values[:ROWS].copy() for name, values in digits.train.items()}
    draw_wrong = np.random.default_rng(0)
    wrong = draw_wrong.random(ROWS) < WRONG
    few["digit"][wrong] = draw_wrong.integers(0, 10, wrong.sum())
    rows: list[list[object]] = [
        ["rate", "loss", "val_loss", "validation accuracy", "of seeds, least and most"]]
    lines = []
    for rate in (0.0, 0.25, 0.5):
        model = nncompiler.compile(NETWORK.replace("RATE", str(rate)), batch=[32, 1])
        curves, accuracies, losses = [], [], []
        for seed in range(SEEDS):
            model.init(seed)
            history = model.fit(few, epochs=EPOCHS, seed=seed, progress=False,
                                validation_data=digits.validation)  # fmt: skip
            curves.append(history["val_loss"])
            accuracies.append(history["val_accuracy"][-1])
            losses.append(history["loss"][-1])
        mean = np.mean(curves, axis=0)
        span = f"{min(accuracies):.3f} .. {max(accuracies):.3f}"
        rows.append([str(rate), f"{np.mean(losses):.4f}", f"{mean[-1]:.3f}",
                     f"{np.mean(accuracies):.3f}", span])  # fmt: skip
        lines.append(Series(f"rate {rate}", mean.tolist()))
    print(f"{ROWS} rows, {wrong.sum()} of them labelled at random; {EPOCHS} epochs, "
          f"mean of {SEEDS} seeds")
    table(rows)
    draw(out / "dropout.svg", [Panel("validation loss, mean of the seeds", lines,
                                     logarithmic=True)])  # fmt: skip


if __name__ == "__main__":
    main()
