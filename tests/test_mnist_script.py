"""The experiments on MNIST, as far as they need no data: parts, shapes, and what is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "mnist.py"
SPEC = importlib.util.spec_from_file_location("mnist_script", SCRIPT)
assert SPEC and SPEC.loader
mnist = sys.modules["mnist_script"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mnist)


def test_parts() -> None:
    """Every fifth row is the test's; rows for validation are among the others."""
    rest, test = mnist.every(np.arange(10000), 5)
    fit, validation = mnist.every(rest, 10)
    assert test.tolist() == list(range(4, 10000, 5))
    assert (len(fit), len(validation)) == (7200, 800)
    assert not set(test) & {*fit, *validation} and not set(fit) & set(validation)


def test_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there, or holds something else, is told."""
    assert mnist.main([str(tmp_path / "none.npz")]) == 1
    assert "does not exist" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", images=np.zeros((3, 8, 8), np.uint8))
    assert mnist.main([str(tmp_path / "other.npz"), "--select"]) == 1
    assert "but found images [3, 8, 8] and labels [0]" in capsys.readouterr().err


def test_images() -> None:
    """Each network gets its images; the frame is empty."""
    pixels = np.random.default_rng(0).random((2, 28, 28), np.float32)
    shapes = {n: network.images(pixels).shape for n, network in mnist.NETWORKS.items()}
    assert shapes == {
        "mlp": (2, 784), "lenet": (2, 1, 32, 32), "mnist_cnn": (2, 1, 28, 28)}
    framed = mnist.NETWORKS["lenet"].images(pixels)
    assert np.array_equal(framed[:, 0, 2:-2, 2:-2], pixels) and framed.sum() == pixels.sum()
