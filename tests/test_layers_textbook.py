"""Section 4 of the worked examples: convolution and pooling, their sizes and counts."""

from __future__ import annotations

import re

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation
from nncompiler.errors import Source
from nncompiler.report.accounts import analyse
from nncompiler.report.text import render
from tests.model_support import cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

IMAGE = np.zeros((6, 6), np.float32)
IMAGE[1, 1] = 255
IMAGE[2, [1, 3]] = 255
IMAGE[3, 1:5] = 255
IMAGE[4, 3] = 255

COLUMNS = np.array([[-1, 1, -1]] * 3, np.float32)
BINARY = np.array(
    [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]],
    np.float32)  # fmt: skip


def run(x: np.ndarray, w: np.ndarray, expression: str) -> np.ndarray:
    """An expression of `x` and `w`, which are given without batch and channel axes."""
    sizes = [", ".join(map(str, a.shape)) for a in (x, w)]
    text = (f"model m {{ input x : f32[1, {sizes[0]}] input w : f32[1, {sizes[1]}] "
            f"output y = {expression} }}")  # fmt: skip
    model = nncompiler.compile(text, functions=("init", "infer"))
    return np.array(model.call("infer", {"x": x[None], "w": w[None]}).results["y"])[0]


def test_vertical_edges() -> None:
    """The filter of rows -1, 1, -1 finds the vertical strokes."""
    found = run(IMAGE[None], COLUMNS[None], "relu(convolve(x, w))")[0]
    assert found.tolist() == [[510, 0, 255, 0], [510, 0, 0, 0], [255, 0, 255, 0], [0, 0, 0, 0]]


def test_horizontal_edges() -> None:
    """Its transpose finds the horizontal one."""
    found = run(IMAGE[None], COLUMNS.T.copy()[None], "relu(convolve(x, w))")[0]
    assert found.tolist() == [[0] * 4, [0] * 4, [255, 0, 255, 0], [0] * 4]


def test_padding() -> None:
    """With padding of 1 the result is as large as the image."""
    found = run(IMAGE[None], COLUMNS[None], "relu(convolve(x, w, padding=1))")[0]
    assert found.tolist() == [
        [0, 255, 0, 0, 0, 0], [0, 510, 0, 255, 0, 0], [0, 510, 0, 0, 0, 0],
        [0, 255, 0, 255, 0, 0], [0] * 6, [0, 0, 0, 255, 0, 0]]  # fmt: skip


def test_colours() -> None:
    """A filter sums over the channels, and the bias comes once."""
    red = [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    green = [[0, 0, 2], [0, 0, 2], [0, 0, 2]]
    image = np.array([red, green, 3 * np.eye(3)], np.float32)
    kernel = np.array([[[1, 1], [0, 0]], [[0, 1], [0, 1]], [[1, 0], [0, 1]]], np.float32)
    found = run(image, kernel, "convolve(x, w) + 0.5")
    assert found.tolist() == [[[8.5, 6.5], [0.5, 10.5]]]


def test_one_axis() -> None:
    """A filter along a sequence."""
    x, w = np.array([[1, 1, 1, 0, 0]], np.float32), np.array([[1, 0, 1]], np.float32)
    assert run(x, w, "convolve(x, w)").tolist() == [[2, 1, 1]]


def test_two_axes() -> None:
    """The classic example on a binary image: its first value, and all by NumPy."""
    w = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32)
    found = run(BINARY[None], w[None], "convolve(x, w)")[0]
    windows = np.lib.stride_tricks.sliding_window_view(BINARY, (3, 3))
    assert found[0, 0] == 4
    assert found.tolist() == np.einsum("hwrs,rs->hw", windows, w).tolist()


@pytest.mark.parametrize("stride, size", [(1, 5), (2, 3)])
def test_size(stride: int, size: int) -> None:
    """(W - K + 2 P) / S + 1."""
    ones = np.ones((1, 7), np.float32)
    assert run(ones, ones[:, :3], f"convolve(x, w, stride={stride})").shape == (1, size)


def test_counts() -> None:
    """Ten 5 x 5 filters on 3 x 32 x 32: the report says 760 parameters, 768 000 products."""
    text = ("model m { input image : f32[batch, 3, 32, 32] "
            "output y = image |> conv2d(10, kernel=5, padding=2) }")  # fmt: skip
    compilation = Compilation(Source("example.nn", text), {"batch": 1})
    assert compilation.graphs["infer"].results[0][1].shape == (1, 10, 32, 32)
    report = analyse(compilation, ["infer"])
    assert report.parameters == 760
    assert max(f.work.multiply_adds for f in report.functions) == 768_000
    shown = render(report)
    assert re.search(r"^parameters +760 ", shown, re.M)
    assert re.search(r"^multiply-adds +0 +768,000$", shown, re.M)


def gradients(body: str, shape: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradients of a loss that `body` computes of a parameter `x`."""
    text = (f"model m {{ target scale : f32[1] param x : f32[{shape}] = zeros() {body} output y "
            "loss sum(y) * sum(scale) }\ntrain { optimizer = sgd(lr=0.1) }")  # fmt: skip
    model = nncompiler.compile(text, functions=("init", "grad"))
    model.load_state_dict(state)
    return model.gradients({"scale": np.ones(1, np.float32)})


def test_max_pool_routes_the_whole_gradient_to_the_maximum() -> None:
    """All of it, and where several are largest to the first."""
    x = np.array([[[[1, 2, 7, 7], [4, 3, 7, 0], [0, 0, -1, -3], [0, 5, -2, -4]]]], np.float32)
    found = gradients("y = max_pool2d(x, 2)", "1, 1, 4, 4", {"x": x})["x"][0, 0]
    assert found.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]


def test_overlapping_pools_add_their_gradients() -> None:
    """An element that is the largest of several windows gets the gradient of each."""
    x = np.array([[[0, 9, 1, 2]]], np.float32)
    found = gradients("y = max_pool1d(x, 2, stride=1, padding=1)", "1, 1, 4", {"x": x})["x"]
    assert found.tolist() == [[[1, 2, 0, 2]]]


def test_gradient_of_shared_weight_is_the_sum_over_its_uses() -> None:
    """A filter is used at every place: its gradient is the sum of what it saw there."""
    w = np.zeros((1, 1, 3, 3), np.float32)
    body = "param w : f32[1, 1, 3, 3] = zeros() y = convolve(x, w)"
    found = gradients(body, "1, 1, 5, 5", {"x": BINARY[None, None], "w": w})["w"][0, 0]
    windows = np.lib.stride_tricks.sliding_window_view(BINARY, (3, 3))
    assert found.tolist() == windows.sum(axis=(0, 1)).tolist()
