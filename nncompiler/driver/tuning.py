"""Register tiles by the clock instead of the cost model alone (`--tune`).

Of every distinct contraction of a plan the model's best tiles are compiled and run, in turns with
the model's own choice; another one is taken only where it is faster by a clear margin, twice. What
was found is kept by the text of the kernel, so that the same plan is made without a clock from
then on. Times are those of one thread: with several, each runs the same tiles on a part.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Protocol, TypeAlias

from nncompiler.clock import Stage
from nncompiler.errors import UserError
from nncompiler.ir.fingerprint import fingerprint, signature, with_names
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Plan, Schedule, Step
from nncompiler.ir.text.kernel import kernel_lines, schedule_text
from nncompiler.ir.text.scan import Lines
from nncompiler.record import dataclass, field, replace

if TYPE_CHECKING:
    from nncompiler.codegen.target import Target
    from nncompiler.driver.trial import Seconds

Buffers: TypeAlias = Mapping[str, Buffer]
#: The plan loops around a kernel, from the outside in, and their extents.
Around: TypeAlias = Mapping[str, int]
#: Makes what tells the time of a kernel under each of several schedules.
Try: TypeAlias = "Callable[[Kernel, Buffers, Sequence[Schedule], Target, Around], Seconds]"

#: Cycles (about) of all rounds below which a kernel is not worth the time of its trials.
WORTH = 10_000.0
#: Readings of every schedule, in turns, behind a round that is not counted: it finds nothing in
#: place.
ROUNDS = 12
#: Another tile than the model's takes less than this part of its time.
MARGIN = 0.97


class Kept(Protocol):
    """What was measured before, by text; see `cache`."""

    def get(self, key: str, /) -> bytes | None: ...

    def put(self, key: str, payload: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """The number of the best schedule, the seconds of the model's own, and the part of these that
    the best takes."""

    number: int
    seconds: float
    part: float


@dataclass(slots=True)
class Tuner:
    """Picks tiles for one target; `named` makes the key of what is `kept` from a text."""

    target: Target
    kept: Kept | None = None
    named: Callable[[str], str] = str
    attempt: Try | None = None
    found: dict[Hashable, Found] = field(default_factory=dict)
    _spent: float = 0.0

    def pick(
        self, kernel: Kernel, buffers: Buffers, candidates: Sequence[tuple[float, Schedule]],
        around: Around,
    ) -> Schedule:  # fmt: skip
        """The schedule that was fastest, or the first; a `Pick` of `passes.tiling.tile`."""
        schedules = [schedule for _, schedule in candidates]
        if len(schedules) < 2 or candidates[0][0] * math.prod(around.values()) < WORTH:
            return schedules[0]
        start, known = time.perf_counter(), _known(kernel, buffers, around)
        if known not in self.found:
            self.found[known] = self._remembered(kernel, buffers, schedules, around)
        self._spent += time.perf_counter() - start
        return schedules[self.found[known].number]

    def _remembered(
        self, kernel: Kernel, buffers: Buffers, schedules: Sequence[Schedule], around: Around
    ) -> Found:
        if self.kept is None:
            return self._measured(kernel, buffers, schedules, around)
        key = self.named(_text(kernel, buffers, schedules, around))
        found = _read(self.kept.get(key), len(schedules))
        if found is None:
            found = self._measured(kernel, buffers, schedules, around)
            record = {"number": found.number, "seconds": found.seconds, "part": found.part}
            self.kept.put(key, json.dumps(record).encode())
        return found

    def _measured(
        self, kernel: Kernel, buffers: Buffers, schedules: Sequence[Schedule], around: Around
    ) -> Found:
        from nncompiler.driver.trial import Trial

        seconds = (self.attempt or Trial)(kernel, buffers, schedules, self.target, around)
        return fastest(seconds, len(schedules))

    def stage(self, plans: Iterable[Plan]) -> Stage:
        """What was found for these plans, as a line of the report; a part of the stage `plan`."""
        before = after = 0.0
        used: dict[Hashable, Found] = {}
        for plan in plans:
            buffers = plan.table()
            for kernel, around in _kernels(plan.steps, {}):
                known = _known(kernel, buffers, around)
                if (found := self.found.get(known)) is not None:
                    used[known], times = found, math.prod(around.values())
                    before += times * found.seconds
                    after += times * found.seconds * found.part
        changed = sum(f.number > 0 for f in used.values())
        gain = 100 * (1 - after / before) if before else 0.0
        spent, self._spent = self._spent, 0.0
        return Stage("tune", spent, f"{len(used)} kernels timed, {changed} changed, "
                     f"{gain:.1f} % of their time less")  # fmt: skip


def tuner_for(cpu: str, kept: Kept | None, named: Callable[[str], str]) -> Tuner:
    """The tuner for a processor level; `UserError` NN0505 where this machine cannot run it."""
    from nncompiler.codegen.target import runs_here, select

    target = select(cpu)
    if not runs_here(target):
        raise UserError(
            "NN0505", f"tiles for {target.cpu} are timed on a machine that runs its code, but "
            "this one does not", help="compile there, or leave out `tune`",
        )  # fmt: skip
    return Tuner(target, kept, named)


def fastest(seconds: Seconds, count: int) -> Found:
    """Which of so many schedules takes least time, the first one unless it is clear: it must win
    by the margin against all others, and again alone.
    """
    times, parts = _rounds(seconds, range(1, count))
    best = min(parts, key=lambda n: parts[n])
    if parts[best] < MARGIN:
        times, parts = _rounds(seconds, [best])
        if parts[best] < MARGIN:
            return Found(best, times, parts[best])
    return Found(0, times, 1.0)


def _rounds(seconds: Seconds, others: Sequence[int]) -> tuple[float, dict[int, float]]:
    """The time of the first schedule, and of others which part of it they take: medians, to and
    fro, so that each stands before and behind the first as often.
    """
    times, parts = [], {n: [] for n in others}  # type: tuple[list[float], dict[int, list[float]]]
    for turn in range(ROUNDS + 1):
        for n in others if turn % 2 else reversed(others):
            pair = (0, n) if turn % 2 else (n, 0)
            read = {k: seconds(k) for k in pair}
            if turn:
                times.append(read[0])
                parts[n].append(read[n] / read[0])
    return median(times), {n: median(found) for n, found in parts.items()}


def _kernels(steps: Iterable[Step], around: Around) -> Iterator[tuple[Kernel, Around]]:
    """Every kernel, and the loops around it."""
    for step in steps:
        if isinstance(step, Loop):
            yield from _kernels(step.body, {**around, step.counter: step.extent})
        else:
            yield step, around


def _known(kernel: Kernel, buffers: Buffers, around: Around) -> Hashable:
    return fingerprint(kernel, buffers), tuple(around.items())


def _text(
    kernel: Kernel, buffers: Buffers, schedules: Sequence[Schedule], around: Around
) -> str:
    """All that decides what the candidates do, whatever names a kernel has."""
    read = signature(kernel.body)
    own = {name: f"x{n}" for n, name in enumerate(read.locals)}
    places = {name: f"b{n}" for n, name in enumerate(read.buffers)}
    plain = replace(kernel, name="k", nodes=(), spans=(), barrier=False)
    plain = replace(plain, body=with_names(kernel.body, own, places))
    lines = Lines()
    kernel_lines(lines, 0, plain)
    found = [buffers[name] for name in read.buffers]
    layouts = [f"{b.type} {b.layout} {b.space} {places.get(b.base or '')}" for b in found]
    tried = [schedule_text(replace(plain, schedule=s)) for s in schedules]
    return "\n".join([str(lines), *layouts, *tried, str(dict(around))])


def _read(payload: bytes | None, count: int) -> Found | None:
    """What was kept, if it is sound."""
    try:
        record = json.loads(payload or b"")
        found = Found(int(record["number"]), float(record["seconds"]), float(record["part"]))
    except (ValueError, TypeError, KeyError):
        return None
    sound = 0 <= found.number < count and found.seconds > 0 and found.part > 0
    return found if sound else None
