"""The training loop: epochs of native calls, with order, validation, callbacks and progress.

One native call trains a whole epoch or a chunk of it, short enough to show progress and to honour
Ctrl-C. Where a chunk ends changes neither parameters nor losses. The last, smaller batch of an
epoch has a binding of its own and is trained exactly. Losses of an epoch are means over its rows.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from nncompiler.errors import UserError
from nncompiler.runtime import checks, evaluation
from nncompiler.runtime.artifact import Native
from nncompiler.runtime.call import check_code, pointer
from nncompiler.runtime.callbacks import Callback
from nncompiler.runtime.checks import Array, Data, Path
from nncompiler.runtime.manifest import Argument
from nncompiler.runtime.progress import Progress, Report, Terminal
from nncompiler.runtime.record import History, Record, epoch_order

if TYPE_CHECKING:
    from nncompiler.runtime.model import Model

CHUNK_SECONDS = 0.2
_GROWTH = 8  # a chunk has at most so many times the batches of the one before


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `Model.fit` but for the data."""

    epochs: int | None
    batch: int | None
    shuffle: bool
    seed: int
    callbacks: tuple[Callback, ...]
    progress: bool | Report
    check_nan: bool
    initial_epoch: int


def fit(
    model: Model, data: Data, validation_data: Data | None, settings: Settings, resume: Path | None
) -> History:
    """See `Model.fit`."""
    record, epochs = _plan(model, settings)
    entry = model.bindings.any("train_step")
    known = (*model.manifest.inputs, *model.manifest.targets)
    arrays = checks.dataset(data, entry.given, known)
    record.rows = checks.row_count(arrays, entry.given)
    checks.indices(arrays, entry.given)
    if settings.check_nan:
        checks.finite(arrays)
    validation = None
    if validation_data is not None:
        validation = evaluation.prepare(model, validation_data, settings.check_nan)
    report = _reporter(settings.progress)
    run = Run(model, arrays, validation, record, epochs, settings.callbacks, report)
    return run.go(resume)


def _plan(model: Model, settings: Settings) -> tuple[Record, int]:
    """The record of a training about to begin, without its rows, and its epochs."""
    entry, train = model.bindings.any("train_step"), model.manifest.train
    epochs = train.get("epochs", 10) if settings.epochs is None else settings.epochs
    batch = train.get("batch", entry.rows) if settings.batch is None else settings.batch
    epochs = checks.whole(epochs, "epochs", 1)
    for callback in settings.callbacks:
        if not isinstance(callback, Callback):
            raise UserError("NN0709", f"expected a Callback, but found {callback!r}")
    return Record(
        seed=checks.whole(settings.seed, "the seed", 0, 2**64 - 1), shuffle=bool(settings.shuffle),
        batch=checks.whole(batch, "batch", 1), rows=0,
        epoch=checks.whole(settings.initial_epoch, "initial_epoch", 0, epochs),
        sums=[0.0] * len(model.manifest.losses),
        callbacks=[type(c).__name__ for c in settings.callbacks if c.state()],
    ), epochs  # fmt: skip


def _reporter(progress: bool | Report) -> Report | None:
    if callable(progress):
        return progress
    return Terminal() if progress else None


@dataclass(slots=True)
class _Segment:
    """The rows from `start` to `stop` of an epoch's order, in batches of `rows`."""

    native: Native
    rows: int
    start: int
    stop: int
    arguments: tuple[Any, ...]
    given: tuple[Argument, ...]
    chunk: int = 1
    seconds: float = 0.0


