"""Arguments that several verbs share, and what they mean."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncompiler.api import MAX_SIZE, Request, Sizes, options_of, request
from nncompiler.cache import standard
from nncompiler.cli import UsageError
from nncompiler.errors import UserError

if TYPE_CHECKING:
    from nncompiler.driver import Compilation, Options
    from nncompiler.passes.hooks import TimePasses
    from nncompiler.passes.manager import Hook

Subparsers = Any  # argparse does not export the type


def add_verb(subparsers: Subparsers, name: str, text: str, **more: Any) -> argparse.ArgumentParser:
    """The parser of a verb, with its line in `nnc --help`."""
    from nncompiler.cli import VERBS

    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=VERBS[name], description=text, allow_abbrev=False, **more
    )
    return parser


def add_model(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """The flags that choose what is compiled of a model."""
    parser.add_argument(
        "--batch", metavar="N[,N...]" if several else "N",
        help="batch size" + ("s, each a binding" if several else ""),
    )  # fmt: skip
    parser.add_argument(
        "--size", action="append", default=[], metavar="NAME=N[,NAME=N...]",
        help="bind free sizes" + ("; each --size is a binding" if several else "; repeatable"),
    )  # fmt: skip
    parser.add_argument("--dtype", default="f32", help="float type: f32 or f64 (default f32)")


def add_cpu(parser: argparse.ArgumentParser) -> None:
    levels = ("host", "x86-64-v2", "x86-64-v3", "x86-64-v4")
    parser.add_argument("--cpu", choices=levels, default="host", help="processor (default host)")
    parser.add_argument("--direct", action="store_true",
                        help="no transforms (Winograd) of convolutions: they round otherwise")
    parser.add_argument("--tune", action="store_true",
                        help="run the best register tiles of each product here, and take the "
                        "fastest")  # fmt: skip


def add_target(parser: argparse.ArgumentParser) -> None:
    add_cpu(parser)
    parser.add_argument("--no-cache", action="store_true", help="do not use the compile cache")


def add_freeze(parser: Any) -> None:
    parser.add_argument(
        "--freeze", metavar="FILE",
        help="weights (.npz, .safetensors) as constants: for inference alone, and faster",
    )  # fmt: skip


@contextmanager
def argument(*codes: str) -> Iterator[None]:
    """Errors with these codes are the fault of an argument: the command line is wrong."""
    try:
        yield
    except UserError as error:
        if error.code not in codes:
            raise
        raise UsageError(error.code, error.message, help=error.help) from None


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=number(1, 256), default=1, metavar="N",
                        help="threads (default 1); results have the same bits with any number")


def add_timing(parser: argparse.ArgumentParser) -> None:
    """The flags of verbs that measure."""
    add_threads(parser)
    parser.add_argument("--seconds", type=positive, default=1.0, metavar="S",
                        help="how long to measure a function (default 1)")  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_passes(parser: argparse.ArgumentParser) -> None:
    """The flags that watch passes at work."""
    group = parser.add_argument_group("watching the passes")
    group.add_argument(
        "--print-after-all", action="store_true", help="print the graph after each pass"
    )
    group.add_argument(
        "--print-changed", action="store_true", help="... after each that changed it"
    )
    group.add_argument("--time-passes", action="store_true", help="print the time of each pass")
    group.add_argument("--stop-after", metavar="PASS", help="run no further than this pass")
    group.add_argument(
        "--dump-dir", metavar="DIR", help="write the graph after each pass to a file"
    )
    group.add_argument(
        "--check-passes", action="store_true",
        help="interpret the graph on random data before and after each pass, and compare",
    )  # fmt: skip


def whole(text: str, what: str, low: int = 0, high: int = MAX_SIZE) -> int:
    """A number on the command line; `UsageError` NN0904."""
    if re.fullmatch(r"[0-9]{1,20}", text) and low <= int(text) <= high:
        return int(text)
    shown = text if len(text) <= 40 else text[:40] + "..."
    raise UsageError("NN0904", f"expected {what} from {low} to {high}, but found '{shown}'")


def number(low: int, high: int = MAX_SIZE) -> Callable[[str], int]:
    """A `type=` for argparse: a whole number within limits."""

    def parse(text: str) -> int:
        return whole(text, "a whole number", low, high)

    return parse


def fraction(text: str) -> float:
    """A `type=` for argparse: at least 0, less than 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1.0:
        raise UsageError(
            "NN0904", f"expected a fraction from 0 to below 1, but found '{text[:40]}'"
        )
    return value


