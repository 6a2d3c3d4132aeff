"""`nnc report`: what each line and kernel of a model costs, and its memory as a picture."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nncompiler.cli import UsageError, options
from nncompiler.cli.output import emit, need_apart, print_json, say_tuned

if TYPE_CHECKING:
    from nncompiler.driver import Compilation
    from nncompiler.report.cost import Report


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "report", "Print what a model costs: parameters, arithmetic, bytes moved, "
        "kernels before and after fusion, and memory; for each function, then for each line of "
        "the file and each kernel.",
    )  # fmt: skip
    parser.add_argument("file", help="a .nn file")
    options.add_functions(
        parser, "functions to describe in detail (default: train_step where there is one)"
    )
    options.add_model(parser)
    options.add_cpu(parser)
    parser.add_argument(
        "--memory-svg", metavar="OUT.svg", help="draw the memory of the function into this file"
    )
    parser.add_argument(
        "--html", metavar="OUT.html", help="write one page: model, cost, memory, graph"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    from nncompiler.report import accounts, cost, html, text

    compilation, wanted = options.functions_among(args, options.compilation_of(args))
    _check(args, wanted)
    report = accounts.analyse(compilation, wanted)
    say_tuned(compilation.clock.stages)
    if args.memory_svg is not None:
        emit(_picture(compilation, report), args.memory_svg)
    if args.html is not None:
        emit(html.page(compilation, report), args.html)
    if args.json:
        print_json(cost.record(report))
    elif "-" not in (args.memory_svg, args.html):
        emit(text.render(report), None)


def _check(args: argparse.Namespace, wanted: tuple[str, ...] | None) -> None:
    """`UsageError` where one place is to hold several results."""
    need_apart((args.file,), args.memory_svg, args.html)
    if args.memory_svg is not None and wanted is not None and len(wanted) != 1:
        raise UsageError(
            "NN0916", f"expected one function to draw, but found {len(wanted)}",
            help="name one with --function",
        )  # fmt: skip
    on_stdout = [args.memory_svg == "-", args.html == "-", args.json]
    if sum(on_stdout) > 1:
        named = ("a picture", "a page", "JSON")
        found = [name for name, there in zip(named, on_stdout, strict=True) if there]
        raise UsageError(
            "NN0921", f"expected one result on stdout, but found {' and '.join(found)}",
            help="give the others a file",
        )  # fmt: skip


def _picture(compilation: Compilation, report: Report) -> str:
    from nncompiler.report.picture import memory_svg

    name = report.profiles[0].function
    sizes = "".join(f", {key} {n}" for key, n in report.sizes)
    return memory_svg(compilation.plans[name], f"{report.model}.{name}{sizes}")
