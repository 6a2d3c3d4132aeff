"""A recurrent network that tells the language of a surname, letter by letter.

    python examples/gru_names.py [--epochs 15] [--seed 0] [NAME ...]

Prints how many test names it tells right, and the likeliest languages of the names given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import nncompiler
from nncompiler.runtime import texts

MODEL = Path(__file__).resolve().parents[1] / "models" / "gru_names.nn"
LONGEST = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME",
                        default=["Yamaguchi", "Papadakis", "Wisniewski", "Fitzgerald", "Ferrari"])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    names = texts.names(LONGEST)
    model = nncompiler.compile(MODEL, batch=[32, 1])
    model.init(options.seed)
    history = model.fit(names.train, epochs=options.epochs, seed=options.seed, progress=False,
                        validation_data=names.validation)  # fmt: skip
    found = model.evaluate(names.test)
    print(f"{options.epochs} epochs: loss {history['loss'][-1]:.3f}, "
          f"validation {history['val_loss'][-1]:.3f}")
    print(f"test: {found['accuracy']:.1%} of names right, of {len(texts.LANGUAGES)} languages")
    for name in options.names:
        letters = np.zeros((1, LONGEST), np.int32)
        codes = texts.encode(name)[:LONGEST]
        letters[0, : len(codes)] = codes
        length = np.array([len(codes)], np.int32)
        chances = model.predict({"letters": letters, "length": length})[0]
        best = np.argsort(-chances)[:3]
        told = ", ".join(f"{texts.LANGUAGES[k]} {chances[k]:.0%}" for k in best)
        print(f"  {name}: {told}")


if __name__ == "__main__":
    main()
