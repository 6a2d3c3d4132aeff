"""A report as text, 100 columns wide: tables with exact figures, their thousands separated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from textwrap import wrap
from typing import TypeAlias

from nncompiler.report.cost import NOWHERE, FunctionCost, LineCost, Profile, Report

Row: TypeAlias = Sequence[str]

WIDTH = 100
#: The source gets what the figures leave of the width, but never less than this.
_LEAST_SOURCE = 22
_KERNELS = 13


def render(report: Report) -> str:
    """The whole report, with a last newline."""
    parts = [_head(report), _functions(report.functions)]
    for profile in report.profiles:
        parts += [_lines(profile), _kernels(profile)]
    return "\n\n".join(parts) + "\n"


def number(count: int) -> str:
    """With thousands separated; nothing for 0."""
    return f"{count:,}" if count else ""


def ranges(names: Sequence[str]) -> str:
    """Kernel names, runs of three or more shortened: ``k0 k3-k6``."""
    numbers = sorted(int(n.removeprefix("k")) for n in names)
    parts: list[str] = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        found = [n for _, n in run]
        parts += [f"k{found[0]}-k{found[-1]}"] if len(found) > 2 else [f"k{n}" for n in found]
    return " ".join(parts)


def _head(report: Report) -> str:
    sizes = "".join(f", {name} {n}" for name, n in report.sizes)
    rows = [
        ("parameters", f"{report.parameters:,}", f"{report.parameter_bytes:,} bytes"),
        ("optimizer slots", "", f"{report.slot_bytes:,} bytes"),
        ("state", "", f"{report.state_bytes:,} bytes"),
        ("read by infer", "", f"{report.infer_bytes:,} bytes, the head of the state"),
    ]
    wide = max(len(r[1]) for r in rows)
    lines = [f"{label:<16}{count:>{wide}}  {text}" for label, count, text in rows]
    return "\n".join([f"{report.source}: model {report.model}, {report.dtype}{sizes}", "", *lines])


# --- functions ---


def _functions(functions: Sequence[FunctionCost]) -> str:
    """A column for each function."""
    labels = (
        "nodes", "fused groups", "kernels unfused", "kernels", "multiply-adds", "FLOPs",
        "bytes unfused", "bytes moved", "arena bytes", "live-byte bound", "arena / bound",
    )  # fmt: skip
    columns = [
        (
            f"{f.nodes:,}", f"{f.groups:,}", f"{f.unfused_kernels:,}", f"{f.kernels:,}",
            f"{f.work.multiply_adds:,}", f"{f.work.flops:,}",
            f"{f.unfused_bytes:,}", f"{f.work.bytes:,}",
            f"{f.arena_bytes:,}", f"{f.bound:,}", f"{f.ratio:.3f}",
        )
        for f in functions
    ]  # fmt: skip
    rows: list[Row] = list(zip(labels, *columns, strict=True))
    if any(f.recomputing for f in functions):
        rows.append(("recomputing loops", *(number(f.recomputing) for f in functions)))
    return _table([("", *(f.name for f in functions))], rows, left=(0,))


# --- lines ---


def _lines(profile: Profile) -> str:
    heads = [
        ("", "", "para-", "", "multiply-adds", "", "bytes moved", ""),
        ("line", "source", "meters", "forward", "backward", "forward", "backward", "kernels"),
    ]
    shown = [x for x in profile.lines if x != LineCost(x.line, x.text)]
    indent = min((len(x.text) - len(x.text.lstrip()) for x in shown if x.text), default=0)
    whole = [_line(x, x.text[indent:] or "(no line)") for x in shown]
    whole.append(_line(profile.total, "total"))
    wide = [max(len(r[c]) for r in (heads[1], *whole)) for c in range(8)]
    kernels = min(wide[7], _KERNELS)
    rest = WIDTH - kernels - sum(wide[c] for c in range(8) if c not in (1, 7)) - 2 * 7
    source = max(_LEAST_SOURCE, min(rest, wide[1]))
    rows = [part for r in whole for part in _wrapped(r, {1: source, 7: kernels})]
    note = "backward with optimizer; lines without any cost left out"
    table = _table(heads, rows, left=(1, 7), total=True)
    return f"{profile.function}, line by line ({note})\n\n{table}"


def _line(x: LineCost, text: str) -> tuple[str, ...]:
    return (
        str(x.line) if x.line != NOWHERE else "", text, number(x.parameters),
        number(x.forward.multiply_adds), number(x.backward.multiply_adds),
        number(x.forward.bytes), number(x.backward.bytes), ranges(x.kernels),
    )  # fmt: skip


def _wrapped(row: Sequence[str], widths: Mapping[int, int]) -> list[tuple[str, ...]]:
    """The row as several, where the texts of some columns are too wide."""
    parts = {c: _folded(row[c], w, "  " * (c == 1)) for c, w in widths.items()}
    found = []
    for k in range(max(map(len, parts.values()))):
        texts = {c: p[k] if k < len(p) else "" for c, p in parts.items()}
        found.append(tuple(texts.get(c, v if k == 0 else "") for c, v in enumerate(row)))
    return found


def _folded(text: str, width: int, indent: str) -> list[str]:
    """Lines of at most `width`, none broken behind a `|>`."""
    joined = text.replace("|> ", "|>\u00a0")
    found = wrap(joined, width, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in found] or [""]


# --- kernels ---


def _kernels(profile: Profile) -> str:
    heads = ("kernel", "lines", "multiply-adds", "FLOPs", "read", "written", "FLOP/byte")
    rows = [
        (
            k.name, ",".join(map(str, k.lines)), number(k.work.multiply_adds),
            number(k.work.flops), number(k.work.read), number(k.work.written),
            f"{k.intensity:.2f}",
        )
        for k in profile.kernels
    ]  # fmt: skip
    head, rule, *figures = _table([heads], rows, left=(0, 1)).split("\n")
    shown = [head, rule]
    for kernel, line in zip(profile.kernels, figures, strict=True):
        rounds = f"{kernel.calls} times: " if kernel.calls > 1 else ""
        nest = f"{rounds}{kernel.space or 'one element'}   [{kernel.schedule}]"
        shown.append(line)
        for text in (_operators(kernel.operators), nest):
            shown += ["        " + part for part in wrap(text, WIDTH - 8)]
    return f"{profile.function}, kernel by kernel\n\n" + "\n".join(shown)


def _operators(names: Sequence[str]) -> str:
    """Operators in order; what repeats is counted: ``contract, add, 3 mul``."""
    runs = [(name, len(list(group))) for name, group in groupby(names)]
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in runs)


# --- tables ---


def _table(
    heads: Sequence[Row], rows: Sequence[Row], left: Sequence[int], total: bool = False
) -> str:
    """Rows under heads and a rule, flush right but for the columns in `left`.

    An upper head may run into an empty one on its left; `total` rules off the last row.
    """
    columns = range(len(heads[-1]))
    wide = [max(len(r[c]) for r in (heads[-1], *rows)) for c in columns]

    def cells(row: Row) -> str:
        line, end = "", -2
        for c in columns:
            begin, end = end + 2, end + 2 + wide[c]
            if row[c]:
                line = line.ljust(begin if c in left else end - len(row[c])) + row[c]
        return line.rstrip()

    rule = "─" * (sum(wide) + 2 * len(wide) - 2)
    body = [cells(r) for r in rows]
    if total:
        body.insert(len(body) - 1, rule)
    return "\n".join([*map(cells, heads), rule, *body])
