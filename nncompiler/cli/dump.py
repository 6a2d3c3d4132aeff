"""`nnc dump`: what any stage of the compiler makes of a file, as text, drawing or JSON."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nncompiler.cli import UsageError, options
from nncompiler.cli.output import emit, need_apart, say_tuned

if TYPE_CHECKING:
    from nncompiler.driver import Compilation

STAGES = ("syntax", "graph", "train", "opt", "plan", "llvm", "asm")
FORMATS = ("text", "dot", "svg", "json")
#: What is drawn of which stage.
DRAWN = {"dot": ("graph", "train", "opt", "plan"), "svg": ("graph", "train", "opt")}


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "dump", "Print what a stage of the compiler makes of a file: syntax (the "
        "tree), graph (as elaborated), train (with backward pass and optimizer), opt (after the "
        "passes), plan (kernels and memory), llvm, asm.",
    )  # fmt: skip
    parser.add_argument("file", help="a .nn file")
    parser.add_argument("--stage", choices=STAGES, default="graph", help="default: graph")
    parser.add_argument("--format", choices=FORMATS, default="text",
                        help="dot, for Graphviz: graphs and plans; svg: graphs, by default infer")
    options.add_functions(parser, "only these functions of the model")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file instead of stdout")
    options.add_model(parser)
    options.add_cpu(parser)
    options.add_freeze(parser)


def run(args: argparse.Namespace) -> None:
    stages = DRAWN.get(args.format, STAGES)
    if args.stage not in stages:
        raise UsageError(
            "NN0913", f"expected a stage to draw, but found --stage {args.stage}",
            help=f"with --format {args.format}, --stage is {' or '.join(stages)}",
        )  # fmt: skip
    need_apart((args.file, args.freeze), args.output)
    functions = options.functions_of(args)
    compilation = options.compilation_of(args, _needed(args.stage, functions))
    if args.stage == "syntax":
        emit(_syntax(compilation, args.format), args.output)
        return
    found = _select(_objects(compilation, args.stage), functions, args.stage)
    say_tuned(compilation.clock.stages)
    if args.format == "svg":
        emit(_svg(compilation, found, functions is None), args.output)
    else:
        emit(_FORMATTERS[args.format](found), args.output)


def _needed(stage: str, functions: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The functions to compile: machine code is of all that are wanted together."""
    return None if stage in ("syntax", "graph") else functions


def _objects(compilation: Compilation, stage: str) -> dict[str, Any]:
    """What a stage makes, by the name of the function or part."""
    match stage:
        case "graph":
            return {f.name: f for f in compilation.network.functions}
        case "train":
            return dict(compilation.graphs)
        case "opt":
            return dict(compilation.optimised)
        case "plan":
            return dict(compilation.plans)
    from nncompiler import driver
    from nncompiler.codegen import emit as codegen

    text = codegen.llvm_text if stage == "llvm" else codegen.assembly
    return dict(text(driver.program([compilation]), compilation.target))


def _select(
    found: dict[str, Any], functions: tuple[str, ...] | None, stage: str
) -> dict[str, Any]:
    from nncompiler.driver import FUNCTIONS

    if functions is None or stage in ("llvm", "asm"):
        return found
    for name in functions:
        if name not in found:
            later = "; that one from --stage train on" if name in FUNCTIONS else ""
            raise UsageError(
                "NN0914", f"expected a function of stage '{stage}', but found '{name[:40]}'",
                help=f"functions there: {', '.join(found)}{later}",
            )  # fmt: skip
    return {name: found[name] for name in functions}


def _syntax(compilation: Compilation, format: str) -> str:
    from nncompiler.cli.structure import as_json
    from nncompiler.lang.syntax import dump

    return dump(compilation.file) if format == "text" else as_json(compilation.file)


def _text(found: dict[str, Any]) -> str:
    from nncompiler.ir.graph import Function
    from nncompiler.ir.kernel import Plan
    from nncompiler.ir.text import print_function, print_plan

    def one(name: str, value: Any) -> str:
        match value:
            case Function():
                return print_function(value)
            case Plan():
                return print_plan(value)
            case _:
                return f"; {name}\n{value}"

    return "\n".join(one(name, value) for name, value in found.items())


def _json(found: dict[str, Any]) -> str:
    from nncompiler.cli.structure import as_json

    return as_json(found)


def _dot(found: dict[str, Any]) -> str:
    from nncompiler.cli.dot import draw

    return draw(found)


def _svg(compilation: Compilation, found: dict[str, Any], forward: bool) -> str:
    """The functions asked for, or the forward pass alone."""
    from nncompiler.report.graph_svg import draw

    name = next((n for n in ("infer", "loss") if n in found), next(iter(found), ""))
    shown = {name: found[name]} if forward and found else found
    return draw(shown, compilation.network.name)


_FORMATTERS = {"text": _text, "json": _json, "dot": _dot}
