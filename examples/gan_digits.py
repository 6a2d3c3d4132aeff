"""An adversarial network on the bundled digits: what the generator makes of noise.

    python examples/gan_digits.py [--model gan|dcgan] [--epochs N] [--seed 0] [--out out]

Writes `gan_samples.png` or `dcgan_samples.png`: the same noise after a tenth of the epochs, half
of them, and all, two rows each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from picture import grid, write_png

import nncompiler
from nncompiler.runtime import datasets
from nncompiler.runtime.callbacks import Callback, Logs
from nncompiler.runtime.training import Run

MODELS = Path(__file__).resolve().parents[1] / "models"


class Samples(Callback):
    """Keeps what the generator makes of `noise` after some of the epochs."""

    def __init__(self, noise: np.ndarray, epochs: set[int]) -> None:
        self.noise, self.epochs = noise, epochs
        self.found: list[np.ndarray] = []

    def epoch_end(self, run: Run, logs: Logs) -> None:
        if run.record.epoch in self.epochs:
            self.found.append(run.model.predict(self.noise).reshape(-1, 8, 8).copy())
            print(f"epoch {run.record.epoch}: discriminator {logs['d_loss']:.2f}, "
                  f"generator {logs['g_loss']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("gan", "dcgan"), default="gan")
    parser.add_argument("--epochs", type=int, help="by default those of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    model = nncompiler.compile(MODELS / f"{options.model}.nn", batch=[32, 1])
    model.init(options.seed)
    shapes = {a.name: a.shape[1:] for a in model.manifest.data}
    epochs = options.epochs or model.manifest.train["epochs"]
    # training draws its own noise
    data = {"image": datasets.digits().train["image"].reshape(-1, *shapes["image"])}
    generator = np.random.default_rng(options.seed)
    noise = generator.normal(size=(30, *shapes["noise"])).astype(np.float32)
    samples = Samples(noise, {max(1, epochs // 10), max(1, epochs // 2), epochs})
    model.fit(data, epochs=epochs, seed=options.seed, callbacks=[samples], progress=False)
    sheet = grid(np.concatenate(samples.found), 15)
    write_png(options.out / f"{options.model}_samples.png", sheet)


if __name__ == "__main__":
    main()