def positive(text: str) -> float:
    """A `type=` for argparse: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value < float("inf"):
        raise UsageError("NN0904", f"expected a number above 0, but found '{text[:40]}'")
    return value


def _assignments(text: str) -> Sizes:
    found: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UsageError(
                "NN0907", f"expected sizes such as 'batch=64,T=32', but found '{text[:60]}'",
                help="write NAME=N",
            )  # fmt: skip
        if name in found:
            raise UsageError("NN0907", f"the size '{name}' is given twice in '{text[:60]}'")
        found[name] = whole(value.strip(), f"the size '{name}'", 1)
    return tuple(found.items())


def _batches(text: str | None) -> list[int]:
    if text is None:
        return []
    return list(dict.fromkeys(whole(part.strip(), "a batch size", 1) for part in text.split(",")))


def sizes_of(args: argparse.Namespace) -> Sizes:
    """The one binding of a verb that takes one: all --size together, and --batch."""
    found: dict[str, int] = {}
    batches = _batches(args.batch)
    if len(batches) > 1:
        raise UsageError("NN0907", f"expected one batch size, but found '{args.batch}'")
    given = [*(_assignments(text) for text in args.size), *((("batch", n),) for n in batches)]
    for name, value in (item for sizes in given for item in sizes):
        if found.setdefault(name, value) != value:
            raise UsageError(
                "NN0907", f"the size '{name}' is given twice: {found[name]} and {value}"
            )
    return tuple(found.items())


def bindings_of(args: argparse.Namespace) -> tuple[Sizes, ...]:
    """The bindings of `compile`: each --size without a batch is combined with every --batch."""
    batches, given = _batches(args.batch), [_assignments(text) for text in args.size]
    found: list[Sizes] = []
    for sizes in given or [()]:
        if batches and "batch" not in dict(sizes):
            found += [(("batch", n), *sizes) for n in batches]
        elif batches:
            raise UsageError("NN0907", "the batch size is given by both --batch and --size")
        else:
            found.append(sizes)
    return tuple(dict.fromkeys(found))


def add_functions(
    parser: argparse.ArgumentParser, help: str, metavar: str = "NAME[,NAME...]"
) -> None:
    """``--function infer,train_step``; given again, it adds to what was named before."""
    parser.add_argument("--function", action="extend", type=_names, metavar=metavar, help=help)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def functions_of(args: argparse.Namespace) -> tuple[str, ...] | None:
    """The functions that are named, each once; None without ``--function``."""
    return None if args.function is None else tuple(dict.fromkeys(args.function))


def functions_among(
    args: argparse.Namespace, compilation: Compilation
) -> tuple[Compilation, tuple[str, ...] | None]:
    """`functions_of`, and the compilation with those that are there only where they are named.

    `UsageError` NN0914 for a name of none, `UserError` NN0924 for one that this model lacks.
    """
    from nncompiler.driver import FUNCTIONS

    known, wanted = compilation.available(), functions_of(args)
    lacking = [name for name in wanted or () if name not in known]
    if lacking and all(name in FUNCTIONS for name in lacking):
        compilation = compilation_of(args, (*known, *lacking))
        lacking = [name for name in lacking if name not in compilation.available()]
    if lacking:
        raise UsageError(
            "NN0914", f"expected a function of the model, but found '{lacking[0][:40]}'",
            help=f"functions there: {', '.join(known)}",
        )  # fmt: skip
    return compilation, wanted


def request_of(args: argparse.Namespace, **more: Any) -> Request:
    """What the flags of `add_model` and `add_target` ask to be compiled."""
    if args.dtype not in ("f32", "f64"):
        raise UsageError("NN0903", f"expected --dtype f32 or f64, but found '{args.dtype[:40]}'")
    if "bindings" not in more:
        more["bindings"] = (sizes_of(args),)
    if getattr(args, "freeze", None) is not None:
        more |= {"weights": args.freeze, "freeze": True}
    more |= {"cpu": getattr(args, "cpu", "host"), "direct": getattr(args, "direct", False)}
    more |= {"tune": getattr(args, "tune", False)}
    return request(args.file, dtype=args.dtype, **more)


def compilation_of(
    args: argparse.Namespace, functions: Sequence[str] | None = None
) -> Compilation:
    """The stages of a file, for verbs that look at them one by one."""
    from nncompiler import driver

    wanted = request_of(args, functions=None if functions is None else tuple(functions))
    with argument("NN0902"):
        settings = options_of(wanted, None if getattr(args, "no_cache", False) else standard())
    source = driver.decode_source(wanted.source, wanted.name)
    return driver.Compilation(source, dict(wanted.bindings[0]), settings)


def watching(args: argparse.Namespace) -> bool:
    """Whether any flag of `add_passes` is given."""
    names = (
        "print_after_all",
        "print_changed",
        "time_passes",
        "stop_after",
        "dump_dir",
        "check_passes",
    )
    return any(getattr(args, name) for name in names)


def hooks_of(args: argparse.Namespace) -> tuple[tuple[Hook, ...], TimePasses | None]:
    """The hooks that the flags of `add_passes` ask for, and verifying. They print to stderr."""
    from nncompiler.passes import hooks

    found: list[Hook] = [hooks.verify_after]
    if args.print_after_all or args.print_changed:
        found.append(hooks.PrintAfter(sys.stderr.write, only_changed=not args.print_after_all))
    if args.dump_dir:
        found.append(hooks.DumpEach(Path(args.dump_dir)))
    if args.check_passes:
        found.append(hooks.CheckPasses())
    timing = hooks.TimePasses() if args.time_passes else None
    if timing is not None:
        found.append(timing)
    return tuple(found), timing


def check_pass(name: str | None, known: Sequence[str]) -> None:
    """`UsageError` NN0908 unless `name` is None or a pass of the pipeline."""
    if name is not None and name not in known:
        raise UsageError(
            "NN0908", f"expected --stop-after to name a pass to be run, but found '{name[:40]}'",
            help=f"the pipeline is {', '.join(known) or 'empty'}",
        )  # fmt: skip


def customise(args: argparse.Namespace) -> tuple[Callable[[Options], Options], TimePasses | None]:
    """Options of a compilation changed as the flags of `add_passes` ask for."""
    from dataclasses import replace

    hooks, timing = hooks_of(args)

    def change(options: Options) -> Options:
        check_pass(args.stop_after, [step.name for step in options.pipeline])
        return replace(options, hooks=(*options.hooks, *hooks), stop_after=args.stop_after)

    return change, timing
