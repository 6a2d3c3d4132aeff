"""A recurrent network that learns to write, character by character, from the bundled plays.

    python examples/char_lstm.py [--epochs 10] [--prompt "ROMEO:"] [--seed 0]

Prints the losses after every epoch and, now and then, how the network would go on from the prompt.
Takes one to three minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import nncompiler
from nncompiler.runtime import texts
from nncompiler.runtime.callbacks import Callback, Logs
from nncompiler.runtime.model import Model
from nncompiler.runtime.training import Run

MODEL = Path(__file__).resolve().parents[1] / "models" / "char_lstm.nn"
WINDOW = 64


def write(model: Model, prompt: str, length: int, temperature: float, seed: int) -> str:
    """`prompt` and `length` further characters, each drawn from what the network expects.

    A temperature below 1 makes likely characters likelier.
    """
    draw = np.random.default_rng(seed)
    written = list(texts.encode(prompt))
    for _ in range(length):
        last = written[-WINDOW:]
        window = np.zeros((1, WINDOW), np.int32)
        window[0, : len(last)] = last  # what stands behind does not change what is before
        expected = model.predict({"text": window})[0, len(last) - 1].astype(np.float64)
        expected **= 1 / temperature
        written.append(int(draw.choice(texts.SYMBOLS, p=expected / expected.sum())))
    return texts.decode(np.array(written))


class Samples(Callback):
    """Prints the losses of each epoch; and after some of them, a sample."""

    def __init__(self, prompt: str, epochs: set[int]) -> None:
        self.prompt, self.epochs = prompt, epochs

    def epoch_end(self, run: Run, logs: Logs) -> None:
        done = run.record.epoch
        print(f"epoch {done}: loss {logs['loss']:.3f}, validation {logs['val_loss']:.3f}, "
              f"{logs['val_accuracy']:.1%} of characters right", flush=True)
        if done in self.epochs:
            print("-" * 40, write(run.model, self.prompt, 250, 0.7, done), "-" * 40, sep="\n",
                  flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--prompt", default="ROMEO:\n")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    plays = texts.shakespeare(WINDOW)
    model = nncompiler.compile(MODEL, batch=[32, 1])
    model.init(options.seed)
    samples = Samples(options.prompt, {1, options.epochs // 2, options.epochs})
    model.fit(plays.train, epochs=options.epochs, seed=options.seed, progress=False,
              validation_data=plays.validation, callbacks=[samples])  # fmt: skip
    found = model.evaluate(plays.test)
    print(f"test: loss {found['loss']:.3f}, {found['accuracy']:.1%} of characters right")


if __name__ == "__main__":
    main()
