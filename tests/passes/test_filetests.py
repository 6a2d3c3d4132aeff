"""File tests of the passes: `// RUN: pipeline`, a function, `// EXPECT`, the function the
pipeline makes of it.

Every function is also interpreted before and after on random data. `pytest --update-golden`
rewrites what follows EXPECT.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nncompiler.ir.graph import Function
from nncompiler.ir.text import parse_function, print_function
from nncompiler.passes.hooks import CheckPasses, verify_after
from nncompiler.passes.manager import parse_pipeline, run_passes
from tests.conftest import Golden

FOLDER = Path(__file__).parent.parent / "filetests" / "passes"
FILES = sorted(FOLDER.glob("*.nnir"))
MARK = "// EXPECT\n"


def run_file(path: Path) -> tuple[str, Function]:
    """The text before the expectation, and the function after the pipeline."""
    head = path.read_text().partition(MARK)[0]
    found = re.match(r"// RUN: (.*)\n", head)
    assert found, f"{path.name} must begin with '// RUN: passes'"
    function = parse_function(head, path.name)
    return head, run_passes(function, parse_pipeline(found[1]), [verify_after, CheckPasses()])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_pipeline_gives_the_expected_function(path: Path, golden: Golden) -> None:
    """The printed function after the pipeline is the expected text, and computes the same
    values."""
    head, after = run_file(path)
    golden(path, head + MARK + print_function(after))


def test_there_are_file_tests_for_every_pass() -> None:
    """Each registered pass is exercised by at least one file."""
    from nncompiler.passes.manager import PASSES

    run = " ".join(p.read_text().partition("\n")[0] for p in FILES)
    assert {name for name in PASSES if name not in run} == set()
