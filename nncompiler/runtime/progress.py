"""The progress of training on a terminal, or as plain lines where there is none."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

_EVERY_LINE = 100  # epochs up to which each gets a line of its own
_SECONDS = 1.0  # beyond that, and between plain lines, the time from one line to the next


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands: `rows` of `total` in epoch `epoch` (from 1) of `epochs`.

    `logs` are the running losses, with validation once `done`, at the end of the epoch.
    """

    epoch: int
    epochs: int
    rows: int
    total: int
    logs: Mapping[str, float]
    rows_per_second: float
    seconds_left: float
    done: bool


Report = Callable[[Progress], object]


class Terminal:
    """Shows progress on a stream: one line rewritten on a terminal, whole lines elsewhere."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._tty = not getattr(self._stream, "closed", True) and self._stream.isatty()
        self._last_line = -_SECONDS
        self._open = False

    def __call__(self, now: Progress) -> None:
        due = now.epochs <= _EVERY_LINE or self._clock() - self._last_line >= _SECONDS
        whole = now.done and (due or now.epoch == now.epochs)
        if self._tty:
            width = shutil.get_terminal_size().columns
            self._write("\r" + line(now, width - 1) + "\x1b[K" + ("\n" if whole else ""))
            self._open = not whole
        elif whole:
            self._write(line(now) + "\n")
        if whole:
            self._last_line = self._clock()

    def close(self) -> None:
        """End the line that is being rewritten, if any."""
        if self._open:
            self._write("\n")
            self._open = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # A reader that has gone away must not end the training.
            self._tty = self._open = False


def line(now: Progress, width: int = 0) -> str:
    """One line of progress; with a `width`, it has a bar and is cut to fit."""
    digits = len(str(now.epochs))
    head = f"epoch {now.epoch:>{digits}}/{now.epochs}"
    values = "  ".join(f"{name} {value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0
                       else f"{name} {value:.3e}" for name, value in now.logs.items())  # fmt: skip
    tail = f"{values}  {count(now.rows_per_second)} samples/s"
    if not (now.done and now.epoch == now.epochs):
        tail += f"  {duration(now.seconds_left)} left"
    if not width:
        return f"{head}  {tail}"
    room = min(24, width - len(head) - len(tail) - 6)
    if room >= 8:
        filled = room * now.rows // max(1, now.total)
        head += f"  [{'=' * filled}{' ' * (room - filled)}]"
    return f"{head}  {tail}"[:width]


def count(value: float) -> str:
    """A number in three or four digits: 950, 12.3k, 4.56M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.{'3g' if value < 999.5 * size else '0f'}}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some: 0:07, 1:02:03."""
    if not seconds < 360_000:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
