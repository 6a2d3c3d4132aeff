"""`nnc train`: compile a file, train it, write weights, artifact and checkpoints, and report."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from nncompiler.api import model_of
from nncompiler.cli import UsageError, models, options
from nncompiler.cli.compile import header_of, report_stages
from nncompiler.cli.output import need_apart, need_writable, say, say_tuned
from nncompiler.cli.trained import Trained, report, rescuing, write
from nncompiler.errors import EXIT_INTERRUPTED, EXIT_OK, UserError
from nncompiler.record import replace

if TYPE_CHECKING:
    from nncompiler.runtime.callbacks import Callback
    from nncompiler.runtime.datasets import Splits
    from nncompiler.runtime.model import Model
    from nncompiler.runtime.record import History

#: What training calls; the artifact has all functions.
TRAINING = ("init", "loss", "train_step")


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "train", "Compile a file and train it. Progress is shown on stderr, results "
        "on stdout. Ctrl-C writes a checkpoint.",
        epilog="The data file holds an array for each input and target, by name, with one row for "
        "each sample; or train.NAME, validation.NAME and test.NAME. The digits come split. A text "
        "is cut into windows; its last parts are validated and tested on.",
    )  # fmt: skip
    parser.add_argument("file", help="a .nn file with a loss and a train block")
    models.add_data(parser)
    _add_training(parser)
    _add_files(parser)
    options.add_model(parser, several=True)
    options.add_target(parser)
    options.add_threads(parser)
    parser.add_argument(
        "--report-stages", action="store_true", help="a line per stage of compiling"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options.add_json(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=options.number(1), metavar="N",
                       help="train up to epoch N (default: the train block's)")  # fmt: skip
    group.add_argument(
        "--lr", type=options.positive, metavar="RATE", help="learning rate, before its schedule"
    )
    group.add_argument("--seed", type=options.number(0, 2**64 - 1), default=0, metavar="N",
                       help="for parameters and the order of rows (default 0)")  # fmt: skip
    group.add_argument("--validation", type=options.fraction, default=0.1, metavar="SHARE",
                       help="share of the rows to validate on (default 0.1)")  # fmt: skip
    group.add_argument("--test", type=options.fraction, nargs="?", const=0.2, metavar="SHARE",
                       help="share of the rows to test on at the end (default 0.2)")  # fmt: skip
    group.add_argument("--patience", type=options.number(1), metavar="N",
                       help="stop after N epochs without progress, keep the best")  # fmt: skip
    group.add_argument(
        "--monitor", metavar="NAME", help="what --patience watches (default: val_loss)"
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument("--weights-in", metavar="FILE", help="start from these weights")
    group.add_argument(
        "--weights-out", metavar="FILE", help="write the weights (.npz, .safetensors)"
    )
    group.add_argument(
        "--artifact", metavar="OUT.so", help="write the library, trained weights inside"
    )
    group.add_argument(
        "--checkpoint", metavar="C.npz", help="write the place in training, each epoch"
    )
    group.add_argument("--resume", metavar="C.npz", help="go on from a checkpoint")
    group.add_argument("--averaged", action="store_true", help="end with the moving averages of "
                       "the weights, which `ema` keeps: for weights, library and results")
    group.add_argument("--csv", metavar="LOG.csv", help="write a line for each epoch")
    group.add_argument("--plot", metavar="OUT.svg", help="draw losses and metrics by epoch")


def run(args: argparse.Namespace) -> int:
    _check(args)
    wanted = options.request_of(args, bindings=options.bindings_of(args))
    wanted_now = replace(wanted, functions=TRAINING)
    model, built = model_of(wanted_now, cache=not args.no_cache, threads=args.threads)
    say_tuned(built.stages)
    if args.report_stages:
        report_stages(built)
    if args.averaged:
        model.averages()  # that there are any is told before training
    splits = _load(args, model)
    _prepare(args, model, splits)
    start = time.perf_counter()
    with rescuing(model):
        try:
            history, before = _fit(args, model, splits)
        except KeyboardInterrupt:
            return _interrupted(args, model)
        done = Trained(model, splits, history, before, time.perf_counter() - start)
        if args.averaged:
            model.load_state_dict(model.averages())
        write(args, wanted, done)
    report(args, done)
    return EXIT_OK


def _check(args: argparse.Namespace) -> None:
    """What can be found wrong before the work begins."""
    from nncompiler.runtime.weights import SUFFIXES

    if args.weights_out and not args.weights_out.lower().endswith(SUFFIXES):
        raise UsageError("NN0919", f"expected --weights-out to be .npz or .safetensors, but found "
                         f"'{args.weights_out}'")  # fmt: skip
    if args.resume and args.weights_in:
        raise UsageError("NN0921", "--resume and --weights-in both say where to start from",
                         help="leave one of them out")  # fmt: skip
    if args.monitor and args.patience is None:
        raise UsageError("NN0921", "--monitor says what --patience watches, which is not there",
                         help="add --patience N, or leave --monitor out")  # fmt: skip
    if args.plot and not args.plot.lower().endswith(".svg"):
        raise UsageError("NN0919", f"expected --plot to be .svg, but found '{args.plot}'")
    places = args.weights_out, args.artifact, args.checkpoint, args.csv, args.plot
    header = args.artifact and header_of(args.artifact)
    need_apart((args.file, args.data), *places, header)
    # weights and checkpoints go on where they were read, nothing else goes over them
    need_apart((args.weights_in, args.resume), args.artifact, header, args.csv, args.plot)
    need_writable(*filter(None, places))


def _load(args: argparse.Namespace, model: Model) -> Splits:
    splits = _read(args, model)
    if not models.count(splits.train):
        raise UserError("NN0918", f"expected rows to train on in '{args.data}', but none are left")
    if args.test is not None and not splits.test:
        raise UserError("NN0918", f"expected a test part in '{args.data}', but it has none")
    parts = [(n, models.count(getattr(splits, n))) for n in ("train", "validation", "test")]
    say(f"{model.name}: {', '.join(f'{rows} rows to {n}' for n, rows in parts if rows)}")
    return splits


def _read(args: argparse.Namespace, model: Model) -> Splits:
    """What training reads; and the rest, where there is validation or a test."""
    from nncompiler.runtime.datasets import Splits
    from nncompiler.runtime.loading import load_splits

    read = model.bindings.any("train_step").given
    judged = args.validation > 0 or args.test is not None
    wanted = model.manifest.data if judged else read
    try:
        splits = load_splits(
            args.data, wanted, validation=args.validation, test=args.test or 0.0)
    except UserError as error:
        if len(wanted) > len(read) and error.code in ("NN0760", "NN0765"):
            names = ", ".join(f"'{a.name}'" for a in wanted if a not in read)
            error.help = (f"only validation and tests read {names}: leave them out with "
                          "--validation 0; or " + (error.help or "add it to the file"))
        raise
    return splits if args.validation else Splits(splits.train, {}, splits.test)


def _prepare(args: argparse.Namespace, model: Model, splits: Splits) -> None:
    """Parameters and rate; and the batch sizes that training needs besides the one it has."""
    batch = _batch(args) or model.manifest.train.get("batch", 1)
    rows = models.count(splits.train)
    if rows < batch:
        say(f"an epoch is one step, of fewer rows than the batch of {batch}")
    rest = rows % batch
    if rest and rest not in model.bindings.sizes("train_step"):
        start = time.perf_counter()
        model.bindings.fit(rest)
        if args.report_stages:
            seconds = time.perf_counter() - start
            say(f"{'compiled':<10}{seconds:8.3f} s  for the last {rest} rows of an epoch")
    model.init(args.seed)
    if args.weights_in:
        model.load_weights(args.weights_in)
    if args.lr is not None:
        model.rate = args.lr


def _fit(args: argparse.Namespace, model: Model, splits: Splits) -> tuple[History, int]:
    """What came of training, and the epochs that were done before it."""
    from nncompiler.runtime.callbacks import CSVLogger, EarlyStopping, TerminateOnNaN

    begun = _begun()
    callbacks: list[Callback] = [TerminateOnNaN(), begun]
    if args.patience is not None:
        callbacks.append(EarlyStopping(args.patience, monitor=args.monitor))
    if args.csv:
        callbacks.append(CSVLogger(args.csv))
    if args.checkpoint:
        callbacks.append(_checkpointing(args.checkpoint))
    history = model.fit(
        splits.train, epochs=args.epochs, batch=_batch(args), seed=args.seed,
        validation_data=splits.validation or None, callbacks=callbacks,
        progress=not args.quiet, check_nan=True, resume=args.resume,
    )  # fmt: skip
    stopped = history.stopped
    if stopped is not None and not any(
        stopped.endswith(f" for {n} epochs") for n in (args.patience,)
    ):
        raise UserError(
            "NN0922", f"training diverged: {stopped}",
            help="lower the learning rate, as with --lr, or check the data",
        )  # fmt: skip
    return history, begun.epoch


def _begun() -> Any:
    """Takes down at which epoch training begins."""
    from nncompiler.runtime.callbacks import Callback
    from nncompiler.runtime.training import Run

    class Begun(Callback):
        epoch = 0

        def train_begin(self, run: Run) -> None:
            self.epoch = run.record.epoch

    return Begun()


def _checkpointing(path: str) -> Callback:
    """Writes a checkpoint after each epoch; one goes on from it with or without `--checkpoint`."""
    from nncompiler.runtime.callbacks import Callback, Logs
    from nncompiler.runtime.training import Run

    class Checkpointing(Callback):
        def epoch_done(self, run: Run, logs: Logs) -> None:
            run.model.save_checkpoint(path)

    return Checkpointing()


def _batch(args: argparse.Namespace) -> int | None:
    """The batch size to train with: the first that is asked for."""
    sizes = dict(options.bindings_of(args)[0])
    return sizes.get("batch")


def _interrupted(args: argparse.Namespace, model: Model) -> int:
    if model.record is None:
        say("interrupted before training began")
        return EXIT_INTERRUPTED
    path = args.checkpoint or f"{model.name}.checkpoint.npz"
    model.save_checkpoint(path)
    say(f"interrupted in epoch {model.record.epoch + 1}; wrote the checkpoint {path}")
    say(f"  go on with: {_again(path)}")
    return EXIT_INTERRUPTED


def _again(path: str) -> str:
    """The command line that goes on from a checkpoint."""
    kept: list[str] = []
    skip = False
    for word in sys.argv[1:]:
        if skip or word in ("--resume", "--weights-in"):
            skip = not skip
        elif not word.startswith(("--resume=", "--weights-in=")):
            kept.append(word)
    return shlex.join(["nnc", *kept, "--resume", path])
