"""What `nnc train` does with a trained model: weights, library and picture; the report."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nncompiler.api import Request, Sizes, build
from nncompiler.cli import models
from nncompiler.cli.compile import header_of, write_artifact
from nncompiler.cli.output import print_json, say, write_file
from nncompiler.errors import UserError
from nncompiler.record import dataclass, replace

if TYPE_CHECKING:
    from nncompiler.runtime.datasets import Splits
    from nncompiler.runtime.model import Model
    from nncompiler.runtime.record import History

#: The codes of files that cannot be written.
_UNWRITTEN = ("NN0809", "NN0906")


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it."""

    model: Model
    splits: Splits
    history: History
    before: int  # epochs that a checkpoint came with
    seconds: float


@contextlib.contextmanager
def rescuing(model: Model) -> Iterator[None]:
    """Where a file cannot be written within it, the weights go to this folder, if that takes them:
    they may have taken hours."""
    try:
        yield
    except UserError as error:
        if error.code in _UNWRITTEN and model.record is not None:
            path = f"{model.name}.weights.npz"
            with contextlib.suppress(UserError):
                model.save(path)
                say(f"the weights as they are now: {path}")
        raise


def write(args: argparse.Namespace, wanted: Request, done: Trained) -> None:
    """The files of results, what took longest to get first."""
    if args.weights_out:
        done.model.save(args.weights_out)
    if args.artifact:
        with tempfile.TemporaryDirectory() as folder:
            weights = os.path.join(folder, "weights.npz")
            done.model.save(weights)
            shipped = replace(wanted, weights=weights, bindings=_shipped(wanted, done.model))
            built = build(shipped, cache=not args.no_cache)
        write_artifact(built, args.artifact, header_of(args.artifact))
    if args.plot:
        from nncompiler.report.chart import chart, history_panels

        write_file(args.plot, chart(history_panels(done.history), done.model.name))


def _shipped(wanted: Request, model: Model) -> tuple[Sizes, ...]:
    """The bindings of the artifact: with rows one by one, so that it can predict any number."""
    rows = next(e.rows for e in model.manifest.entries if e.function == "train_step")
    if len(wanted.bindings) > 1 or rows <= 1:
        return wanted.bindings
    others = tuple((n, v) for n, v in wanted.bindings[0] if n != "batch")
    return ((("batch", rows), *others), (("batch", 1), *others))


def _trained(epochs: int, done: Trained) -> str:
    before = f", after {done.before} before" if done.before else ""
    return f"{epochs} epoch{'s' * (epochs != 1)} in {done.seconds:.2f} s{before}"


def report(args: argparse.Namespace, done: Trained) -> None:
    """Validation once more, as the parameters are now; then the test part, for the only time."""
    wanted = ["validation"] + (["test"] if args.test is not None else [])
    parts = {name: getattr(done.splits, name) for name in wanted}
    found = {n: done.model.evaluate(data) for n, data in parts.items() if data}
    epochs = max(map(len, done.history.values()), default=0)
    if args.json:
        record: dict[str, Any] = {
            "model": done.model.name, "epochs": epochs, "stopped": done.history.stopped,
            "seconds": done.seconds, "history": dict(done.history), **found,
            "weights": args.weights_out, "artifact": args.artifact,
        }  # fmt: skip
        print_json(record)
        return
    print(f"{'trained':<11}{_trained(epochs - done.before, done)}"
          f"{'; parameters of the best' if args.patience is not None else ''}")  # fmt: skip
    for label, path in (("weights", args.weights_out), ("artifact", args.artifact)):
        if path:
            print(f"{label:<11}{path}")
    for name, values in found.items():
        print(models.line(name, values, models.count(parts[name])))
