"""Every code the source can raise is documented, and every documented code can be raised."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def raised() -> set[str]:
    """Codes that occur as string constants in the package."""
    found: set[str] = set()
    for path in (ROOT / "nncompiler").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(re.findall(r"\bNN\d{4}\b", node.value))
    return found


def documented() -> set[str]:
    """Codes in bold in docs/errors.md; a range stands for its two ends."""
    return set(re.findall(r"\*\*(NN\d{4})\*\*", (ROOT / "docs" / "errors.md").read_text()))


def test_every_code_is_documented() -> None:
    """A new code comes with a line in docs/errors.md."""
    assert sorted(raised() - documented()) == []


def test_no_code_is_documented_in_vain() -> None:
    """A code that went away goes away in docs/errors.md too."""
    assert sorted(documented() - raised()) == []
