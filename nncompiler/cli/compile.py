"""`nnc compile`: a file to a shared library and a C header, through the compile cache."""

from __future__ import annotations

import argparse
import os

from nncompiler.api import Built, build
from nncompiler.cli import options
from nncompiler.cli.output import need_apart, need_writable, print_json, say, say_tuned, write_file
from nncompiler.clock import Stage
from nncompiler.runtime.naming import named_header, named_library


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "compile", "Compile a file to a shared library and a C header.",
        epilog="Without --batch and --size, free sizes take the batch of the train block.",
    )  # fmt: skip
    parser.add_argument("file", help="a .nn file")
    parser.add_argument(
        "-o", "--output", metavar="OUT.so", help="the library (default: FILE with .so)"
    )
    parser.add_argument(
        "--header", metavar="H.h", help="the header (default: the library's name, .h)"
    )
    options.add_model(parser, several=True)
    options.add_functions(parser, "compile these functions only")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--weights", metavar="FILE", help="embed trained weights (.npz, .safetensors)"
    )
    options.add_freeze(group)
    options.add_target(parser)
    parser.add_argument("--time", action="store_true", help="a line for each stage, on stderr")
    options.add_json(parser)
    options.add_passes(parser)


def run(args: argparse.Namespace) -> None:
    output = args.output or os.path.splitext(args.file)[0] + ".so"
    header = args.header or header_of(output)
    need_apart((args.file, args.weights, args.freeze), header, output)
    need_writable(header, output)
    wanted = options.request_of(
        args, bindings=options.bindings_of(args), functions=options.functions_of(args),
        weights=args.weights,
    )  # fmt: skip
    change, timing = options.customise(args) if options.watching(args) else (None, None)
    with options.argument("NN0902"):
        built = build(wanted, cache=not args.no_cache, customise=change)
    if timing is not None:
        say(timing.table())
    write_artifact(built, output, header)
    say_tuned(built.stages)
    if args.time:
        report_stages(built)
    if args.json:
        print_json({
            "library": output, "header": header, "bytes": len(built.so), "cached": built.cached,
            "seconds": built.seconds,
            "stages": [
                {"name": s.name, "seconds": s.seconds, "detail": s.detail} for s in built.stages
            ],
        })  # fmt: skip
    else:
        print(f"{output}: {len(built.so)} bytes; {header}")


def header_of(library: str) -> str:
    """Where the header of a library goes unless another place is named."""
    return os.path.splitext(library)[0] + ".h"


def write_artifact(built: Built, library: str, header: str) -> None:
    """Both files, each telling the other's name and its own."""
    write_file(header, named_header(built.header, header, library))
    write_file(library, named_library(built.so, library))


def report_stages(built: Built) -> None:
    """One line on stderr for each stage; of what was cached, what it took at the time."""
    for stage in built.stages:
        say(_line(stage))
    note = (
        "from the compile cache; times above are those of the compilation" if built.cached else ""
    )
    say(_line(Stage("total", built.seconds, note)))


def _line(stage: Stage) -> str:
    return f"{stage.name:<10}{stage.seconds:8.3f} s  {stage.detail}".rstrip()
