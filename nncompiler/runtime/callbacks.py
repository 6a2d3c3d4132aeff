"""Callbacks of `fit`: objects that watch training and may stop it, save it, or change its rate.

A callback with a memory of its own gives it in `state` and takes it back in `restore`, so that a
resumed training goes on as if it had never stopped.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nncompiler.errors import UserError, nearest
from nncompiler.runtime import checks
from nncompiler.runtime.checks import Array, Path
from nncompiler.runtime.files import write_atomically

if TYPE_CHECKING:
    from nncompiler.runtime.training import Run

Logs = Mapping[str, float]
_RISING = ("acc", "precision", "recall", "f1", "auc", "r2")
_FALLING = ("loss", "err", "mse", "mae", "rmse", "perplexity")


class Callback:
    """Does nothing at any of these times; `run` is the training, `logs` the values so far."""

    def train_begin(self, run: Run) -> None:
        """Before the first epoch, and before `restore`."""

    def epoch_begin(self, run: Run) -> None:
        """Before the first batch of an epoch."""

    def chunk_end(self, run: Run, logs: Logs) -> None:
        """Several times per second, after some batches; `logs` are the running losses."""

    def epoch_end(self, run: Run, logs: Logs) -> None:
        """After validation; `run.record.epoch` epochs are done."""

    def epoch_done(self, run: Run, logs: Logs) -> None:
        """After `epoch_end` of all callbacks: what is saved here includes what they remember."""

    def train_end(self, run: Run) -> None:
        """After the last epoch, unless training was interrupted."""

    def state(self) -> dict[str, Any]:
        """What to remember in a checkpoint: numbers and arrays by name."""
        return {}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take back what `state` gave, as arrays."""


class _Monitor(Callback):
    """A callback that watches for the best value of one name.

    `monitor` is by default the (first) validation loss, or else the loss. `mode` is min, max, or
    auto, which tells by the name.
    """

    def __init__(self, monitor: str | None, mode: str, min_delta: float) -> None:
        if mode not in ("auto", "min", "max"):
            raise UserError("NN0709", f"expected mode to be auto, min or max, but found {mode!r}")
        self.monitor, self.mode = monitor, mode
        self.min_delta = checks.at_least(min_delta, "min_delta", 0.0)
        self.best = math.inf
        self._name, self._sign = "", 1.0

    def train_begin(self, run: Run) -> None:
        self._name = self.monitor or run.default_monitor
        if self._name not in run.names:
            near = nearest(self._name, run.names)
            validated = any(name.startswith("val_") for name in run.names)
            raise UserError(
                "NN0713", f"expected to monitor one of {', '.join(run.names)}, but found "
                f"'{self._name}'",
                help=f"did you mean '{near}'?" if near and near[:4] == self._name[:4]
                else None if validated
                else "names with 'val_' need validation_data (nnc: --validation)",
            )  # fmt: skip
        self._sign = -1.0 if self._rises(run) else 1.0
        self.best = math.inf

    def _rises(self, run: Run) -> bool:
        name = self._name.removeprefix("val_")
        if self.mode != "auto":
            return self.mode == "max"
        if name in run.model.manifest.losses or any(part in name.lower() for part in _FALLING):
            return False
        if any(part in name.lower() for part in _RISING):
            return True
        raise UserError(
            "NN0713", f"expected to know whether '{self._name}' should rise or fall",
            help="pass mode='max' or mode='min'",
        )  # fmt: skip

    def improved(self, logs: Logs) -> bool:
        """Whether this is the best value so far, by more than `min_delta`; NaN never is."""
        value = self._sign * logs[self._name]
        if not value < self.best - self.min_delta:
            return False
        self.best = value
        return True

    def state(self) -> dict[str, Any]:
        return {"best": self.best}

    def restore(self, state: Mapping[str, Array]) -> None:
        self.best = float(state["best"])


class EarlyStopping(_Monitor):
    """Stops after `patience` epochs without improvement.

    With `restore_best`, the parameters are those of the best epoch when training ends.
    """

    def __init__(
        self, patience: int = 10, min_delta: float = 0.0, monitor: str | None = None,
        restore_best: bool = True, mode: str = "auto",
    ) -> None:  # fmt: skip
        super().__init__(monitor, mode, min_delta)
        self.patience = checks.whole(patience, "patience", 1)
        self.restore_best = restore_best
        self._waited = 0
        self._parameters: dict[str, Array] = {}

    def train_begin(self, run: Run) -> None:
        super().train_begin(run)
        self._waited, self._parameters = 0, {}

    def epoch_end(self, run: Run, logs: Logs) -> None:
        if self.improved(logs):
            self._waited = 0
            if self.restore_best:
                self._parameters = run.model.state_dict()
            return
        self._waited += 1
        if self._waited >= self.patience:
            best = self._sign * self.best
            run.stop(f"{self._name} has not improved on {best:.6g} for {self.patience} epochs")

    def train_end(self, run: Run) -> None:
        if self._parameters:
            run.model.load_state_dict(self._parameters)

    def state(self) -> dict[str, Any]:
        best = {f"parameter/{name}": values for name, values in self._parameters.items()}
        return {**super().state(), "waited": self._waited, **best}

    def restore(self, state: Mapping[str, Array]) -> None:
        super().restore(state)
        self._waited = int(state["waited"])
        self._parameters = {
            name.removeprefix("parameter/"): values
            for name, values in state.items() if name.startswith("parameter/")
        }  # fmt: skip


