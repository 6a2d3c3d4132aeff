"""Arena bytes of every model in `models/` for infer, grad and train_step, at its own batch size.

    python benchmarks/arena.py                     compare with docs/arena.json
    python benchmarks/arena.py --update            take over smaller figures; write docs/arena.md
    python benchmarks/arena.py --update --reason "why some figure may grow"

The table may only go down: a larger figure needs a reason, which is kept beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nncompiler.driver import Compilation, Options, read_source

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "arena.json"
PAGE = ROOT / "docs" / "arena.md"
FUNCTIONS = ("infer", "grad", "train_step")
#: The plan is the same for every target; a fixed one makes this certain.
CPU = "x86-64-v3"

#: (model, function) -> batch, arena, bound and, where it has grown, the reason.
Table = dict[tuple[str, str], dict[str, Any]]


def measure(path: Path) -> Table:
    """The figures of one model."""
    found = Compilation(read_source(path), {}, Options(cpu=CPU, functions=FUNCTIONS))
    return {
        (path.stem, name): {"batch": found.rows, "arena": plan.arena_bytes, "bound": plan.bound}
        for name, plan in found.plans.items()
    }


def models() -> list[Path]:
    return sorted((ROOT / "models").glob("*.nn"))


def ratio(entry: dict[str, Any]) -> float:
    return float(entry["arena"] / entry["bound"]) if entry["bound"] else 1.0


def load() -> Table:
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else []
    return {(r.pop("model"), r.pop("function")): r for r in rows}


def grown(old: Table, new: Table) -> list[str]:
    """What is larger than in the table, in words."""
    return [
        f"{'.'.join(key)}: {e['arena']} bytes of arena, {old[key]['arena']} in the table"
        for key, e in new.items()
        if key in old and e["arena"] > old[key]["arena"]
    ]


def merge(old: Table, new: Table, reason: str | None) -> Table:
    """The table to be; `ValueError` when a figure grows without a reason."""
    larger = grown(old, new)
    if larger and not reason:
        raise ValueError("\n".join(larger))
    found = {}
    for key, entry in new.items():
        before = old.get(key, entry)
        why = reason if entry["arena"] > before["arena"] else before.get("reason")
        found[key] = {**entry, **({"reason": why} if why else {})}
    return found


def dump(table: Table) -> str:
    rows = [{"model": m, "function": f, **entry} for (m, f), entry in table.items()]
    return "[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]\n"


def page(table: Table) -> str:
    """`docs/arena.md`."""
    lines = [
        "# Arena bytes",
        "",
        "The working memory of each model and function at the batch of its `train` block: the",
        "arena that the caller provides, the live-byte bound (the most bytes alive at one time,",
        "sizes rounded up to 64 bytes, with the scratch of kernels, at the chosen order of the",
        "kernels), and the ratio of the two. Parameters and optimizer state are not part of it.",
        "`nnc report` prints the same figures.",
        "",
        "Written by `python benchmarks/arena.py --update` together with `arena.json`. `make test`",
        "fails when a figure is larger than here or an arena over 1.05 times its bound; a figure",
        "goes up only with `--reason`, which is then in the last column.",
        "",
        "| model | function | batch | arena bytes | live-byte bound | ratio | reason for growth |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for (model, function), e in table.items():
        figures = f"{e['arena']:,} | {e['bound']:,} | {ratio(e):.3f}"
        reason = e.get("reason", "")
        lines.append(f"| {model} | {function} | {e['batch']} | {figures} | {reason} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true", help="write docs/arena.json and .md")
    parser.add_argument("--reason", help="why figures that grow may do so")
    options = parser.parse_args()
    old = load()
    new = {key: entry for path in models() for key, entry in measure(path).items()}
    if options.update:
        try:
            table = merge(old, new, options.reason)
        except ValueError as error:
            raise SystemExit(f"{error}\ngive a --reason, or make it smaller again") from None
        TABLE.write_text(dump(table))
        PAGE.write_text(page(table))
    for (model, function), e in new.items():
        before = old.get((model, function), e)["arena"]
        change = f"{e['arena'] - before:+,}" if e["arena"] != before else ""
        print(f"{model:<20}{function:<12}{e['arena']:>12,}{ratio(e):>8.3f}  {change}".rstrip())


if __name__ == "__main__":
    main()
