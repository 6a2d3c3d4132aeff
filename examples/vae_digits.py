"""A variational autoencoder on the bundled digits: test images rebuilt, and new ones.

    python examples/vae_digits.py [--epochs 100] [--seed 0] [--out out]

Writes `vae_rebuilt.png` (test images in odd rows, what became of them below) and
`vae_samples.png` (decoded noise).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from picture import grid, write_png

import nncompiler
from nncompiler.runtime import datasets

MODEL = Path(__file__).resolve().parents[1] / "models" / "vae.nn"
CODE = 8


def with_noise(images: np.ndarray, noise: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The inputs: noise 0 unless given (training draws its own)."""
    zeros = np.zeros((len(images), CODE), np.float32)
    return {"image": images, "noise": zeros if noise is None else noise}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    digits = datasets.digits()
    train, test = digits.train["image"], digits.test["image"]
    model = nncompiler.compile(MODEL, batch=[32, 1])
    model.init(options.seed)
    history = model.fit(with_noise(train), epochs=options.epochs, seed=options.seed,
                        progress=False)  # fmt: skip
    found = model.evaluate(with_noise(test))
    print(f"{options.epochs} epochs, loss {history['loss'][-1]:.2f}")
    print(f"test: loss {found['loss']:.2f}, of which divergence {found['kl']:.2f}")

    shown = test[:30]
    rebuilt = model.predict(with_noise(shown))["pixels"]
    pairs = np.stack([shown.reshape(2, 15, 64), rebuilt.reshape(2, 15, 64)], axis=1)
    write_png(options.out / "vae_rebuilt.png", grid(pairs.reshape(-1, 8, 8), 15))
    noise = np.random.default_rng(options.seed).normal(size=(60, CODE)).astype(np.float32)
    samples = model.predict(with_noise(np.zeros((60, 64), np.float32), noise))["samples"]
    write_png(options.out / "vae_samples.png", grid(samples.reshape(-1, 8, 8), 15))


if __name__ == "__main__":
    main()