class Run:
    """A training under way, as callbacks see it."""

    def __init__(
        self, model: Model, arrays: Mapping[str, Array], validation: Mapping[str, Array] | None,
        record: Record, epochs: int, callbacks: tuple[Callback, ...], report: Report | None,
    ) -> None:  # fmt: skip
        self.model, self.record, self.epochs = model, record, epochs
        self._arrays, self._validation = arrays, validation
        self._callbacks, self._report = callbacks, report
        losses = model.manifest.losses
        watched = [*losses, *model.manifest.metrics] if validation is not None else []
        #: The values of an epoch, and the one that callbacks watch unless told otherwise.
        self.names = (*losses, *(f"val_{name}" for name in watched))
        self.default_monitor = f"val_{losses[0]}" if validation is not None else losses[0]
        self._segments = self._cut()
        if validation is not None:
            entry = model.bindings.any("loss")
            model.bindings.cover("loss", checks.row_count(validation, entry.given))
        self._busy = 0.0
        self._trained = 0

    @property
    def history(self) -> History:
        return self.record.history

    def stop(self, reason: str) -> None:
        """End training after this chunk, or after this epoch when called at its end."""
        self.record.stopped = reason

    def _cut(self) -> list[_Segment]:
        """The whole batches of an epoch, and the rest as one smaller batch."""
        rows, batch = self.record.rows, self.record.batch
        whole = rows - rows % batch
        parts = [(batch, 0, whole), (rows - whole, whole, rows)]
        fits = [(self.model.bindings.fit(n), n, a, b) for n, a, b in parts if a < b]
        memory = self.model.memory("train_step")
        return [
            _Segment(native, n, a, b,
                     (*memory, *(pointer(self._arrays[g.name]) for g in entry.given)), entry.given)
            for (entry, native), n, a, b in fits
        ]  # fmt: skip

    def go(self, resume: Path | None) -> History:
        """Train from the start, or from the checkpoint `resume`."""
        memories = None if resume is None else self._resume(resume)
        for callback in self._callbacks:
            callback.train_begin(self)
        if memories is not None:
            stateful = [c for c in self._callbacks if c.state()]
            for callback, memory in zip(stateful, memories, strict=True):
                callback.restore(memory)
        self.model.record = self.record
        self._remember()
        try:
            with _Interrupts() as interrupts:
                while self.record.epoch < self.epochs and self.record.stopped is None:
                    self._epoch(interrupts)
        finally:
            if isinstance(self._report, Terminal):
                self._report.close()
        for callback in self._callbacks:
            callback.train_end(self)
        self.history.stopped = self.record.stopped
        return self.history

    def _resume(self, path: Path) -> list[dict[str, Any]]:
        self.record = self.model.resume(path, self.record)
        return self.record.memories

    def _remember(self) -> None:
        states = [callback.state() for callback in self._callbacks]
        self.record.memories = [dict(state) for state in states if state]

    def _epoch(self, interrupts: _Interrupts) -> None:
        record = self.record
        if record.position == 0:
            for callback in self._callbacks:
                callback.epoch_begin(self)
        order = epoch_order(record.rows, record.seed, record.epoch, record.shuffle)
        for segment in self._segments:
            while record.position < segment.stop:
                self._chunk(segment, order)
                interrupts.check()
                if record.stopped is not None:
                    self.history.add(self._losses())
                    return
        logs = self._losses()
        if self._validation is not None:
            values = evaluation.evaluate_arrays(self.model, self._validation)
            logs |= {f"val_{name}": value for name, value in values.items()}
        record.history.add(logs)
        record.epoch, record.position = record.epoch + 1, 0
        record.sums = [0.0] * len(record.sums)
        for callback in self._callbacks:
            callback.epoch_end(self, logs)
        self._remember()
        for callback in self._callbacks:
            callback.epoch_done(self, logs)
        self._tell(logs, done=True)
        interrupts.check()

    def _chunk(self, segment: _Segment, order: Array) -> None:
        """Train some batches, as many as the clock says; the loss sums go on where they were."""
        record = self.record
        left = (segment.stop - record.position) // segment.rows
        count = min(left, segment.chunk) * segment.rows
        sums = np.array(record.sums)  # native code adds to them
        start = time.perf_counter()
        code = segment.native(
            *segment.arguments, pointer(order, 8 * record.position), ctypes.c_int64(count),
            pointer(sums),
        )  # fmt: skip
        seconds = time.perf_counter() - start
        check_code(code, "fit", self._arrays, segment.given)
        record.position += count
        record.sums = sums.tolist()
        per_batch = max(seconds, 1e-9) * segment.rows / count
        most = count // segment.rows * _GROWTH
        segment.chunk = max(1, min(most, int(CHUNK_SECONDS / per_batch)))
        self._busy += seconds
        self._trained += count
        logs = self._losses()
        for callback in self._callbacks:
            callback.chunk_end(self, logs)
        if record.position < record.rows:
            self._tell(logs, done=False)

    def _losses(self) -> dict[str, float]:
        record = self.record
        return {
            name: total / max(1, record.position)
            for name, total in zip(self.model.manifest.losses, record.sums, strict=True)
        }

    def _tell(self, logs: Mapping[str, float], done: bool) -> None:
        if self._report is None:
            return
        record = self.record
        rate = max(self._trained / max(self._busy, 1e-9), 1e-9)
        left = (self.epochs - record.epoch) * record.rows - record.position
        rows = record.rows if done else record.position
        epoch = record.epoch if done else record.epoch + 1
        self._report(
            Progress(epoch, self.epochs, rows, record.rows, logs, rate, left / rate, done)
        )


class _Interrupts:
    """Holds Ctrl-C back until `check`, so that it never comes between a call and its bookkeeping.

    A second one is raised at once. Only Python's own handler is replaced, in the main thread.
    """

    def __init__(self) -> None:
        self._pending = False
        self._previous: Callable[[int, FrameType | None], Any] | None = None

    def __enter__(self) -> _Interrupts:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.default_int_handler
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if kind is None:
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._pending:
            raise KeyboardInterrupt
        self._pending = True

    def check(self) -> None:
        """Raise the interrupt that is pending, if any."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
