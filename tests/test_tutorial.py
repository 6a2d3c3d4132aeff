"""The pages of the tutorial: what they link to is there, what they print is what comes out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.model_support import REPOSITORY, cache_of_run, compile_cache

sys.path.insert(0, str(REPOSITORY / "docs" / "tutorial"))
from check import RUN, differences  # type: ignore[import-not-found]  # noqa: E402

__all__ = ["cache_of_run", "compile_cache"]

FOLDER = REPOSITORY / "docs" / "tutorial"
PAGES = sorted(FOLDER.glob("*.md"))
#: Experiments of some seconds whose figures do not hang on rounding.
FAST = ("variance", "learning_rate")


def check(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "check.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links(page: Path) -> None:
    """Every file that a page links to, and every script it runs, is there."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    scripts = re.findall(r"^\$ python (\S+)", text, re.M)
    assert links
    for link in links:
        assert link.startswith("https://") or (page.parent / link).is_file(), link
    for script in scripts:
        assert (REPOSITORY / script).is_file(), script


def test_every_experiment_is_checked() -> None:
    """Pages run the scripts beside them, in blocks that the check finds, and are listed."""
    text = {p.stem: p.read_text(encoding="utf-8") for p in PAGES}
    for script in {p.stem for p in FOLDER.glob("*.py")} & set(text):
        assert f"```text\n$ python docs/tutorial/{script}.py\n" in text[script]
    for name, page in text.items():
        assert page.count("$ python ") == len(RUN.findall(page)), name
        assert name == "README" or f"]({name}.md)" in text["README"]


@pytest.mark.parametrize("name", FAST)
def test_figures(name: str) -> None:
    """An experiment prints what its page says."""
    done = check(name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_other_figures_are_found() -> None:
    """The comparison tells words and figures that differ, and lets rounding pass."""
    assert differences("loss 0.100  3 epochs\n", "loss  0.103 3 epochs\n") == []
    assert differences("loss 0.01\n", "loss 0.02\n") == []
    assert len(differences("loss 0.100\nrate 1e-05\n", "loss 0.110\nrate 3e-05\n")) == 2
    assert differences("loss 0.1\n", "gain 0.1\n") and differences("a\n", "a\nb\n")


def test_what_was_drawn_is_not_compared() -> None:
    """What stands between two rules may be anything, what stands behind them may not."""
    assert differences("----\nROMEO: a\nb\n----\nend\n", "----\nROMEO: c\n----\nend\n") == []
    assert differences("----\na\n----\nend\n", "----\na\n----\nfin\n")


def test_searches_spend_their_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random search trains few networks to the end, Hyperband more for the same epochs."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import search  # type: ignore[import-not-found]

    monkeypatch.setattr(search, "EPOCHS", 3)
    monkeypatch.setattr(search, "BUDGET", 18)
    few, many = (search.search(method, 0) for method in ("random", "Hyperband"))
    assert few.trials == 6 and len(few.best) == 18
    assert many.trials > 6 and 18 <= len(many.best) <= 20
    assert all(np.diff(s.best).max() <= 0 and s.accuracy > 0.5 for s in (few, many))
