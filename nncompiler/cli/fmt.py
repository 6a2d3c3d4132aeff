"""`nnc fmt`: format files, or check that they are."""

from __future__ import annotations

import argparse
import sys

from nncompiler.cli import UsageError, options
from nncompiler.cli.output import say, write_file
from nncompiler.errors import EXIT_CHECK_FAILED, EXIT_OK, UserError


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "fmt", "Print files in the one layout, or with -w rewrite those that differ.",
        epilog="With --check, files that differ are listed, and the exit code is 4.",
    )  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help="a .nn file, or - for stdin")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="only list the files that differ")
    how.add_argument("-w", "--write", action="store_true", help="rewrite the files that differ")


def run(args: argparse.Namespace) -> int:
    from nncompiler.lang.fmt import format_source

    if args.write and "-" in args.files:
        raise UsageError("NN0909", "expected files to rewrite with -w, but found '-'")
    differ = 0
    for name in args.files:
        data = _read(name)
        text = format_source(data, name)
        if not args.check and not args.write:
            sys.stdout.write(text)
        elif text.encode() != data:
            differ += 1
            print(name)
            if args.write:
                write_file(name, text)
    if args.check and differ:
        say(f"{differ} of {len(args.files)} files not formatted; `nnc fmt -w` rewrites them")
        return EXIT_CHECK_FAILED
    return EXIT_OK


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        with open(name, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise UserError("NN0901", f"cannot read '{name}': {error.strerror or error}") from None
