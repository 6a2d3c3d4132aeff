"""The table of operators in `ir.md`: `python docs/operator_table.py [--update]`.

Without `--update` it says whether the table is up to date (exit code 1 if not).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nncompiler.ir.ops  # noqa: F401  (registers every operator)
from nncompiler.cli.ops import meaning
from nncompiler.ir.op import REGISTRY, Operator

PAGE = Path(__file__).parent / "ir.md"
BEGIN, END = "<!-- operators -->\n", "<!-- /operators -->\n"


def table() -> str:
    """The table, in order of name."""
    titles = ("operator", "operands", "attributes", "kind", "gradient", "meaning")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines += [_row(REGISTRY[name]) for name in sorted(REGISTRY)]
    return "\n".join(lines) + "\n"


def _row(op: Operator) -> str:
    """Operands and attributes are those of the operator's samples."""
    samples = op.samples()
    counts = sorted({len(s.inputs) for s in samples})
    operands = f"{counts[0]}" if len(counts) == 1 else "any"
    attributes = sorted({key for s in samples for key, _ in s.attrs})
    names = ", ".join(f"`{a}`" for a in attributes)
    gradient = "yes" if op.differentiable else "no"
    text = meaning(op).replace("``", "`").replace("|", "\\|")
    return f"| `{op.name}` | {operands} | {names} | {op.kind} | {gradient} | {text} |"


def replaced(text: str) -> str:
    """The page with the table as it should be."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.S)
    if not pattern.search(text):
        raise SystemExit(f"expected '{BEGIN.strip()}' and '{END.strip()}' in {PAGE}")
    return pattern.sub(lambda _: BEGIN + "\n" + table() + "\n" + END, text)


def main() -> None:
    old = PAGE.read_text()
    new = replaced(old)
    if "--update" in sys.argv[1:]:
        PAGE.write_text(new)
    elif old != new:
        raise SystemExit("docs/ir.md is not up to date: python docs/operator_table.py --update")


if __name__ == "__main__":
    main()
