"""`nnc opt`: run passes on graphs in text form; verify and reprint plans."""

from __future__ import annotations

import argparse
import shlex
import sys

from nncompiler.cli import UsageError, options
from nncompiler.cli.output import emit, need_apart, say
from nncompiler.errors import EXIT_CHECK_FAILED, EXIT_OK, CompilerBug, UserError

#: What `--check-passes` and the verifier between passes raise.
_FAILED_CHECKS = ("NN0493", "NN0494")
MAX_BYTES = 64 * 2**20


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "opt", "Read graphs (.nnir), verify them, run passes, print the result. "
        "A plan (.nnplan) is verified and printed.",
        epilog="`nnc passes` lists the passes. If --check-passes finds a pass that changes a "
        "value, the exit code is 4.",
    )  # fmt: skip
    parser.add_argument("file", help="a .nnir or .nnplan file, or - for a graph on stdin")
    parser.add_argument(
        "-p", "--passes", default="", metavar="PASSES", help='such as "cse,fuse{max-nodes=16}"'
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file instead of stdout")
    options.add_passes(parser)


def run(args: argparse.Namespace) -> int:
    need_apart((args.file,), args.output)
    text = _read(args.file)
    if args.file.endswith(".nn"):
        raise UserError(
            "NN0915", f"expected a graph, but '{args.file}' is the source of a model",
            help=f"make one: nnc dump {shlex.quote(args.file)} --stage graph -o GRAPH.nnir",
        )  # fmt: skip
    if args.file.endswith(".nnplan"):
        if args.passes or options.watching(args):
            raise UsageError(
                "NN0910", "passes work on graphs (.nnir), but found a plan", help="leave -p out"
            )
        emit(_plans(text, args.file), args.output)
        return EXIT_OK
    try:
        emit(_graphs(text, args), args.output)
    except CompilerBug as error:
        if args.check_passes and error.code in _FAILED_CHECKS:
            say(error.render())
            return EXIT_CHECK_FAILED
        raise
    return EXIT_OK


def _graphs(text: str, args: argparse.Namespace) -> str:
    from nncompiler.ir import verify
    from nncompiler.ir.text import parse_functions, print_function
    from nncompiler.passes.manager import parse_pipeline, run_passes

    with options.argument("NN0402", "NN0403", "NN0404"):
        pipeline = parse_pipeline(args.passes)
    options.check_pass(args.stop_after, [step.name for step in pipeline])
    functions = parse_functions(text, args.file)
    if not functions:
        raise _empty("graph", args.file)
    for function in functions:
        verify.check(function)
    results = []
    for function in functions:
        hooks, timing = options.hooks_of(args)
        results.append(run_passes(function, pipeline, hooks, args.stop_after))
        if timing is not None:
            say(f"graph @{function.name}\n{timing.table()}")
    return "\n".join(map(print_function, results))


def _plans(text: str, name: str) -> str:
    from nncompiler.ir.text import parse_plans, print_plan
    from nncompiler.ir.verify_plan import check_plan

    plans = parse_plans(text, name)
    if not plans:
        raise _empty("plan", name)
    for plan in plans:
        check_plan(plan)
    return "\n".join(map(print_plan, plans))


def _empty(what: str, name: str) -> UserError:
    return UserError("NN0915", f"expected a {what}, but '{name}' holds none")


def _read(name: str) -> str:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError("NN0901", f"cannot read '{name}': {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise UserError("NN0911", f"expected at most {MAX_BYTES} bytes, but '{name}' has more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            "NN0912", f"expected UTF-8 text, but '{name}' is not: byte {error.start}"
        ) from None
