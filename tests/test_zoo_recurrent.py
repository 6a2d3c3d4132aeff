"""Texts as numbers, the bundled texts, and what the recurrent models of the zoo are to show."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options, compile_artifact, read_source
from nncompiler.errors import UserError
from nncompiler.runtime import texts
from tests.model_support import MODELS, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

SMALL = {"dim": 16, "units": 32, "time": 16}


# -- Texts


def test_encode_and_decode() -> None:
    """The 96 symbols there and back; marks are dropped."""
    text = "".join(map(chr, range(32, 127))) + "\n"
    assert texts.encode(text).tolist() == list(range(texts.SYMBOLS))
    assert texts.decode(texts.encode(text)) == text
    assert texts.decode(texts.encode("Ślusàrß")) == "Slusarss"


@pytest.mark.parametrize("text", ["a\tb", "\x7f", "日本"])
def test_encode_refuses(text: str) -> None:
    """What no symbol stands for is an error, not a gap."""
    with pytest.raises(UserError, match="expected Latin letters") as caught:
        texts.encode(text)
    assert caught.value.code == "NN0763"


def test_windows() -> None:
    """A window's target is the window one symbol later."""
    found = texts.windows(np.arange(8, dtype=np.int32), 3)
    assert found["text"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["following"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert len(texts.windows(np.arange(8, dtype=np.int32), 3, 1)["text"]) == 5
    with pytest.raises(UserError, match="more than 8 symbols"):
        texts.windows(np.arange(8, dtype=np.int32), 8)


def test_shakespeare() -> None:
    """The bundled text begins as the plays do, and every symbol is one."""
    parts = texts.shakespeare()
    assert texts.decode(parts.train["text"][0]).startswith("First Citizen:\nBefore we proceed")
    every = (parts.train, parts.validation, parts.test)
    assert [len(part["text"]) for part in every] == [2499, 312, 312]
    whole = np.concatenate([part["text"].ravel() for part in every])
    assert whole.min() >= 0 and whole.max() < texts.SYMBOLS


def test_names(tmp_path: Path) -> None:
    """Names are filled up to one length, the rows of the languages shared out evenly."""
    parts = texts.names()
    first = {name: value[0] for name, value in parts.train.items()}
    assert texts.decode(first["letters"][: first["length"]]) == "Khoury"
    assert texts.LANGUAGES[first["language"]] == "Arabic"
    assert not first["letters"][first["length"] :].any()
    assert set(parts.test["language"]) == set(range(len(texts.LANGUAGES)))
    with pytest.raises(UserError, match="does not exist"):
        texts.names(path=tmp_path / "none.csv")


# -- Models


def test_length_decides_what_is_read() -> None:
    """What stands behind a name's length changes nothing, a letter less changes the answer."""
    model = nncompiler.compile(MODELS / "gru_names.nn", batch=2)
    model.init(1)
    letters = np.random.default_rng(0).integers(0, 96, (2, 20)).astype(np.int32)
    length = np.array([4, 20], np.int32)
    other = letters.copy()
    other[0, 4:] = 7
    given = model.predict({"letters": letters, "length": length})
    assert (model.predict({"letters": other, "length": length}) == given).all()
    shorter = model.predict({"letters": letters, "length": length - 1})
    assert (shorter != given).any(axis=1).all()


def test_char_lstm_learns_the_plays() -> None:
    """300 steps of a small one take the loss well below that of the symbols' frequencies."""
    model = nncompiler.compile(MODELS / "char_lstm.nn", batch=25, sizes=SMALL)
    model.init(1)
    model.rate = 0.01
    parts = texts.shakespeare(16)
    data = {name: value[:2500] for name, value in parts.train.items()}
    losses = model.fit(data, epochs=3, progress=False)["loss"]
    share = np.bincount(data["following"].ravel(), minlength=96) / data["following"].size
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert losses[-1] < entropy - 0.5
    assert model.evaluate(parts.validation)["loss"] < entropy - 0.5


def code_bytes(library: bytes) -> int:
    """The size of what may be executed; a file grows by whole pages."""
    (start,) = struct.unpack_from("<Q", library, 32)
    (count,) = struct.unpack_from("<H", library, 56)
    headers = struct.iter_unpack("<IIQQQQQQ", library[start : start + 56 * count])
    return sum(size for kind, rights, _, _, _, size, _, _ in headers if kind == 1 and rights & 1)


def test_code_does_not_grow_with_the_sequence() -> None:
    """A training step over 2048 places has the kernels of one over 16, and the bytes of code of
    one over 512 but for a few that hand on large arrays; over fewer, other tiles are chosen.
    """
    options = Options(functions=("init", "loss", "train_step"))
    source = read_source(MODELS / "char_lstm.nn")
    kernels, code = [], []
    for time in (16, 512, 2048):
        sizes = {"batch": 32, "time": time}  # and the model's own
        plans = Compilation(source, sizes, options).plans
        kernels.append({name: len(list(plan.kernels())) for name, plan in plans.items()})
        code.append(code_bytes(compile_artifact(source, (sizes,), options).so))
    assert kernels[0] == kernels[1] == kernels[2]
    assert abs(code[2] - code[1]) <= 0.02 * code[1]
