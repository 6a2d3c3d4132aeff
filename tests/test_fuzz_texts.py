"""Three hundred mutated texts, a hundred of each kind, through every reader."""

from __future__ import annotations

import pytest

from nncompiler import driver
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.manager import run_passes
from tests import fuzz_texts
from tests.fuzz_texts import KINDS, PRINTED, READERS, ROOT, corpus, examine, outcome


@pytest.mark.parametrize("first", range(0, 300, 60))
def test_mutated_texts_are_read_or_refused(first: int) -> None:
    """No traceback, no warning, no internal error, no hang."""
    found = {seed: examine(seed) for seed in range(first, first + 60)}
    problems = [f"seed {s}: {detail}" for s, (*_, v, detail) in found.items() if v == "problem"]
    assert problems == []


@pytest.mark.parametrize("kind", KINDS)
def test_corpus_holds_good_and_bad_texts(kind: str) -> None:
    """About half of what is mutated is good as it stands, so that mutants reach every stage."""
    verdicts = [outcome(kind, text)[0] for text in corpus(kind)]
    assert verdicts.count("accepted") >= 0.4 * len(verdicts)
    assert set(verdicts) <= {"accepted", "refused"}


def _hang(text: str) -> None:
    while True:
        pass


def test_problems_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that breaks down or hangs counts as a problem."""
    monkeypatch.setitem(READERS, "nn", lambda text: [][1])
    assert outcome("nn", "")[0] == "problem"
    monkeypatch.setitem(READERS, "nn", _hang)
    monkeypatch.setattr(fuzz_texts, "SECONDS", 0.1)
    assert outcome("nn", "") == ("problem", "more than 0.1 s")


@pytest.mark.parametrize("name", PRINTED)
def test_groups_that_are_there_stay(name: str) -> None:
    """The passes leave what they made as it is: optimised text can go through `nnc opt` again."""
    c = driver.Compilation(driver.read_source(ROOT / "models" / f"{name}.nn"), {"batch": 3})
    for function in c.optimised.values():
        assert run_passes(function, [Fuse()]) == function