class ReduceOnPlateau(_Monitor):
    """Multiplies the learning rate by `factor` after `patience` epochs without improvement."""

    def __init__(
        self, factor: float = 0.1, patience: int = 5, min_delta: float = 1e-4,
        monitor: str | None = None, min_rate: float = 0.0, cooldown: int = 0, mode: str = "auto",
    ) -> None:  # fmt: skip
        super().__init__(monitor, mode, min_delta)
        self.factor = checks.at_least(factor, "factor", 0.0)
        if not 0 < self.factor < 1:
            raise UserError("NN0709", f"expected factor between 0 and 1, but found {factor!r}")
        self.patience = checks.whole(patience, "patience", 1)
        self.min_rate = checks.at_least(min_rate, "min_rate", 0.0)
        self.cooldown = checks.whole(cooldown, "cooldown", 0)
        self._waited = self._cooling = 0

    def train_begin(self, run: Run) -> None:
        super().train_begin(run)
        self._waited = self._cooling = 0

    def epoch_end(self, run: Run, logs: Logs) -> None:
        improved = self.improved(logs)
        if improved or self._cooling:
            self._cooling = max(0, self._cooling - 1)
            self._waited = 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            run.model.rate = max(run.model.rate * self.factor, self.min_rate)
            self._waited, self._cooling = 0, self.cooldown

    def state(self) -> dict[str, Any]:
        return {**super().state(), "waited": self._waited, "cooling": self._cooling}

    def restore(self, state: Mapping[str, Array]) -> None:
        super().restore(state)
        self._waited, self._cooling = int(state["waited"]), int(state["cooling"])


class ModelCheckpoint(_Monitor):
    """Writes a checkpoint after each epoch, or with `best_only` after each best one.

    `{epoch}` in `path` becomes the number of epochs done. With `weights_only` it writes the
    parameters alone, as `Model.save` does.
    """

    def __init__(
        self, path: Path, best_only: bool = False, weights_only: bool = False,
        monitor: str | None = None, mode: str = "auto",
    ) -> None:  # fmt: skip
        super().__init__(monitor, mode, 0.0)
        self.path, self.best_only, self.weights_only = os.fspath(path), best_only, weights_only
        self._due = False

    def train_begin(self, run: Run) -> None:
        if self.best_only:
            super().train_begin(run)

    def epoch_end(self, run: Run, logs: Logs) -> None:
        self._due = not self.best_only or self.improved(logs)

    def epoch_done(self, run: Run, logs: Logs) -> None:
        if self._due:
            path = self.path.replace("{epoch}", str(run.record.epoch))
            if self.weights_only:
                run.model.save(path)
            else:
                run.model.save_checkpoint(path)


class CSVLogger(Callback):
    """Writes one line per epoch to a file, when resuming after those of the epochs done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: tuple[str, ...] = ()

    def train_begin(self, run: Run) -> None:
        self._columns = run.names
        history, done = run.record.history, run.record.epoch
        columns = [history.get(name, []) for name in self._columns]
        count = min(map(len, columns))
        lines = [("epoch", *self._columns)]
        for back in range(count, 0, -1):
            values = (_number(column[len(column) - back]) for column in columns)
            lines.append((str(done - back + 1), *values))
        text = "".join(map(_line, lines))
        write_atomically(self.path, lambda stream: stream.write(text.encode()))

    def epoch_end(self, run: Run, logs: Logs) -> None:
        line = _line((str(run.record.epoch), *(_number(logs[n]) for n in self._columns)))
        try:
            with open(self.path, "a", encoding="utf-8", newline="") as stream:
                stream.write(line)
        except OSError as error:
            raise UserError("NN0809", f"cannot write '{self.path}': {error.strerror}") from None


def _number(value: float) -> str:
    return f"{value:.9g}"


def _line(values: tuple[str, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


class TerminateOnNaN(Callback):
    """Stops as soon as a running loss is NaN or infinite."""

    def chunk_end(self, run: Run, logs: Logs) -> None:
        for name, value in logs.items():
            if not math.isfinite(value):
                run.stop(f"{name} is {value} after {run.model.step} steps")
