"""The command `nnc`: one module for each verb, imported only when that verb is asked for.

A module has `add_parser(subparsers)`, which adds the verb's parser, and `run(args)`, which does it
and gives an exit code (None for 0). Results go to stdout, progress and logs to stderr. Exit codes:

    0   done                          4    a check failed (gradcheck, fmt --check, ...)
    1   an error in the input         70   an error in the compiler
    2   a wrong command line          130  interrupted by Ctrl-C
    3   not supported yet             141  the reader of stdout has gone

NNC_TRACEBACK=1 shows the Python traceback of any error.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from nncompiler import __version__
from nncompiler.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    NNError,
    UserError,
    nearest,
)

#: Verb -> what it does; `nncompiler.cli.VERB` is its module.
VERBS = {
    "check": "parse and elaborate a file; list its parameters",
    "compile": "compile a file to a shared library and a C header",
    "dump": "print what a stage of the compiler makes of a file",
    "opt": "run passes on a graph in text form",
    "train": "compile a file and train it",
    "eval": "losses and metrics of a model on data",
    "predict": "outputs of a model on data",
    "gradcheck": "compare compiled gradients with central differences and with f64",
    "bench": "the time of each function",
    "profile": "the time of each kernel, and how near it is to the machine's limits",
    "report": "parameters, arithmetic, bytes and kernels for each line of a file",
    "fmt": "format files",
    "ops": "list the operators of the graph",
    "passes": "list the passes, their options and the pipeline",
    "doctor": "what nnc finds on this machine, and whether it works",
}
EXIT_PIPE = 141
#: What a full disk, a quota, a limit on files or a device say to who writes.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class UsageError(UserError):
    """The command line itself is wrong."""

    exit_code = EXIT_USAGE


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("NN0900", message, help=f"`{self.prog} --help` shows the arguments")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, of the process itself where there is no `argv`; gives the exit code and
    never raises.
    """
    _open_streams()
    if argv is None and sys.argv[1:2] == ["compile"]:
        gc.disable()  # the process ends before garbage matters; a search took a tenth of its time
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, so that a reader that has gone shows here
        return code
    except NNError as error:
        return _failed(error, error.render(), error.exit_code)
    except KeyboardInterrupt as error:
        return _failed(error, "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        _say_no_more()
        return EXIT_PIPE
    except MemoryError as error:
        problem = _no_memory(error)
        return _failed(error, problem.render(), problem.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
            return _unwritten(error)
        return _failed(error, _report(error), EXIT_BUG)
    finally:
        if argv is None:  # nor does it matter as the interpreter ends
            gc.freeze()


def _run(argv: list[str]) -> int:
    parser = _parser(argv[0] if argv and argv[0] in VERBS else None)
    if not argv:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    if not argv[0].startswith("-") and argv[0] not in VERBS:
        close = nearest(argv[0], VERBS)
        raise UsageError(
            "NN0900", f"expected a verb, but found '{argv[0]}'",
            help=f"did you mean '{close}'?" if close else f"verbs: {', '.join(VERBS)}",
        )  # fmt: skip
    try:
        args, others = parser.parse_known_args(argv)
    except SystemExit as done:  # --help and --version
        return int(done.code or EXIT_OK)
    if others:
        close = nearest(others[0].split("=")[0], _flags(parser, args.verb))
        raise UsageError(
            "NN0900", f"unrecognized arguments: {' '.join(others)}",
            help=f"did you mean '{close}'?" if close
            else f"`nnc {args.verb} --help` shows the arguments",
        )  # fmt: skip
    return int(_module(args.verb).run(args) or EXIT_OK)


def _flags(parser: Parser, verb: str) -> list[str]:
    """The flags of a verb."""
    (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return [flag for action in verbs.choices[verb]._actions for flag in action.option_strings]


def _parser(verb: str | None) -> Parser:
    """The whole parser; of the verbs only `verb` has its arguments."""
    listed = "\n".join(f"  {name:<11}{help}" for name, help in VERBS.items())
    parser = Parser(
        prog="nnc", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"A compiler for neural networks: .nn to native code.\n\nverbs:\n{listed}",
        epilog="`nnc VERB --help` tells more about a verb.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"nnc {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", help=argparse.SUPPRESS)
    if verb is not None:
        _module(verb).add_parser(subparsers)
    return parser


def _module(verb: str):  # type: ignore[no-untyped-def]
    return import_module(f"nncompiler.cli.{verb}")


def _failed(error: BaseException, text: str, code: int) -> int:
    if os.environ.get("NNC_TRACEBACK", "") not in ("", "0"):
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr)
    return code


def _report(error: Exception) -> str:
    """What to say of an error nobody foresaw."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        file = os.path.basename(trace.tb_frame.f_code.co_filename)
        place = f" ({file}:{trace.tb_lineno})"
    return (
        f"internal error NN0999: {type(error).__name__}: {error}{place}\n"
        f"  note: nncompiler {__version__}, Python {sys.version.split()[0]}\n"
        "  help: this is a bug in nncompiler; report it with the command, its input, and the "
        "traceback that NNC_TRACEBACK=1 shows"
    )


def _no_memory(error: MemoryError) -> UserError:
    """What to say where the machine gives no more memory."""
    why = f": {str(error)[:1].lower()}{str(error)[1:]}" if str(error) else ""
    return UserError(
        "NN0927", f"this machine has not enough memory{why}",
        help="a smaller batch or model takes less: `nnc report` tells how much",
    )  # fmt: skip


def _open_streams() -> None:
    """Python has no stream where the caller closed one: what is written there goes nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _unwritten(error: OSError) -> int:
    """The code for results that stdout does not take: all other files raise `UserError`."""
    problem = UserError("NN0906", f"cannot write to standard output: {error.strerror}")
    code = _failed(error, problem.render(), problem.exit_code)
    _say_no_more()
    return code


def _say_no_more() -> None:
    """Let nothing more be written to stdout, not by the interpreter's exit either."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
