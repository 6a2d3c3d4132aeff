"""The figures of a report, as data: what a model, its functions, its lines and its kernels cost.

`accounts.analyse` fills it in.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nncompiler.record import dataclass

#: The line number of what has no line: the step counter, the learning rate, copies.
NOWHERE = 0


@dataclass(frozen=True, slots=True)
class Work:
    """`elements` counts the operations that are not multiply-adds."""

    multiply_adds: int = 0
    elements: int = 0
    read: int = 0
    written: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.multiply_adds + other.multiply_adds,
            self.elements + other.elements,
            self.read + other.read,
            self.written + other.written,
        )

    def __mul__(self, times: int) -> Work:
        return Work(
            self.multiply_adds * times,
            self.elements * times,
            self.read * times,
            self.written * times,
        )

    @property
    def flops(self) -> int:
        """A multiply-add is two."""
        return 2 * self.multiply_adds + self.elements

    @property
    def bytes(self) -> int:
        return self.read + self.written


@dataclass(frozen=True, slots=True)
class LineCost:
    """`line` is `NOWHERE` for what no source line asked for."""

    line: int
    text: str
    parameters: int = 0
    forward: Work = Work()
    backward: Work = Work()
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelCost:
    """`operators` are those fused into it, in order; `space` its loops; `lines` its origin.

    `work` is that of all its `calls` in one call of the function. Of the bytes that it reads,
    `far` are parameters and arguments that nothing else of the function touches: before they are
    read again, all that the function touches has been.
    """

    name: str
    lines: tuple[int, ...]
    operators: tuple[str, ...]
    space: str
    schedule: str
    work: Work
    calls: int = 1
    far: int = 0

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.work.flops / self.work.bytes if self.work.bytes else 0.0


@dataclass(frozen=True, slots=True)
class FunctionCost:
    """`unfused` are the kernels and bytes it would have with one kernel per node; `recomputing`
    counts the loops that compute again what was not kept for them."""

    name: str
    nodes: int
    groups: int
    kernels: int
    work: Work
    unfused_kernels: int
    unfused_bytes: int
    arena_bytes: int
    bound: int
    recomputing: int = 0

    @property
    def ratio(self) -> float:
        """Arena over live-byte bound; 1 where nothing is needed."""
        return self.arena_bytes / self.bound if self.bound else 1.0


@dataclass(frozen=True, slots=True)
class Profile:
    """One function in detail: all lines of the source, then `NOWHERE` if anything is there;
    `touched` are the bytes of all that its kernels read and write."""

    function: str
    lines: tuple[LineCost, ...]
    kernels: tuple[KernelCost, ...]
    touched: int = 0

    @property
    def total(self) -> LineCost:
        """All lines together."""
        forward = sum((x.forward for x in self.lines), Work())
        backward = sum((x.backward for x in self.lines), Work())
        parameters = sum(x.parameters for x in self.lines)
        return LineCost(NOWHERE, "total", parameters, forward, backward)


@dataclass(frozen=True, slots=True)
class Report:
    """`infer_bytes` is the prefix of the state that inference reads: header and parameters."""

    model: str
    source: str
    dtype: str
    sizes: tuple[tuple[str, int], ...]
    parameters: int
    parameter_bytes: int
    slot_bytes: int
    state_bytes: int
    infer_bytes: int
    functions: tuple[FunctionCost, ...]
    profiles: tuple[Profile, ...]


def record(report: Report) -> dict[str, Any]:
    """The report as a tree for JSON; derived figures included."""
    tree = asdict(report)
    tree["sizes"] = dict(report.sizes)
    for entry, cost in zip(tree["functions"], report.functions, strict=True):
        entry["ratio"] = cost.ratio
        _derive(entry["work"], cost.work)
    for entry, profile in zip(tree["profiles"], report.profiles, strict=True):
        for row, line in zip(entry["lines"], profile.lines, strict=True):
            _derive(row["forward"], line.forward)
            _derive(row["backward"], line.backward)
        for row, kernel in zip(entry["kernels"], profile.kernels, strict=True):
            row["intensity"] = kernel.intensity
            _derive(row["work"], kernel.work)
    return tree


def _derive(entry: dict[str, Any], work: Work) -> None:
    entry["flops"], entry["bytes"] = work.flops, work.bytes
