"""Files of data for a model: arrays by name, the digits under any names, text; and their parts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nncompiler.errors import UserError
from nncompiler.runtime import datasets, loading, texts
from nncompiler.runtime.manifest import DTYPES, Argument
from tests.cli.conftest import DIGITS


def row(name: str, *shape: int, dtype: str = "f32") -> Argument:
    """An input of rows, called `x...`, or else a target."""
    role = "input" if name.startswith(("x", "image", "noise")) else "target"
    return Argument(name, role, DTYPES[dtype], (4, *shape), True)


PAIR = [row("x"), row("t")]
DIGIT = row("digit", dtype="i32")
TEXT = [row("x", 8, dtype="i32"), row("following", 8, dtype="i32")]


def test_splits_of_the_digits_are_their_own() -> None:
    """The digits come as the model names them, in the split of `digits`, in whatever model."""
    found = loading.load_splits(DIGITS, [row("image", 64), DIGIT])
    expected = datasets.digits()
    for part, other in zip((found.train, found.validation, found.test),
                           (expected.train, expected.validation, expected.test), strict=True):
        np.testing.assert_array_equal(part["image"], other["image"])
        np.testing.assert_array_equal(part["digit"], other["digit"])
    whole = loading.load_whole(DIGITS, [row("x_pixels", 64)])
    assert whole["x_pixels"].shape == (1797, 64) and whole["x_pixels"].max() == 1.0


def test_digits_as_images() -> None:
    """The digits take the shape that the model has, for an input or a target."""
    found = loading.load_splits(DIGITS, [DIGIT, row("image", 1, 8, 8)])
    assert found.test["image"].shape == (355, 1, 8, 8)
    whole = loading.load_whole(DIGITS, [row("real", 8, 8)])
    assert whole["real"].shape == (1797, 8, 8)


@pytest.mark.parametrize("wanted, odd", [
    ([row("noise", 16), row("real", 64)], "input 'noise', f32[16]"),
    ([row("image", 1, 8, 8), row("mask", 1, 8, 8)], "target 'mask', f32[1,8,8]"),
    ([row("image", 28, 28), DIGIT], "input 'image', f32[28,28]"),
    ([row("image", 64), row("noise", 8)], "input 'noise', f32[8]"),
])  # fmt: skip
def test_what_digits_do_not_have(wanted: list[Argument], odd: str) -> None:
    """An input or target that is neither image nor label is named, before anything is read."""
    with pytest.raises(UserError, match="NN0765") as found:
        loading.load_splits(DIGITS, wanted)
    assert odd in str(found.value) and f"{wanted[0].name}=..." in str(found.value.help)
    with pytest.raises(UserError, match="NN0765"):
        loading.load_whole(DIGITS, wanted)


def test_splits_hold_out_every_kth_row(tmp_path: Path) -> None:
    """A share of 1/5 is every fifth row; of the rest a share of 1/4 is every fourth."""
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(20.0), t=np.arange(20.0), extra=np.zeros(3))
    found = loading.load_splits(path, PAIR, validation=0.25, test=0.2)
    assert found.test["x"].tolist() == [4, 9, 14, 19]
    assert found.validation["x"].tolist() == [3, 8, 13, 18]
    assert sorted(found.train["t"].tolist() + found.validation["t"].tolist()
                  + found.test["t"].tolist()) == list(range(20))  # fmt: skip
    found = loading.load_splits(path, PAIR, validation=0.0, test=0.0)
    assert (found.validation, found.test, len(found.train["x"])) == ({}, {}, 20)


def test_splits_keep_the_classes(tmp_path: Path) -> None:
    """With a target of classes, each has its share of the test part, as in the digits."""
    path = tmp_path / "a.npz"
    raw = datasets.load_npz(DIGITS)
    np.savez(path, image=raw["images"].reshape(-1, 64), digit=raw["labels"])
    found = loading.load_splits(path, [row("image", 64), DIGIT])
    expected = datasets.digits()
    np.testing.assert_array_equal(found.test["digit"], expected.test["digit"])
    np.testing.assert_array_equal(found.validation["digit"], expected.validation["digit"])


def test_splits_given_in_the_file(tmp_path: Path) -> None:
    """Arrays with the name of a part are that part; parts that lack are empty."""
    path = tmp_path / "a.npz"
    np.savez(path, **{"train.x": np.ones(3), "train.t": np.ones(3), "test.x": np.zeros(2),
                      "test.t": np.zeros(2)})  # fmt: skip
    found = loading.load_splits(path, PAIR)
    assert (len(found.train["x"]), found.validation, len(found.test["t"])) == (3, {}, 2)
    assert loading.load_whole(path, PAIR)["x"].tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize(("arrays", "code", "text"), [
    ({"x": np.zeros(3), "y": np.zeros(3)}, "NN0760", "t missing"),
    ({"x": np.zeros(3), "t": np.zeros(4)}, "NN0761", "x [3], t [4]"),
    ({"x": np.zeros(()), "t": np.zeros(())}, "NN0761", "x [], t []"),
    ({"train.x": np.zeros(3), "test.x": np.zeros(3)}, "NN0760", "train.t missing"),
])  # fmt: skip
def test_data_that_does_not_fit(
    tmp_path: Path, arrays: dict[str, np.ndarray], code: str, text: str
) -> None:
    """Missing arrays and differing numbers of rows are told."""
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=code) as found:
        loading.load_splits(tmp_path / "a.npz", PAIR)
    assert text in str(found.value)


def test_share_out_of_range(tmp_path: Path) -> None:
    """A share of 1 would leave nothing."""
    np.savez(tmp_path / "a.npz", x=np.zeros(3), t=np.zeros(3))
    (tmp_path / "a.txt").write_text("a" * 99)
    for name, wanted in (("a.npz", PAIR), ("a.txt", TEXT)):
        with pytest.raises(UserError, match="NN0762"):
            loading.load_splits(tmp_path / name, wanted, test=1.0)


def test_text_in_windows(tmp_path: Path) -> None:
    """A text is cut from its end: test, before it validation; each part is windows of its own."""
    path = tmp_path / "a.txt"
    path.write_text("".join(chr(33 + k % 90) for k in range(1000)))
    codes = texts.read(path)
    found = loading.load_splits(path, TEXT[::-1], validation=0.25, test=0.2)
    for part, (low, high) in zip((found.train, found.validation, found.test),
                                 ((0, 600), (600, 800), (800, 1000)), strict=True):
        for name, array in texts.windows(codes[low:high], 8).items():
            np.testing.assert_array_equal(part[{"text": "x"}.get(name, name)], array)
    found = loading.load_splits(path, TEXT, validation=0.0, test=0.0)
    assert (found.validation, found.test, len(found.train["x"])) == ({}, {}, 124)
    whole = loading.load_whole(path, TEXT[:1])
    np.testing.assert_array_equal(whole["x"], found.train["x"])
    assert list(whole) == ["x"]


@pytest.mark.parametrize("wanted", [
    [row("x", 8), row("following", 8, dtype="i32")], [row("x", 8, dtype="i32"), DIGIT],
    [row("x", 8, dtype="i32"), row("x_more", 8, dtype="i32")], [row("t", 8, dtype="i32")],
    [row("x", dtype="i32")], [],
], ids=str)  # fmt: skip
def test_text_for_another_model(tmp_path: Path, wanted: list[Argument]) -> None:
    """Text is for rows of integers, and what follows them."""
    (tmp_path / "a.txt").write_text("a" * 99)
    with pytest.raises(UserError, match="NN0764"):
        loading.load_splits(tmp_path / "a.txt", wanted)


@pytest.mark.parametrize(("content", "code", "text"), [
    (b"a\nb\tc" * 30, "NN0763", "'\\t' in line 2"),
    (b"caf\xe9 " * 30, "NN0766", "byte 3"),
    (b"a" * 99, "NN0754", "more than 8 characters in the validation part"),
    (b"", "NN0754", "found 0"),
    (None, "NN0751", "does not exist"),
])  # fmt: skip
def test_text_that_cannot_be_read(
    tmp_path: Path, content: bytes | None, code: str, text: str
) -> None:
    """Signs that are not known, other encodings, too little text and none."""
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=code) as found:
        loading.load_splits(path, TEXT, validation=0.05)
    assert text in str(found.value)
    os.makedirs(tmp_path / "b.txt")
    with pytest.raises(UserError, match="NN0751"):
        loading.load_whole(tmp_path / "b.txt", TEXT)
