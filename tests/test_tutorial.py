"""The pages of the tutorial: what they link to is there, what they print is what comes out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model_support import REPOSITORY, cache_of_run, compile_cache

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
    scripts = re.findall(r"^(?:    )?\$ python (\S+)", text, re.M)
    assert links
    for link in links:
        assert link.startswith("https://") or (page.parent / link).is_file(), link
    for script in scripts:
        assert (REPOSITORY / script).is_file(), script


def test_every_experiment_has_a_page() -> None:
    """A script with the same name as a page is listed in the check, and in the table of pages."""
    both = {p.stem for p in PAGES} & {p.stem for p in FOLDER.glob("*.py")}
    listed = re.search(r"EXPERIMENTS = \((.*?)\)", (FOLDER / "check.py").read_text(), re.S)
    assert listed and set(re.findall(r'"(\w+)"', listed[1])) == both
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"]({p.name})" in index for p in PAGES if p.stem != "README")


@pytest.mark.parametrize("name", FAST)
def test_figures(name: str) -> None:
    """An experiment prints what its page says."""
    done = check(name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_other_figures_are_found() -> None:
    """The comparison tells words and figures that differ, and lets rounding pass."""
    sys.path.insert(0, str(FOLDER))
    try:
        from check import differences  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(FOLDER))
    assert differences("loss 0.100  3 epochs\n", "loss  0.103 3 epochs\n") == []
    assert len(differences("loss 0.100\nrate 1e-05\n", "loss 0.110\nrate 2e-05\n")) == 2
    assert differences("loss 0.1\n", "gain 0.1\n") and differences("a\n", "a\nb\n")
