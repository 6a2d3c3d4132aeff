"""`nnc ops`: the operators of the graph, from their registry."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import TYPE_CHECKING

from nncompiler.cli import options
from nncompiler.cli.output import print_json, table

if TYPE_CHECKING:
    from nncompiler.ir.op import Operator


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "ops", "List the operators of the graph: name, kind, whether gradients flow "
        "through it, and what it means.",
    )  # fmt: skip
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    import nncompiler.ir.ops  # noqa: F401  (registers every operator)
    from nncompiler.ir.op import REGISTRY

    found = [REGISTRY[name] for name in sorted(REGISTRY)]
    if args.json:
        print_json([
            {"name": op.name, "kind": op.kind, "differentiable": op.differentiable,
             "doc": meaning(op)}
            for op in found
        ])  # fmt: skip
        return
    rows = [("operator", "kind", "gradient", "")]
    rows += [(op.name, op.kind, "yes" if op.differentiable else "no", meaning(op)) for op in found]
    print(table(rows))


def meaning(op: Operator) -> str:
    """The first sentence on the class, or on its family if that says what it means."""
    for cls in type(op).__mro__:
        paragraph = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        first = re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0]
        if cls.__module__.startswith("nncompiler.ir.ops") and first and "common part" not in first:
            return first
    form = {"map": "The elementwise function", "fold": "The reduction"}.get(
        op.kind, "The operator"
    )
    return f"{form} `{op.name}`."
