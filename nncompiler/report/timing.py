"""Measured times beside what the kernels do: FLOP/s, bytes/s and the share of the roofline.

The roofline of a kernel is the longer of two times: its multiply-adds at the FMA peak, and its
bytes at the read bandwidth of the smallest level of memory that holds what one call touches; what
the function reads once, at that of the level that holds all that the function touches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from nncompiler.record import dataclass
from nncompiler.report.cost import KernelCost, Profile, Work

WIDTH = 100
#: Lines of source that are shown below a kernel.
_LINES = 2


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine can do at most: FLOP/s, and bytes/s by the size of what is read again."""

    peak: float
    bandwidth: Mapping[int, float]
    threads: int = 1

    def limit(self, work: Work, calls: int = 1, far: int = 0, touched: int = 0) -> float:
        """Seconds that `work`, spread over so many calls, takes at least; `far` of its bytes lie
        where there is room for `touched`."""
        once = work.bytes / calls
        moving = (work.bytes - far) / self._speed(once) + far / self._speed(max(once, touched))
        return max(2 * work.multiply_adds / self.peak, moving)

    def _speed(self, size: float) -> float:
        """Bytes/s of the smallest level of memory that holds so many."""
        fitting = [n for n in sorted(self.bandwidth) if size <= n * self.threads]
        return self.bandwidth[fitting[0] if fitting else max(self.bandwidth)]


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Seconds that a kernel takes in one call of the function, all its calls together."""

    cost: KernelCost
    median: float
    fastest: float
    limit: float

    @property
    def flop_rate(self) -> float:
        return self.cost.work.flops / self.median if self.median else 0.0

    @property
    def byte_rate(self) -> float:
        return self.cost.work.bytes / self.median if self.median else 0.0

    @property
    def roofline(self) -> float:
        """The share of its roofline that the kernel reaches, when it is fastest."""
        return self.limit / self.fastest if self.fastest else 0.0


@dataclass(frozen=True, slots=True)
class TimeProfile:
    """One function, its kernels in the order of the plan; `rounds` calls were timed."""

    source: str
    model: str
    function: str
    sizes: tuple[tuple[str, int], ...]
    machine: Machine
    rounds: int
    median: float
    fastest: float
    kernels: tuple[KernelTime, ...]

    @property
    def limit(self) -> float:
        """All kernels at their rooflines."""
        return sum(k.limit for k in self.kernels)

    def slowest_first(self) -> list[KernelTime]:
        return sorted(self.kernels, key=lambda k: -k.median)


def timed(
    profile: Profile, machine: Machine, medians: Sequence[float], fastest: Sequence[float]
) -> tuple[KernelTime, ...]:
    """The kernels of a profile with their times, in the same order."""
    return tuple(
        KernelTime(k, m, f, machine.limit(k.work, k.calls, k.far, profile.touched))
        for k, m, f in zip(profile.kernels, medians, fastest, strict=True)
    )


def record(p: TimeProfile) -> dict[str, Any]:
    """The profile as a tree for JSON, in seconds, slowest kernel first."""
    return {
        "file": p.source, "model": p.model, "function": p.function, "sizes": dict(p.sizes),
        "threads": p.machine.threads, "rounds": p.rounds, "peak": p.machine.peak,
        "bandwidth": {str(n): speed for n, speed in p.machine.bandwidth.items()},
        "median": p.median, "fastest": p.fastest, "limit": p.limit,
        "kernels": [_record(k, p) for k in p.slowest_first()],
    }  # fmt: skip


def _record(k: KernelTime, p: TimeProfile) -> dict[str, Any]:
    c = k.cost
    return {
        "name": c.name, "lines": list(c.lines), "operators": list(c.operators),
        "space": c.space, "schedule": c.schedule, "calls": c.calls, "median": k.median,
        "fastest": k.fastest, "share": k.median / p.median if p.median else 0.0,
        "flops": c.work.flops, "multiply_adds": c.work.multiply_adds, "bytes": c.work.bytes,
        "flops_per_second": k.flop_rate, "bytes_per_second": k.byte_rate, "limit": k.limit,
        "roofline": k.roofline,
    }  # fmt: skip


def render(p: TimeProfile, source: Sequence[str]) -> str:
    """The profile as text; `source` are the lines of the file."""
    heads = ("kernel", "lines", "calls", "µs", "%", "GFLOP/s", "GB/s", "roofline")
    rows = [heads, *(_row(k, p) for k in p.slowest_first()), _total(p)]
    wide = [max(len(row[c]) for row in rows) for c in range(len(heads))]
    shown = ["  ".join(_cell(v, w, c) for c, (v, w) in enumerate(zip(row, wide, strict=True)))
             for row in rows]  # fmt: skip
    rule = "─" * len(shown[0])
    lines = [*_head(p), "", shown[0], rule]
    for kernel, line in zip(p.slowest_first(), shown[1:-1], strict=True):
        lines += [line.rstrip(), *_details(kernel.cost, source)]
    return "\n".join([*lines, rule, shown[-1].rstrip()]) + "\n"


def _head(p: TimeProfile) -> list[str]:
    sizes = "".join(f", {name} {n}" for name, n in p.sizes)
    threads = "1 thread" if p.machine.threads == 1 else f"{p.machine.threads} threads"
    speeds = ", ".join(
        f"{speed / 1e9:.0f} GB/s over {_size(n)}" for n, speed in p.machine.bandwidth.items()
    )
    return [
        f"{p.source}: {p.model}.{p.function}{sizes}, {threads}, {p.rounds} calls",
        f"median {_microseconds(p.median)} µs, fastest {_microseconds(p.fastest)} µs, "
        f"all kernels at their rooflines {_microseconds(p.limit)} µs",
        f"FMA peak {p.machine.peak / 1e9:.1f} GFLOP/s; reading {speeds}",
    ]


def _row(k: KernelTime, p: TimeProfile) -> tuple[str, ...]:
    return (
        k.cost.name, ",".join(map(str, k.cost.lines)), str(k.cost.calls),
        _microseconds(k.median), f"{100 * k.median / p.median:.1f}" if p.median else "",
        f"{k.flop_rate / 1e9:.2f}", f"{k.byte_rate / 1e9:.2f}", f"{100 * k.roofline:.0f} %",
    )  # fmt: skip


def _total(p: TimeProfile) -> tuple[str, ...]:
    work = sum((k.cost.work for k in p.kernels), Work())
    calls = sum(k.cost.calls for k in p.kernels)
    rates = [f"{amount / p.median / 1e9:.2f}" if p.median else "" for amount in
             (work.flops, work.bytes)]  # fmt: skip
    share = f"{100 * p.limit / p.fastest:.0f} %" if p.fastest else ""
    return ("total", "", str(calls), _microseconds(p.median), "100.0", *rates, share)


def _details(cost: KernelCost, source: Sequence[str]) -> list[str]:
    """The lines a kernel comes from, its operators, its loops and schedule."""
    texts = [f"{n}: {source[n - 1].strip()}" for n in cost.lines if n <= len(source)]
    more = f"... and {len(texts) - _LINES} lines more"
    texts = texts[:_LINES] + ([more] if len(texts) > _LINES else [])
    texts.append(f"{cost.space or 'one element'}   [{cost.schedule}]")
    return ["        " + part for text in texts for part in wrap(text, WIDTH - 8)]


def _cell(text: str, wide: int, column: int) -> str:
    return text.ljust(wide) if column < 2 else text.rjust(wide)


def _microseconds(seconds: float) -> str:
    value = 1e6 * seconds
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
