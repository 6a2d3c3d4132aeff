"""`nnc profile`: where the time of a function goes, kernel by kernel.

The code itself reads the processor's clock behind every kernel, so the kernels run in their real
sequence, and their times add up to the whole; see `codegen.module.ticks`.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nncompiler.cli import UsageError, options
from nncompiler.cli.output import print_json, say_tuned

if TYPE_CHECKING:
    from nncompiler.driver import Compilation
    from nncompiler.report.timing import TimeProfile
    from nncompiler.runtime.model import Model

#: Calls that are timed at least and at most.
ROUNDS = 10, 10_000


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "profile", "Run a function on random data and print the time of each kernel, "
        "what it computes and moves in that time, and how near that is to what this machine can "
        "do; the slowest first.",
    )  # fmt: skip
    parser.add_argument("file", help="a .nn file")
    options.add_functions(parser, "default: train_step where there is one", metavar="NAME")
    options.add_model(parser)
    options.add_timing(parser)
    options.add_cpu(parser)
    options.add_freeze(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    from nncompiler.report import timing

    compilation = options.compilation_of(args)
    function = function_of(args, compilation)
    compilation = options.compilation_of(args, ("init", function))
    found = profile(compilation, function, args.seconds, args.threads)
    say_tuned(compilation.clock.stages)
    if args.json:
        print_json(timing.record(found))
    else:
        print(timing.render(found, compilation.source.text.splitlines()), end="")


def function_of(args: argparse.Namespace, compilation: Compilation) -> str:
    """The one that is named, or the first that the model has of those that are worth it."""
    from nncompiler.report.accounts import PREFERRED

    compilation, wanted = options.functions_among(args, compilation)
    if wanted is None:
        known = compilation.available()
        return next(name for name in PREFERRED if name in known)
    if len(wanted) != 1:
        raise UsageError("NN0916", f"expected one function, but found {len(wanted)}")
    return wanted[0]


def profile(c: Compilation, function: str, seconds: float, threads: int) -> TimeProfile:
    """The times of the kernels of one function, measured for about so many seconds."""
    import numpy as np

    from nncompiler.cli.limits import Limits
    from nncompiler.report import timing

    clocked = Clocked(c, function, threads)
    machine = Limits(threads).machine()
    if c.network.dtype.bytes == 8:
        machine = timing.Machine(machine.peak / 2, machine.bandwidth, threads)
    rounds = clocked.rounds(seconds)
    medians = np.median(rounds, axis=0)
    fastest = undisturbed(rounds) if threads > 1 else rounds.min(axis=0)
    whole = rounds.sum(axis=1)
    return timing.TimeProfile(
        c.network.source, c.network.name, function, c.network.sizes, machine, len(rounds),
        float(np.median(whole)), float(whole.min()),
        timing.timed(clocked.costs, machine, medians.tolist(), fastest.tolist()),
    )  # fmt: skip


def undisturbed(rounds: Any) -> Any:
    """The time of each kernel on several threads: the median of the twentieth of the calls that
    took least time as a whole. In others a thread came late, and some kernels were done before it
    began.
    """
    import numpy as np

    order = np.argsort(rounds.sum(axis=1))
    return np.median(rounds[order[: -(-len(order) // 20)]], axis=0)


class Clocked:
    """A function with clocks built in, ready to be called; `costs` is what its kernels do."""

    def __init__(self, c: Compilation, function: str, threads: int) -> None:
        import numpy as np

        from nncompiler.api import kept_objects
        from nncompiler.cache import standard
        from nncompiler.driver import build_artifact
        from nncompiler.report import accounts
        from nncompiler.runtime.artifact import open_artifact
        from nncompiler.runtime.model import Model

        store = standard()
        objects = None if store is None else kept_objects(store)
        so = build_artifact([c], objects=objects, timed=True).so
        model = Model(open_artifact(so), threads=threads)
        (self.costs,) = accounts.analyse(c, (function,)).profiles
        self.call = prepared(model, c, function)
        self._clock = model.artifact.lookup(model.manifest.symbol("ticks"))
        self._clock.restype = ctypes.c_void_p  # type: ignore[attr-defined]
        address = ctypes.cast(self._clock(), ctypes.POINTER(ctypes.c_int64))
        self._table = np.ctypeslib.as_array(address, (1 + len(self.costs.kernels),))

    def rounds(self, seconds: float) -> Any:
        """Seconds of every kernel in every round, after one that is left out."""
        import numpy as np

        table = self._table
        self.call()
        found: list[Any] = []
        first, start = self._now(), time.perf_counter()
        least, most = ROUNDS
        while len(found) < least or (time.perf_counter() < start + seconds and len(found) < most):
            table[1:] = 0
            self.call()
            found.append(table[1:].copy())
        ticks, passed = self._now() - first, time.perf_counter() - start
        return np.array(found) * (passed / ticks)

    def _now(self) -> int:
        self._clock()
        return int(self._table[0])


def prepared(model: Model, c: Compilation, function: str) -> Callable[[], None]:
    """A call of the function on random data, the parameters as `init` gives them.

    The learning rate is 0, so that the parameters stay as they are however often it runs.
    """
    from nncompiler.ir.sampling import random_arguments

    if function == "init":
        return model.init
    model.rate = 0.0
    arrays = random_arguments(c.graphs[function])
    given = model.bindings.any(function).given
    return model.bind(function, **{a.name: arrays[a.name] for a in given})
