"""The committed table of arena bytes (`docs/arena.json`) holds for every model and function."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_PLACE = Path(__file__).resolve().parents[1] / "benchmarks" / "arena.py"
_SPEC = importlib.util.spec_from_file_location("arena_benchmark", _PLACE)
assert _SPEC is not None and _SPEC.loader is not None
arena = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(arena)

KEY = ("m", "infer")


def _table(size, **more):
    return {KEY: {"batch": 4, "arena": size, "bound": 64, **more}}


@pytest.mark.parametrize("path", arena.models(), ids=lambda p: p.stem)
def test_arena_of_model(path):
    """Within 1.05 of the live-byte bound, and no larger than the table says."""
    found, table = arena.measure(path), arena.load()
    assert found and found.keys() <= table.keys(), "run benchmarks/arena.py --update"
    assert arena.grown(table, found) == []
    assert {k: arena.ratio(e) for k, e in found.items() if arena.ratio(e) > 1.05} == {}


def test_table_is_of_these_models():
    """No entry is left of a model that is gone, and the page shows what the data says."""
    table = arena.load()
    assert {model for model, _ in table} == {p.stem for p in arena.models()}
    assert arena.PAGE.read_text() == arena.page(table)
    assert arena.TABLE.read_text() == arena.dump(table)


def test_growth_needs_a_reason():
    """A larger figure is refused without a reason, and keeps the one it was given."""
    with pytest.raises(ValueError, match=r"m\.infer: 128 bytes of arena, 64 in the table"):
        arena.merge(_table(64), _table(128), None)
    grown = arena.merge(_table(64), _table(128), "a faster kernel")
    assert grown == _table(128, reason="a faster kernel")
    assert arena.merge(grown, _table(128), None) == grown
    assert arena.merge(_table(128), _table(64), None) == _table(64)
