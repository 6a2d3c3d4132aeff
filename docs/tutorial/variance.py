"""How initial weights scale the signals of a deep network, forwards and backwards.

    python docs/tutorial/variance.py [--out out]
"""

from __future__ import annotations

import numpy as np
from experiment import draw, folder, table

import nncompiler
from nncompiler.report.chart import Panel, Series
from nncompiler.runtime import datasets

LAYERS, UNITS, ROWS = 6, 100, 500
#: Name, activation, initial weights.
CASES = (
    ("linear, N(0, 0.01)", "identity", "normal(0, 0.01)"),
    ("linear, N(0, 0.2)", "identity", "normal(0, 0.2)"),
    ("linear, Xavier", "identity", "glorot_normal()"),
    ("ReLU, Xavier", "relu", "glorot_normal()"),
    ("ReLU, He", "relu", "he_normal()"),
)


def network(activation: str, initial: str) -> str:
    """Six layers. `probe` is zero, and its gradient that of the weighted sum it is added to."""
    lines = ["a0 = image"]
    for k in range(1, LAYERS + 1):
        size = 64 if k == 1 else UNITS
        lines += [
            f"param W{k} : f32[{size}, {UNITS}] = {initial}",
            f"param probe{k} : f32[{ROWS}, {UNITS}] = zeros()",
            f"z{k} = a{k - 1} @ W{k} + probe{k}",
            f"a{k} = z{k} |> {activation}",
            f"output z{k}",
        ]
    body = "\n    ".join(lines)
    return f"""\
model deep {{
    input image : f32[{ROWS}, 64]
    target digit : i32[{ROWS}]
    {body}
    param V : f32[{UNITS}, 10] = glorot_normal()
    loss cross_entropy(a{LAYERS} @ V, digit)
}}
train {{ optimizer = sgd(lr = 0.1) }}
"""


def variances(activation: str, initial: str) -> tuple[list[float], list[float]]:
    """Of z and of its gradient, by layer."""
    model = nncompiler.compile(network(activation, initial), functions=("init", "infer", "grad"))
    model.init(0)
    digits = datasets.digits().train
    image = digits["image"][:ROWS]
    data = {"image": (image - image.mean()) / image.std(), "digit": digits["digit"][:ROWS]}
    outputs, gradients = model.predict({"image": data["image"]}), model.gradients(data)
    layers = range(1, LAYERS + 1)
    # the loss is a mean over the rows: times their number, each has its own gradient
    return (
        [float(np.var(outputs[f"z{k}"])) for k in layers],
        [float(np.var(ROWS * gradients[f"probe{k}"])) for k in layers],
    )


def main() -> None:
    out = folder(__doc__)
    names = [name for name, _, _ in CASES]
    found = [variances(activation, initial) for _, activation, initial in CASES]
    panels = []
    for title, which in (("variance of z", 0), ("variance of the gradient of z", 1)):
        columns = [f[which] for f in found]
        print("\n" * which + title)
        table([("layer", *names), *zip(map(str, range(1, LAYERS + 1)), *columns, strict=True)])
        lines = [Series(n, c) for n, c in zip(names, columns, strict=True)]
        panels.append(Panel(title, lines, across="layer", logarithmic=True))
    draw(out / "variance.svg", panels)


if __name__ == "__main__":
    main()
