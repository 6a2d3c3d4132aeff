"""`nnc passes`: the passes, their options, and the pipeline."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import fields
from typing import Any

from nncompiler.cli import options
from nncompiler.cli.output import print_json


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "passes", "List the passes that `nnc opt -p` knows, their options with "
        "defaults, and the pipeline that every function goes through.",
    )  # fmt: skip
    parser.add_argument("--long", action="store_true", help="with the whole text on each pass")
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    from nncompiler.passes.manager import PASSES, describe
    from nncompiler.passes.pipelines import OPTIMISE

    pipeline = ",".join(map(describe, OPTIMISE))
    if args.json:
        listed = [{"name": n, "doc": _doc(c), "options": _options(c)} for n, c in PASSES.items()]
        print_json({"passes": listed, "pipeline": pipeline})
        return
    for name, cls in PASSES.items():
        summary = _doc(cls).split("\n")[0]
        print(f"{name:<12}{summary}")
        for key, value in _options(cls).items():
            print(f"{'':<12}{{{key}={value}}}")
        if args.long:
            text = inspect.cleandoc(inspect.getmodule(cls).__doc__ or "")
            print("\n" + "\n".join(f"    {line}".rstrip() for line in text.split("\n")) + "\n")
    print(f"\npipeline    {pipeline}")


def _doc(cls: type) -> str:
    """What is said of a pass: its docstring, or that of its file where dataclasses made it up."""
    doc = cls.__doc__ or ""
    if not doc or doc.startswith(f"{cls.__name__}("):
        doc = getattr(inspect.getmodule(cls), "__doc__", None) or ""
    return inspect.cleandoc(doc)


def _options(cls: Any) -> dict[str, str]:
    return {f.name.replace("_", "-"): str(f.default).lower() for f in fields(cls)}
