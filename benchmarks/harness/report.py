"""The results as JSON (everything, in SI units) and as a Markdown table; lost rows come first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from harness.implementation import IMPLEMENTATIONS
from harness.measure import LEVELS, Result, Summary
from harness.workload import Row

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Report:
    """A run. `memory` is bytes/s by threads and array size; `machine` are facts by name."""

    results: Sequence[Result]
    memory: dict[int, dict[int, float]]
    versions: dict[str, str]
    machine: dict[str, str]
    peers: Sequence[str]
    quick: bool


def as_json(report: Report) -> str:
    """Everything measured."""
    rows = [
        {
            **asdict(result), "limit_seconds": result.limit,
            "fastest_peer": result.fastest(report.peers), "lost": result.loses(report.peers),
        }
        for result in report.results
    ]  # fmt: skip
    whole = {
        "format": FORMAT, "quick": report.quick, "machine": report.machine,
        "versions": report.versions, "bytes_per_second": report.memory, "rows": rows,
    }  # fmt: skip
    return json.dumps(whole, indent=1) + "\n"


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


def case(row: Row) -> str:
    return f"{row.workload}, {'train' if row.kind == 'train' else 'infer'}, {row.batch}"


def as_markdown(report: Report) -> str:
    """The table, what it was measured on, and what went wrong."""
    lines = ["# Speed", ""]
    if report.quick:
        lines += ["A quick run: to see that all is well, not to take figures from.", ""]
    lines += [
        "Median time of one step in µs. The ratio is the time of the fastest peer over ours, "
        "median of paired rounds (quartiles): above 1, ours is faster. The limit is the longer of "
        "the contractions at the FMA peak and the compulsory bytes at the bandwidth of the memory "
        "level that they fit.", "",
    ]  # fmt: skip
    lines += [*table(report), ""]
    for result in report.results:
        for name, message in result.failures.items():
            title = IMPLEMENTATIONS[name].title
            cause = message.splitlines()[0]
            lines.append(f"- **{result.row}: {title} has no figure:** {cause}")
    lines += ["", *conditions(report)]
    return "\n".join(lines) + "\n"


def table(report: Report) -> list[str]:
    heads = ["model, case, batch", "threads", "ours", "checked call"]
    heads += [IMPLEMENTATIONS[p].title for p in report.peers]
    heads += ["fastest peer / ours", "limit", "% of limit"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for result in report.results:
        cells = [case(result.row), str(result.row.threads)]
        for name in ("ours", "checked", *report.peers):
            timing = result.timings.get(name)
            cells.append(microseconds(timing.seconds.median) if timing else "–")
        best, ours = result.fastest(report.peers), result.timings.get("ours")
        cells.append(ratio(result.timings[best].ratio) if best else "–")
        cells.append(microseconds(result.limit) if ours else "–")
        cells.append(percent(result.limit / ours.seconds.median) if ours else "–")
        if result.loses(report.peers):
            cells[0] = f"**{cells[0]}** ({'slower' if ours else 'failed'})"
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def conditions(report: Report) -> list[str]:
    """Machine, versions, limits and choices."""
    lines = [f"- {name}: {fact}" for name, fact in report.machine.items()]
    lines.append("- versions: " + ", ".join(f"{n} {v}" for n, v in report.versions.items()))
    for threads, memory in report.memory.items():
        peaks = [r.peak for r in report.results if r.row.threads == threads and r.peak]
        peak = f"{max(peaks) / 1e9:.0f} GFLOP/s" if peaks else "not measured"
        speeds = (f"{memory[size] / 1e9:.0f} GB/s over {kibibytes(size)}" for size in LEVELS)
        count = "1 thread" if threads == 1 else f"{threads} threads"
        lines.append(f"- limits, {count}: f32 FMA {peak}; reading {', '.join(speeds)}")
    notes = {
        f"{case(r.row)}: {timing.note}" for r in report.results
        for name, timing in r.timings.items() if name == "torch" and timing.note
    }  # fmt: skip
    lines += [f"- PyTorch's fastest form, {note}" for note in sorted(notes)]
    return lines


def kibibytes(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
