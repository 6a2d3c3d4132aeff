"""Three networks on 10 000 MNIST digits: `mlp.nn`, `lenet.nn` and `mnist_cnn.nn`.

    python benchmarks/mnist.py DATA --select       compare learning rates on rows for validation
    python benchmarks/mnist.py DATA                train on all rows but the test's, then test
    python benchmarks/mnist.py DATA --model lenet  one of them; --seeds N

DATA is an .npz file of `images` u8 [10000, 28, 28] and `labels` u8 [10000], MNIST's test file in
its order; it is too large to be part of the project. Every fifth row is tested on. `--select`
holds every tenth of the others out and never looks at the test's. A run with every model and the
default number of seeds writes its table to docs/mnist.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import nncompiler
from nncompiler.errors import NNError, UserError
from nncompiler.runtime import datasets

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mnist.md"
SEEDS = 5
Images = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Network:
    """What a model takes, the rates that are compared, the one chosen, and what was asked for."""

    shape: tuple[int, ...]
    rates: tuple[float, ...]
    rate: float
    epochs: int
    at_least: float

    def images(self, pixels: Images) -> Images:
        """Images of 28 x 28 pixels as the model has them, in a frame where it wants more."""
        frame = (self.shape[-1] - 28) // 2 if len(self.shape) > 1 else 0
        framed = np.pad(pixels, ((0, 0), (frame, frame), (frame, frame)))
        return framed.reshape(-1, *self.shape)


NETWORKS = {
    "mlp": Network((784,), (0.03, 0.1, 0.3), 0.1, 20, 0.955),
    "lenet": Network((1, 32, 32), (0.003, 0.01, 0.03), 0.01, 20, 0.97),
    "mnist_cnn": Network((1, 28, 28), (0.001, 0.002, 0.004), 0.002, 10, 0.983),
}


def load(path: Path) -> tuple[Images, npt.NDArray[np.int32]]:
    """Pixels from 0 to 1, and labels."""
    arrays = datasets.load_npz(path)
    images, labels = (arrays.get(name, np.zeros(0)) for name in ("images", "labels"))
    if images.shape != (10000, 28, 28) or labels.shape != (10000,):
        raise UserError(
            "NN0756", f"expected arrays images [10000, 28, 28] and labels [10000] in '{path}', "
            f"but found images {list(images.shape)} and labels {list(labels.shape)}")
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int32)


def every(rows: npt.NDArray[np.int64], n: int) -> tuple[npt.NDArray[np.int64], ...]:
    """All rows but each n-th, and these."""
    held = rows[n - 1 :: n]
    return np.setdiff1d(rows, held), held


def train(name: str, rate: float, seed: int, fit: Arrays, held: Arrays) -> tuple[float, float]:
    """The accuracy on rows held out, after training, and the seconds that training took."""
    model = nncompiler.compile(ROOT / "models" / f"{name}.nn")
    model.init(seed)
    model.rate = rate
    start = time.perf_counter()
    model.fit(fit, epochs=NETWORKS[name].epochs, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    return model.evaluate(held)["accuracy"], seconds


def runs(
    name: str, rate: float, seeds: int, data: tuple[Images, npt.NDArray[np.int32]],
    parts: Sequence[npt.NDArray[np.int64]],
) -> tuple[list[float], list[float]]:  # fmt: skip
    """Accuracies and seconds for every seed."""
    pixels, labels = data
    fit, held = (
        {"image": NETWORKS[name].images(pixels[rows]), "digit": labels[rows]} for rows in parts
    )
    found = [train(name, rate, seed, fit, held) for seed in range(seeds)]
    return [accuracy for accuracy, _ in found], [seconds for _, seconds in found]


def select(names: Sequence[str], seeds: int, path: Path) -> list[str]:
    """A row for each learning rate: accuracies on the rows for validation."""
    data = load(path)
    parts = every(every(np.arange(10000), 5)[0], 10)
    lines = ["| model | learning rate | validation accuracy, mean |", "|---|---:|---:|"]
    for name in names:
        for rate in NETWORKS[name].rates:
            accuracies, _ = runs(name, rate, seeds, data, parts)
            chosen = ", chosen" if rate == NETWORKS[name].rate else ""
            lines.append(f"| {name} | {rate}{chosen} | {100 * np.mean(accuracies):.2f} % |")
            print(lines[-1], file=sys.stderr)
    return lines


def test(names: Sequence[str], seeds: int, path: Path) -> list[str]:
    """A row for each model: accuracies on the test's rows."""
    data = load(path)
    parts = every(np.arange(10000), 5)
    lines = ["| model | test accuracy, mean | each seed | wanted | seconds of training |",
             "|---|---:|---|---:|---:|"]
    for name in names:
        accuracies, seconds = runs(name, NETWORKS[name].rate, seeds, data, parts)
        each = ", ".join(f"{100 * a:.2f}" for a in accuracies)
        lines.append(
            f"| {name} | {100 * np.mean(accuracies):.2f} % | {each} | "
            f"{100 * NETWORKS[name].at_least:.1f} % | {np.median(seconds):.1f} |")
        print(lines[-1], file=sys.stderr)
    return lines


def write(mark: str, lines: Sequence[str]) -> None:
    """Put a table between its marks in the page."""
    start, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    before, _, rest = PAGE.read_text().partition(start)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + start + "\n".join(lines) + "\n" + end + after)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="mnist10k.npz: images and labels")
    parser.add_argument("--select", action="store_true", help="compare learning rates")
    parser.add_argument("--model", choices=NETWORKS, help="by default all, and docs/mnist.md")
    parser.add_argument("--seeds", type=int, help=f"by default {SEEDS}; 2 to select")
    options = parser.parse_args(arguments)
    names = [options.model] if options.model else list(NETWORKS)
    work, mark, usual = (select, "select", 2) if options.select else (test, "test", SEEDS)
    try:
        lines = work(names, options.seeds or usual, options.data)
    except NNError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines))
    if not options.model and options.seeds is None:
        write(mark, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
