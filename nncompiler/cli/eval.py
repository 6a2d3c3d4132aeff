"""`nnc eval`: losses and metrics of a model on data."""

from __future__ import annotations

import argparse

from nncompiler.cli import models, options
from nncompiler.cli.output import print_json


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "eval", "Losses and metrics of a model, as means over rows."
    )
    models.add_use(parser)


def run(args: argparse.Namespace) -> None:
    model = models.open_model(args, ("init", "loss"))
    data = models.data_of(args, model.bindings.any("loss").given)
    values = model.evaluate(data, check_nan=True)
    rows = models.count(data)
    if args.json:
        print_json({"part": args.part, "rows": rows, **values})
    else:
        print(models.line(args.part, values, rows))
