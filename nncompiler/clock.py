"""What the stages of a compilation are called, how long they took, and what they made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from nncompiler.record import dataclass, field

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of the report of a compilation."""

    name: str
    seconds: float
    detail: str


@dataclass(slots=True)
class Clock:
    """Collects the stages of a compilation."""

    stages: list[Stage] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], T], detail: Callable[[T], str]) -> T:
        start = time.perf_counter()
        result = work()
        self.stages.append(Stage(name, time.perf_counter() - start, detail(result)))
        return result
