"""The verbs about what there is: `nnc ops`, `passes` and `doctor`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nncompiler.errors import Limitation
from tests.cli.conftest import MODELS, Nnc

TINY = MODELS / "tiny.nn"


def test_ops_lists_the_registry(nnc: Nnc) -> None:
    """Every operator is listed with its kind and a line on its meaning."""
    found = {op["name"]: op for op in nnc("ops", "--json").json}
    assert found["contract"]["kind"] == "contract" and not found["floor"]["differentiable"]
    assert all(op["doc"] for op in found.values())
    table = nnc("ops").out
    assert len(table.splitlines()) == len(found) + 1
    assert re.search(r"^reshape +view +yes +\S", table, re.M)


def test_passes_lists_options_and_pipeline(nnc: Nnc) -> None:
    """Every pass with its options, and the pipeline in order."""
    found = nnc("passes", "--json").json
    pipeline = "narrow,simplify,cse,fold-affine,dce,quotients,factor,sink,fuse,upstream,downstream"
    assert found["pipeline"] == pipeline
    fuse = next(p for p in found["passes"] if p["name"] == "fuse")
    assert fuse["doc"] and "max-nodes" in fuse["options"]
    text = nnc("passes", "--long").out
    assert re.search(r"^dce +\S", text, re.M)
    assert f"pipeline    {pipeline}" in text


def test_doctor_finds_all_well(nnc: Nnc, cache_folder: Path) -> None:
    """Here everything is installed and works."""
    result = nnc("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    found = result.json
    assert found["cache"]["folder"] == str(cache_folder)
    assert found["self test"] == "compiled, trained and predicted" and found["problems"] == []


def test_doctor_tells_what_fails(nnc: Nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that fails is told, the rest still shown, and the exit code is 4."""
    from nncompiler.cli import doctor

    def broken() -> str:
        raise Limitation("NN0502", "no such processor")

    monkeypatch.setattr(doctor, "_self_test", broken)
    result = nnc("doctor")
    assert result.code == 4 and "NN0502: no such processor" in result.err
    assert re.search(r"^self test +FAILED$", result.out, re.M)
