"""Grid, random and Bayesian search and Hyperband for the digits, with the library Optuna.

    pip install optuna
    python docs/tutorial/search.py [--out out]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import optuna
from experiment import MODELS, draw, folder, table

import nncompiler
from nncompiler.report.chart import Panel, Series
from nncompiler.runtime import datasets
from nncompiler.runtime.callbacks import Callback

WIDTHS = (8, 32, 128)
LEAST, MOST = 1e-4, 1.0  # learning rates
EPOCHS = 27  # that a network is trained for at most
BUDGET = 12 * EPOCHS  # epochs that a search may spend
SEEDS = range(5)
TEXT = (MODELS / "digits_mlp.nn").read_text(encoding="utf-8")
DIGITS = datasets.digits()


def network(width: int) -> nncompiler.Model:
    """The model with other hidden layers, at the rate that it is given; compiled once."""
    text = TEXT.replace("dense(128)", f"dense({width})").replace("dense(64)", f"dense({width})")
    text = text.replace("    schedule = cosine(total=4100)\n", "")
    return nncompiler.compile(text, batch=[32, 1])


class Report(Callback):
    """Tells Optuna the validation loss of each epoch, and stops what it gives up."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.losses: list[float] = []

    def epoch_end(self, run: nncompiler.runtime.training.Run, logs: dict[str, float]) -> None:
        loss = logs["val_loss"] if np.isfinite(logs["val_loss"]) else 1e9
        self.losses.append(loss)
        self.trial.report(loss, len(self.losses))
        if self.trial.should_prune():
            run.stop("Optuna gave it up")


@dataclass
class Search:
    """One search: the least validation loss so far after each epoch spent."""

    seed: int
    best: list[float] = field(default_factory=list)
    least: float = np.inf  # of the losses at the end of a training
    accuracy: float = 0.0  # of that network, on the test rows
    trials: int = 0

    def __call__(self, trial: optuna.Trial) -> float:
        """Train one network, for as long as Optuna lets it."""
        model = network(trial.suggest_categorical("width", WIDTHS))
        model.init(self.seed)
        model.rate = trial.suggest_float("rate", LEAST, MOST, log=True)
        report = Report(trial)
        history = model.fit(DIGITS.train, epochs=EPOCHS, validation_data=DIGITS.validation,
                            callbacks=[report], progress=False)  # fmt: skip
        if report.losses[-1] < self.least:
            self.least = report.losses[-1]
            self.accuracy = model.evaluate(DIGITS.test)["accuracy"]
        before = self.best[-1:] or [np.inf]
        self.best += np.minimum.accumulate(before + report.losses)[1:].tolist()
        self.trials += 1
        if len(self.best) >= BUDGET:
            trial.study.stop()
        if history.stopped:
            raise optuna.TrialPruned
        return report.losses[-1]


def grid(seed: int) -> optuna.samplers.BaseSampler:
    rates = np.geomspace(LEAST, MOST, BUDGET // EPOCHS // len(WIDTHS)).tolist()
    return optuna.samplers.GridSampler({"width": WIDTHS, "rate": rates}, seed=seed)


def hyperband() -> optuna.pruners.BasePruner:
    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3)


METHODS: dict[str, tuple[Callable[[int], optuna.samplers.BaseSampler],
                         Callable[[], optuna.pruners.BasePruner]]] = {
    "grid": (grid, optuna.pruners.NopPruner),
    "random": (lambda seed: optuna.samplers.RandomSampler(seed), optuna.pruners.NopPruner),
    "Bayesian (TPE)": (lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=4),
                       optuna.pruners.NopPruner),
    "Hyperband": (lambda seed: optuna.samplers.RandomSampler(seed), hyperband),
}  # fmt: skip


def search(method: str, seed: int) -> Search:
    sampler, pruner = METHODS[method]
    study = optuna.create_study(sampler=sampler(seed), pruner=pruner(), study_name=f"{seed}")
    found = Search(seed)
    study.optimize(found, n_trials=BUDGET)
    return found


def main() -> None:
    out = folder(__doc__)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    rows: list[list[object]] = [["", "networks", "val_loss, mean", "worst", "test accuracy"]]
    lines = []
    for method in METHODS:
        found = [search(method, seed) for seed in SEEDS]
        best = np.array([f.best[:BUDGET] for f in found])
        rows.append([
            method, f"{np.mean([f.trials for f in found]):.0f}", f"{best[:, -1].mean():.4f}",
            f"{best[:, -1].max():.4f}", f"{np.mean([f.accuracy for f in found]):.4f}",
        ])  # fmt: skip
        lines.append(Series(method, best.mean(0).tolist()))
    table(rows)
    draw(out / "search.svg", [Panel("least validation loss, mean of 5", lines, "epochs spent")])


if __name__ == "__main__":
    main()
