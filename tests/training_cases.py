"""The training runs that are compared with PyTorch step by step: models, weights and batches.

Both sides start from `weight` and take `Case.batches`, so that nothing but losses needs to be
kept. This module needs numpy alone, as PyTorch's environment imports it too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nncompiler.runtime import datasets, texts

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "data" / "training"
Arrays = dict[str, Any]
Shape = tuple[int, ...]
TEXT = {"time": 16}


@dataclass(frozen=True, slots=True)
class Case:
    """A model of `models/` at some sizes, trained for `steps` of `batch` rows.

    The tests do the first `double` of them in f64 and the first `single` in f32: as many as
    f32's rounding lets the losses stay together, where PyTorch's own f32 leaves its f64, too.
    """

    name: str
    model: str
    steps: int
    double: int
    single: int
    batch: int
    rate: float
    sizes: Mapping[str, int] = field(default_factory=dict)
    #: Whether PyTorch normalises batches by its own kernel.
    fused: bool = False

    @property
    def source(self) -> str:
        """The model; dropout, whose draws are no concern here, is left out."""
        text = (ROOT / "models" / f"{self.model}.nn").read_text()
        return text.replace("rate = 0.4", "rate = 0")

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name.replace(', ', '_')}.npz"

    def batches(self, images: Arrays | None = None) -> Iterator[Arrays]:
        """As many as there are steps, from the bundled data or from `images` of 28 x 28."""
        data = self._text() if "time" in self.sizes else self._images(images or digits())
        rows = len(next(iter(data.values())))
        for step in range(self.steps):
            chosen = (step * self.batch + np.arange(self.batch)) % rows
            yield {name: array[chosen] for name, array in data.items()}

    def _text(self) -> Arrays:
        symbols = texts.shakespeare().train["text"].ravel()[:20_000]
        return dict(texts.windows(symbols, self.sizes["time"]))

    def _images(self, found: Arrays) -> Arrays:
        image, label = found["image"], found["digit"]
        match self.model:
            case "mlp":
                return {"image": image.reshape(-1, 784), "digit": label}
            case "lenet":
                framed = np.pad(image, ((0, 0), (2, 2), (2, 2)))
                return {"image": framed[:, None], "digit": label}
            case "mnist_cnn":
                return {"image": image[:, None], "digit": label}
        small = image[:, 2:26:3, 2:26:3]
        colours = np.stack([small, 0.5 * small, 1 - small], axis=1)
        return {"image": colours.astype(np.float32), "label": label}


CASES = (
    Case("mlp", "mlp", 500, 200, 500, 64, 0.01),
    Case("mlp, slowly", "mlp", 500, 50, 100, 64, 0.005),
    Case("lenet", "lenet", 500, 500, 50, 64, 0.01),
    Case("lenet, slowly", "lenet", 500, 50, 500, 64, 0.0005),
    Case("mnist_cnn", "mnist_cnn", 500, 100, 1, 64, 0.002),
    Case("mnist_cnn, slowly", "mnist_cnn", 500, 20, 100, 64, 0.000005),
    Case("resnet20", "resnet20", 50, 50, 50, 16, 0.01, {"side": 8, "channels": 8, "blocks": 1}),
    Case("char_lstm", "char_lstm", 100, 100, 100, 8, 0.002, TEXT | {"dim": 16, "units": 32}),
    Case("gpt", "gpt", 100, 100, 100, 8, 0.001, TEXT | {"features": 32, "heads": 4, "blocks": 2}),
)


def digits() -> Arrays:
    """The bundled digits to train on, three times as large, in a frame of two pixels."""
    train = datasets.digits().train
    large = np.kron(train["image"].reshape(-1, 8, 8), np.ones((1, 3, 3), np.float32))
    return {**train, "image": np.pad(large, ((0, 0), (2, 2), (2, 2)))}


def weight(name: str, shape: Shape) -> Any:
    """The initial value of a parameter: about 1 for a gain, small for what is added, and of
    variance 1 / inputs for what multiplies."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).integers(-1000, 1001, shape) / 1000
    if name.endswith("gain"):
        return (1 + 0.1 * drawn).astype(np.float32)
    if len(shape) == 1:
        return (0.1 * drawn).astype(np.float32)
    inputs = shape[0] if len(shape) == 2 else prod(shape[1:])
    return (drawn * np.sqrt(3 / inputs)).astype(np.float32)
