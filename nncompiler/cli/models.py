"""Models and data for `train`, `eval` and `predict`: `.nn` files, artifacts and `.npz` files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nncompiler.api import model_of, unreadable
from nncompiler.cli import UsageError, options
from nncompiler.cli.output import say, say_tuned
from nncompiler.errors import UserError

if TYPE_CHECKING:
    from nncompiler.runtime.manifest import Argument
    from nncompiler.runtime.model import Model

PARTS = ("all", "train", "validation", "test")
_SHARES = {"validation": 0.1, "test": 0.2}


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="FILE", help="arrays by name (.npz); or "
                        "text (.txt), for a model of characters")  # fmt: skip


def add_use(parser: argparse.ArgumentParser) -> None:
    """The arguments of `eval` and `predict`."""
    parser.add_argument("model", metavar="MODEL", help="a .nn file or a compiled artifact (.so)")
    add_data(parser)
    parser.add_argument("--weights", metavar="FILE", help="trained weights (.npz, .safetensors)")
    parser.add_argument(
        "--part", choices=PARTS, default="all",
        help="rows to use, split as `nnc train --test` does (default: all)",
    )  # fmt: skip
    for part, share in _SHARES.items():
        parser.add_argument(f"--{part}", type=options.fraction, metavar="SHARE",
                            help=f"for --part, as training had it (default {share})")  # fmt: skip
    options.add_model(parser)
    options.add_target(parser)
    options.add_threads(parser)
    options.add_json(parser)


def open_model(args: argparse.Namespace, functions: Sequence[str]) -> Model:
    """The model of `add_use`, with its weights."""
    if args.part == "all" and (args.validation, args.test) != (None, None):
        raise UsageError("NN0921", "--validation and --test say how rows are split, but all are "
                         "used", help="name a part, as with --part test")  # fmt: skip
    if _is_artifact(args.model):
        given = args.batch or args.size or args.dtype != "f32" or args.cpu != "host"
        if given or args.direct or args.tune:
            raise UsageError(
                "NN0917", "--batch, --size, --dtype, --cpu, --direct and --tune are for .nn "
                f"files, but '{args.model}' is compiled",
            )  # fmt: skip
        from nncompiler.runtime.model import load

        model = load(args.model, args.threads)
    else:
        args.file = args.model
        wanted = options.request_of(args, functions=tuple(functions))
        model, built = model_of(wanted, cache=not args.no_cache, threads=args.threads)
        say_tuned(built.stages)
        if args.weights is None:
            say("note: without --weights, parameters are as initialised with seed 0")
    if args.weights is not None:
        model.load_weights(args.weights)
    return model


def _is_artifact(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(4) == b"\x7fELF"
    except OSError as error:
        raise unreadable(path, error) from None


def data_of(args: argparse.Namespace, wanted: Sequence[Argument]) -> dict[str, Any]:
    """The arrays of a file by name: all rows in the order of the file, or a part of its split."""
    from nncompiler.runtime import loading

    path, part = args.data, args.part
    if part == "all":
        return loading.load_whole(path, wanted)
    given = {name: getattr(args, name) for name in _SHARES}
    shares = {n: share if given[n] is None else given[n] for n, share in _SHARES.items()}
    found: dict[str, Any] = getattr(loading.load_splits(path, wanted, **shares), part)
    if not found:
        raise UserError("NN0918", f"expected a {part} part in '{path}', but it has none")
    return found


def line(name: str, values: Mapping[str, float], rows: int) -> str:
    """``test  loss 0.1021  accuracy 0.9690  (355 rows)``."""
    shown = "  ".join(f"{key} {_short(value)}" for key, value in values.items())
    return f"{name:<11}{shown}  ({rows} rows)"


def count(arrays: Mapping[str, Any]) -> int:
    """The rows of a part."""
    return len(next(iter(arrays.values()))) if arrays else 0


def _short(value: float) -> str:
    plain = value == 0 or 1e-3 <= abs(value) < 1e4
    return f"{value:.4f}" if plain else f"{value:.4e}"
