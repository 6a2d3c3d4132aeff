"""What the first convolution of a network looks for in digits.

    python docs/tutorial/filters.py [--out out]

Writes `filters.png` (the filters, one after the other) and `filters_maps.png` (three test digits,
and below each what eight of the filters make of it).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from experiment import folder

import nncompiler
from nncompiler.runtime import datasets

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
from picture import grid, write_png

EPOCHS, SHOWN, DIGITS = 40, 8, 3
#: A small network with large filters, which a penalty on weights keeps smooth.
NETWORK = """\
model eyes {
    input image : f32[batch, 1, 8, 8]
    target digit : i32[batch]
    a = image |> conv2d(16, kernel=5, padding="same") |> relu
    logits = a |> max_pool2d(2) |> flatten |> dense(10)
    output probs = softmax(logits)
    loss cross_entropy(logits, digit)
    metric accuracy = mean(argmax(logits) == digit)
}
train { optimizer = adam(lr = 0.003) batch = 32 l2 = 0.003 }
"""


def main() -> None:
    out = folder(__doc__)
    model = nncompiler.compile(NETWORK, batch=[32, 1])
    digits = datasets.digits()
    train, validation, test = (
        {"image": part["image"].reshape(-1, 1, 8, 8), "digit": part["digit"]}
        for part in (digits.train, digits.validation, digits.test)
    )
    model.init(0)
    history = model.fit(train, epochs=EPOCHS, validation_data=validation, progress=False)
    print(f"{EPOCHS} epochs, validation accuracy {history['val_accuracy'][-1]:.3f}")

    filters = model.parameters["a.W"][:, 0]
    print(f"{len(filters)} filters of {filters.shape[1]} x {filters.shape[2]}, "
          f"weights from {filters.min():.2f} to {filters.max():.2f}")
    # weights of 0 are grey, positive ones dark
    write_png(out / "filters.png", grid(0.5 + filters / (2 * abs(filters).max()), 8, scale=9))

    largest = np.argsort(-abs(filters).sum(axis=(1, 2)), kind="stable")[:SHOWN]
    bias = model.parameters["a.b"]
    rows = []
    for k in range(DIGITS):
        image = test["image"][k, 0]
        padded = np.pad(image, 2)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
        maps = np.einsum("hwrs,frs->fhw", windows, filters[largest])
        maps = np.maximum(maps + bias[largest, None, None], 0)
        rows += [image, *maps / maps.max()]
    write_png(out / "filters_maps.png", grid(np.array(rows), SHOWN + 1, scale=8))


if __name__ == "__main__":
    main()
