"""`nnc` in this process, with a compile cache of the test run's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompiler.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "models"
DIGITS = MODELS / "data" / "digits.npz"

#: Small, quick to compile, and learns: y = x W + b.
LINE = """model line {
    input x : f32[batch, 2]
    target t : f32[batch, 1]
    y = x |> dense(1)
    output y
    loss mse(y, t)
    metric worst = max(abs(y - t))
}

train {
    optimizer = sgd(lr=0.1)
    batch = 8
    epochs = 30
}
"""


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Nnc = Callable[..., Result]


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The compile cache of the test run."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCOMPILER_CACHE", str(folder))
        yield folder


@pytest.fixture
def nnc(capsys: pytest.CaptureFixture[str], cache_folder: Path) -> Nnc:
    """``nnc("check", path)`` gives exit code, stdout and stderr."""

    def run(*words: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in words])
        found = capsys.readouterr()
        return Result(code, found.out, found.err)

    return run


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """The file of `LINE`."""
    path = tmp_path / "line.nn"
    path.write_text(LINE)
    return path


@pytest.fixture
def line_data(tmp_path: Path) -> Path:
    """100 rows that lie on a plane, for `LINE`."""
    x = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32)
    path = tmp_path / "line.npz"
    np.savez(path, x=x, t=x @ np.array([[2.0], [-1.0]], np.float32) + 0.5)
    return path
