"""The comparison of random graphs with PyTorch, as far as it needs none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompiler.ir.interp import run
from nncompiler.ir.sampling import random_arguments
from tests import fuzz_torch


def test_compiled_side() -> None:
    """Results and gradients of a program are those of the interpreter, by the same names."""
    ((_, found),) = fuzz_torch.compiled([4])
    f = fuzz_torch.program(4)
    values = random_arguments(f, 4)
    assert not list(fuzz_torch.problems({n: found[n] for n, _ in f.results}, run(f, values)))
    assert {n for n in found if n.startswith("grad.")} == {
        f"grad.{v.name}" for v in fuzz_torch.wanted(f)}


@pytest.mark.parametrize("wrong", [{"y": 1 + 1e-8}, {"y": np.nan}, {"y": [1.0]}, {}, {"z": 1.0}])
def test_problems_are_found(wrong: dict[str, object]) -> None:
    """A result that is off, no number, of another shape, missing or of another name."""
    right = {"y": np.array(1.0)}
    assert not list(fuzz_torch.problems({"y": np.array(1 + 1e-10)}, right))
    assert len(list(fuzz_torch.problems({n: np.array(v) for n, v in wrong.items()}, right))) == 1


def test_fingerprint_tells_programs_apart() -> None:
    """The environments cannot compare different programs unnoticed."""
    assert fuzz_torch.fingerprint(0, 2) == fuzz_torch.fingerprint(0, 2)
    assert fuzz_torch.fingerprint(0, 2) != fuzz_torch.fingerprint(1, 2)


def test_without_pytorch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no PyTorch, it says how to get it."""
    monkeypatch.setattr(fuzz_torch, "PEERS", tmp_path / "python")
    assert fuzz_torch.main(["--count", "1"]) == 2
    assert "make peers" in capsys.readouterr().err
