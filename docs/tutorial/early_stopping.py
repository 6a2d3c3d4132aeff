"""A network that is too large for its data, stopped when the validation loss no longer falls.

    python docs/tutorial/early_stopping.py [--out out]
"""

from __future__ import annotations

import numpy as np
from experiment import MODELS, draw, folder, table

import nncompiler
from nncompiler.report.chart import history_panels
from nncompiler.runtime import datasets
from nncompiler.runtime.callbacks import EarlyStopping

ROWS, EPOCHS, PATIENCE = 200, 150, 10


def main() -> None:
    out = folder(__doc__)
    text = (MODELS / "digits_mlp.nn").read_text(encoding="utf-8")
    # a constant rate and no penalty: only stopping shall help
    text = text.replace("    schedule = cosine(total=4100)\n", "").replace("    l2 = 3e-4\n", "")
    model = nncompiler.compile(text, batch=[32, 1])
    digits = datasets.digits()
    few = {name: values[:ROWS] for name, values in digits.train.items()}
    rows: list[list[object]] = [["", "epochs", "loss", "val_loss", "test loss", "test accuracy"]]
    for label, callbacks in (("to the end", []), ("stopped", [EarlyStopping(PATIENCE)])):
        model.init(0)
        history = model.fit(few, epochs=EPOCHS, validation_data=digits.validation,
                            callbacks=callbacks, progress=False)  # fmt: skip
        test = model.evaluate(digits.test)
        rows.append([
            label, str(len(history["loss"])), f"{model.evaluate(few)['loss']:.5f}",
            f"{model.evaluate(digits.validation)['loss']:.4f}", f"{test['loss']:.4f}",
            f"{test['accuracy']:.4f}",
        ])  # fmt: skip
        if label == "to the end":
            best = int(np.argmin(history["val_loss"])) + 1
            draw(out / "early_stopping.svg", history_panels(history), "Trained to the end")
    table(rows)
    print(f"\nthe validation loss was least after epoch {best}")


if __name__ == "__main__":
    main()
