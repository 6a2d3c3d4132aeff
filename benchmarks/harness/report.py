"""The results as JSON (everything, in SI units) and as a Markdown table; lost rows come first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from harness.implementation import IMPLEMENTATIONS, KINDS
from harness.measure import LEVELS, Contestant, Result, Row, Summary
from harness.targets import MEANS, mean, met, rank, target

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Report:
    """A run. `memory` is bytes/s by threads and array size; `machine` are facts by name."""

    results: Sequence[Result]
    memory: dict[int, dict[int, float]]
    versions: dict[str, str]
    machine: dict[str, str]
    peers: Sequence[str]
    quick: bool

    @property
    def rows(self) -> list[Row]:
        """Lost ones first, then those below their target."""
        every = [result.row(threads) for threads in self.memory for result in self.results]
        return sorted(every, key=rank)


def as_json(report: Report) -> str:
    """Everything measured."""
    whole = {
        "format": FORMAT, "quick": report.quick, "machine": report.machine,
        "versions": report.versions, "bytes_per_second": report.memory,
        "rows": [row_record(row) for row in report.rows],
        "means": [
            {"kind": kind, "threads": threads, "mean": found, "target": wanted}
            for kind, threads, found, wanted in means(report)
        ],
    }  # fmt: skip
    return json.dumps(whole, indent=1) + "\n"


def row_record(row: Row) -> dict[str, object]:
    r, best = row.result, row.fastest()
    limits = r.limits.get(row.threads)
    timings = {
        label(c): {
            "seconds": asdict(Summary.of(found)), "rounds": len(found), "calls": r.calls[c],
            "ratio": asdict(row.ratio(c)) if row.ours else None, "note": r.notes[c],
        }
        for c, found in r.seconds.items() if c[1] <= row.threads
    }  # fmt: skip
    return {
        **asdict(r.case), "threads": row.threads, "flops": r.flops, "bytes": r.bytes,
        "limits": asdict(limits) if limits else None,
        "limit_seconds": row.limit if row.ours else None, "roofline": row.roofline,
        "fastest_peer": label(best) if best else None,
        "ratio": asdict(row.speedup) if row.speedup else None, "target": target(row),
        "met": met(row), "lost": row.lost, "timings": timings,
        "failures": {label(c): text for c, text in r.failures.items() if c[1] == row.threads},
    }  # fmt: skip


def label(contestant: Contestant) -> str:
    """Such as 'jax@2'."""
    return f"{contestant[0]}@{contestant[1]}"


def means(report: Report) -> Iterator[tuple[str, int, float | None, float]]:
    """Kind, threads, geometric mean and its target."""
    for kind, wanted in MEANS.items():
        for threads in report.memory:
            rows = [r.row(threads) for r in report.results if r.case.kind == kind]
            if rows:
                yield kind, threads, mean(rows), wanted[min(threads, 2) - 1]


def microseconds(seconds: float) -> str:
    """Three significant digits, but no digit of a larger number hidden."""
    value = 1e6 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """Whole, but a share below one in a hundred still has a digit."""
    return f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1g}"


def ratio(found: Summary) -> str:
    """Such as '1.52 (1.49–1.55)'."""
    return f"{found.median:.2f} ({found.low:.2f}–{found.high:.2f})"


def as_markdown(report: Report) -> str:
    """The table, what it was measured on, and what went wrong."""
    lines = ["# Speed", ""]
    if report.quick:
        lines += ["A quick run: to see that all is well, not to take figures from.", ""]
    lines += [
        "Median time of one step in µs (`loop`: of 10 000 training steps in one call; `direct`: "
        "inference without convolutions by transforms, which the others may have). The ratio "
        "is the time of the fastest peer over ours, median of paired rounds (quartiles): above 1, "
        "ours is faster. With two threads each peer counts with the better of its times with one "
        "and two (²: the figure with two). The limit is the longer of the contractions at the FMA "
        "peak and the compulsory bytes at the bandwidth of the memory level that they fit. A row "
        "is met by its target, or by 85 % of its limit. Rows that are lost come first, then those "
        "that miss their target.", "",
    ]  # fmt: skip
    lines += [*table(report), "", *mean_table(report), ""]
    for result in report.results:
        for (name, threads), message in result.failures.items():
            title = IMPLEMENTATIONS[name].title
            cause = message.splitlines()[0]
            lines.append(f"- **{result.row(threads)}: {title} has no figure:** {cause}")
    lines += ["", *conditions(report)]
    return "\n".join(lines) + "\n"


def table(report: Report) -> list[str]:
    heads = ["model, case, batch", "threads", "ours"]
    heads += [IMPLEMENTATIONS[p].title for p in report.peers]
    heads += ["fastest peer / ours", "target", "limit", "% of limit"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for row in report.rows:
        cells = [str(row.result.case), str(row.threads)]
        cells.append(microseconds(row.ours.median) if row.ours else "–")
        cells += [peer_cell(row, peer) for peer in report.peers]
        cells.append(ratio(row.speedup) if row.speedup else "–")
        cells.append(f"{target(row):.3g}")
        cells.append(microseconds(row.limit) if row.ours else "–")
        cells.append(percent(row.roofline) if row.ours else "–")
        marks = ("slower" if row.ours else "failed", "below target", "")
        if mark := marks[rank(row)]:
            cells[0] = f"**{cells[0]}** ({mark})"
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def peer_cell(row: Row, peer: str) -> str:
    best = row.best(peer)
    if best is None:
        return "–"
    shown = microseconds(Summary.of(row.result.seconds[best]).median)
    return shown + ("²" if best[1] == 2 else "")


def mean_table(report: Report) -> list[str]:
    lines = ["| geometric mean | threads | fastest peer / ours | target |", "|---|---:|---:|---:|"]
    for kind, threads, found, wanted in means(report):
        name = {"train": "training", "infer": "inference"}[kind]
        shown = "–" if found is None else f"{found:.2f}"
        lines.append(f"| {name} | {threads} | {shown} | {wanted} |")
    return lines


def conditions(report: Report) -> list[str]:
    """Machine, versions, limits and choices."""
    lines = [f"- {name}: {fact}" for name, fact in report.machine.items()]
    lines.append("- versions: " + ", ".join(f"{n} {v}" for n, v in report.versions.items()))
    for threads, memory in report.memory.items():
        peaks = [r.limits[threads].peak for r in report.results if threads in r.limits]
        peak = f"{max(peaks) / 1e9:.0f} GFLOP/s" if peaks else "not measured"
        speeds = (f"{memory[size] / 1e9:.0f} GB/s over {kibibytes(size)}" for size in LEVELS)
        count = "1 thread" if threads == 1 else f"{threads} threads"
        lines.append(f"- limits, {count}: f32 FMA {peak}; reading {', '.join(speeds)}")
    rounds = [len(found) for r in report.results for found in r.seconds.values()]
    if rounds:
        lines.append(f"- rounds: {min(rounds)} to {max(rounds)}")
    for kind in KINDS:
        for r in report.results:
            notes = [f"{label(c)}: {n}" for c, n in r.notes.items() if n and c in r.seconds]
            if r.case.kind == kind and notes:
                lines.append(f"- fastest form, {r.case}: " + "; ".join(notes))
    return lines


def kibibytes(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
