"""The place in training: what `fit` needs, beside the state, to go on exactly where it stopped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nncompiler.errors import UserError


class History(dict[str, list[float]]):
    """Values by name, one per finished epoch: `loss`, `val_loss`, `val_accuracy`, ...

    `stopped` says why training ended before the last epoch, if it did.
    """

    stopped: str | None = None

    def add(self, logs: dict[str, float]) -> None:
        for name, value in logs.items():
            self.setdefault(name, []).append(value)


@dataclass(slots=True)
class Record:
    """`epoch` epochs are done, and `position` rows of the next, whose losses sum to `sums`.

    `stopped` says why training ended early; it does not go on from there.

    The order of the rows in an epoch follows from `seed` and the epoch, so it is not kept.
    """

    seed: int
    shuffle: bool
    batch: int
    rows: int
    epoch: int
    position: int = 0
    sums: list[float] = field(default_factory=list)
    history: History = field(default_factory=History)
    callbacks: list[str] = field(default_factory=list)
    memories: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All but what callbacks remember, which may hold arrays."""
        return {
            "seed": self.seed, "shuffle": self.shuffle, "batch": self.batch, "rows": self.rows,
            "epoch": self.epoch, "position": self.position, "sums": self.sums,
            "history": dict(self.history), "callbacks": self.callbacks, "stopped": self.stopped,
        }  # fmt: skip

    @staticmethod
    def from_json(items: dict[str, Any]) -> Record:
        """The inverse of `to_json`; some error where `items` is not of its making."""
        numbers = {k: items[k] for k in ("seed", "batch", "rows", "epoch", "position")}
        good = all(type(n) is int and n >= 0 for n in numbers.values())
        stopped = items["stopped"]
        if not good or type(items["shuffle"]) is not bool or not isinstance(stopped, str | None):
            raise ValueError
        history = History({str(k): [float(v) for v in vs] for k, vs in items["history"].items()})
        return Record(
            **numbers, shuffle=items["shuffle"], sums=[float(v) for v in items["sums"]],
            history=history, callbacks=[str(name) for name in items["callbacks"]], stopped=stopped,
        )  # fmt: skip

    def check(self, fit: Record) -> None:
        """Raise unless going on with the settings of `fit` continues what this is a record of."""
        for name in ("rows", "batch", "seed", "shuffle"):
            had, found = getattr(self, name), getattr(fit, name)
            if had != found:
                raise UserError(
                    "NN0812", f"expected to go on with {name} {had}, as in the checkpoint, but "
                    f"found {found}",
                    help="a resumed training takes the data and settings it was begun with",
                )  # fmt: skip
        if self.callbacks != fit.callbacks:
            raise UserError(
                "NN0813", f"expected to go on with callbacks {_listed(self.callbacks)}, as in the "
                f"checkpoint, but found {_listed(fit.callbacks)}")  # fmt: skip


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def epoch_order(rows: int, seed: int, epoch: int, shuffle: bool) -> npt.NDArray[np.int64]:
    """The order of the rows in an epoch: a permutation drawn from (seed, epoch), or as they are.

    It sorts the raw output of Philox, which NumPy keeps the same across versions, unlike
    `Generator.permutation`.
    """
    if not shuffle:
        return np.arange(rows, dtype=np.int64)
    raw = np.random.Philox(key=seed | epoch << 64).random_raw(rows)
    return np.argsort(raw, kind="stable").astype(np.int64)
