"""Tables as Markdown, on standard output and in a folder of `docs/benchmarks/`: `avx512`, `avx2`
or `sse`, for what one kind of processor takes does not tell what another would.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import machine

ROOT = Path(__file__).resolve().parents[2]
HERE = f"docs/benchmarks/{machine.vectors()}"
FOLDER = ROOT / HERE


def parser(text: str) -> argparse.ArgumentParser:
    """With the flag that all scripts have."""
    found = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--write", action="store_true", help=f"into {HERE}/ too")
    return found


def chosen(
    parser: argparse.ArgumentParser, option: str, text: str | None, known: Sequence[str],
    usual: Sequence[str] | None = None,
) -> list[str]:  # fmt: skip
    """The names of an option, each one that is known."""
    names = list(known if usual is None else usual) if text is None else text.split(",")
    for name in names:
        if name not in known:
            parser.error(f"{option}: expected one of {', '.join(known)}, but found '{name}'")
    return names


def positive(text: str) -> int:
    """How often to measure, as an option says it."""
    if re.fullmatch(r"[1-9]\d{0,3}", text) is None:
        raise argparse.ArgumentTypeError(f"expected an integer from 1 to 9999, but found '{text}'")
    return int(text)


def threads() -> range:
    """Numbers of threads that this machine has cores for."""
    return range(1, len(os.sched_getaffinity(0)) + 1)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The first `left` columns flush left, the others right."""
    rule = "|" + "---|" * left + "---:|" * (len(heads) - left)
    lines = ["| " + " | ".join(heads) + " |", rule]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def publish(name: str, text: str, write: bool, facts: dict[str, str]) -> None:
    """The page with what it was measured on at its end."""
    page = text.rstrip() + "\n\n" + "\n".join(f"- {n}: {fact}" for n, fact in facts.items()) + "\n"
    print(page)
    if write:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{name}.md").write_text(page)


def facts() -> dict[str, str]:
    """What is known of the machine; a warning if it is busy."""
    found = machine.describe()
    if busy := machine.busy(found):
        print(f"warning: {busy}", file=sys.stderr)
    return found
