"""The bindings of a model: which batch sizes are compiled, and how to cover a number of rows.

A binding is found by function and rows. Where one is lacking, the compiler, if there is one, is
asked for it; it shares the state of the others. Otherwise the error names the flag to compile
with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from nncompiler.errors import CompilerBug, Limitation, UserError, nearest
from nncompiler.runtime import checks
from nncompiler.runtime.artifact import Artifact, Native
from nncompiler.runtime.call import ALIGNMENT, aligned
from nncompiler.runtime.checks import Array
from nncompiler.runtime.crew import Crew
from nncompiler.runtime.manifest import Entry

Compiler = Callable[[int], Artifact]
#: Those that a model may be compiled with.
_FUNCTIONS = ("init", "infer", "loss", "grad", "input_grad", "train_step", "apply")
#: Those that one with frozen weights may have.
_FROZEN = ("infer", "loss")
#: What tensors of a state must share from one batch size to another.
_BUT_SHAPE = attrgetter("name", "kind", "dtype")


class Binding(NamedTuple):
    """An entry point with its code."""

    entry: Entry
    native: Native


class Piece(NamedTuple):
    """Rows `start` to `stop` of a data set, for one call of a binding."""

    binding: Binding
    start: int
    stop: int


class Bindings:
    """All compiled entry points; `arena` is large enough for each of them.

    With more than one of `threads`, the functions are those that run on all of them.
    """

    def __init__(self, artifact: Artifact, compiler: Compiler | None, threads: int) -> None:
        self._manifest = artifact.manifest
        self._compiler = compiler
        self._threads = threads
        self._crew: Crew | None = None
        self._entries: dict[tuple[str, int], Binding] = {}
        self._fits: dict[int, Native] = {}
        self.arena = aligned(ALIGNMENT)
        self._add(artifact)
        self._first = frozenset(self._entries)

    def _add(self, artifact: Artifact) -> None:
        here, there = self._manifest.state, artifact.manifest.state
        if here != there:
            if [*map(_BUT_SHAPE, here)] != [*map(_BUT_SHAPE, there)]:
                raise CompilerBug("NN0691", "a further binding lays out the state in another way")
            raise Limitation(
                "NN0692", "the size of a state of this model depends on the batch, so it runs "
                "with the batch it was compiled for only",
                help="give as many rows as a multiple of it",
            )  # fmt: skip
        for entry in artifact.manifest.entries:
            key = entry.function, entry.rows
            native = self._native(artifact, entry.symbol, entry.parallel)
            self._entries.setdefault(key, Binding(entry, native))
        for rows, symbol in artifact.manifest.fit.items():
            parallel = artifact.manifest.parallel_fit.get(rows, "")
            self._fits.setdefault(rows, self._native(artifact, symbol, parallel))
        if artifact.manifest.arena_bytes > self.arena.size:
            self.arena = aligned(artifact.manifest.arena_bytes)

    def _native(self, artifact: Artifact, symbol: str, parallel: str) -> Native:
        """A function on as many threads as are wanted, if it gains by more than one."""
        if self._threads == 1 or not parallel:
            return artifact.lookup(symbol)
        if self._crew is None:
            self._crew = Crew(artifact, self._threads)
        return self._crew.native(artifact.lookup(parallel))

    def sizes(self, function: str) -> list[int]:
        """The compiled batch sizes of a function, largest first."""
        return sorted((rows for name, rows in self._entries if name == function), reverse=True)

    def any(self, function: str) -> Entry:
        """The function for some batch size: its arguments but for the rows."""
        for (name, _), binding in self._entries.items():
            if name == function:
                return binding.entry
        known = list(dict.fromkeys(name for name, _ in self._entries))
        raise UserError(
            "NN0711", f"expected a compiled function among {', '.join(known) or 'none'}, "
            f"but found '{function}'", help=self._lacking(function, known),
        )  # fmt: skip

    def _lacking(self, function: str, known: list[str]) -> str | None:
        """What to do about a function that is not there."""
        if near := nearest(function, known):
            return f"did you mean '{near}'?"
        if function not in _FUNCTIONS:
            return None
        if self._manifest.frozen and function not in _FROZEN:
            return "compile the model without `--freeze`: frozen weights are for inference"
        if self._manifest.frozen:
            return f"compile the model with `--function {','.join(_FROZEN)}` beside `--freeze`"
        if lacking := self._undeclared(function):
            return f"the model needs {lacking}"
        if function == "input_grad":  # left out unless it is named
            return "compile the model with `--function infer,loss,input_grad`"
        return f"compile the model with `--function {function}`, or without `--function`"

    def _undeclared(self, function: str) -> str:
        """What the source does not say, without which there is no such function."""
        m = self._manifest
        if function == "infer" and not m.outputs:
            return "an output: `output y`"
        if function not in ("init", "infer") and not m.losses:
            return "a loss: `loss mse(y, t)`"
        if function in ("train_step", "apply") and not m.train:
            return "a train block: `train { optimizer = adam() batch = 32 }`"
        return ""

    def get(self, function: str, rows: int) -> Binding:
        """The binding for exactly `rows` rows, compiled on demand."""
        if (function, rows) not in self._entries:
            self.any(function)
            self._compile(function, rows)
        return self._entries[function, rows]

    def fit(self, rows: int) -> tuple[Entry, Native]:
        """The training step for `rows` rows, and the native loop over it."""
        step = self.get("train_step", rows)
        if rows not in self._fits:
            self._compile("fit", rows)
        return step.entry, self._fits[rows]

    def rows_of(self, function: str, arrays: Mapping[str, Any]) -> int:
        """The number of rows in `arrays`, which are the arguments of a function."""
        entry = self.any(function)
        checks.keyed(arrays, entry.given)
        for argument in entry.given:
            if argument.batched and argument.name in arrays:
                return checks.rows(arrays[argument.name], argument)
        checks.names(arrays, [a.name for a in entry.given], [a.name for a in entry.arguments])
        return entry.rows

    def cover(self, function: str, rows: int) -> list[Piece]:
        """Calls that go through `rows` rows once, in order, the largest batches first.

        Only the rest may take a binding compiled on demand: the calls, and with them the rounding
        of sums, do not depend on what was compiled before.
        """
        pieces: list[Piece] = []
        start = 0
        for size in sorted((n for f, n in self._first if f == function and n), reverse=True):
            while size <= rows - start:
                pieces.append(Piece(self._entries[function, size], start, start + size))
                start += size
        if start < rows:
            rest = self.get(function, rows - start)
            pieces.append(Piece(rest, start, rows))
        return pieces

    def _compile(self, function: str, rows: int) -> None:
        if rows == 0:
            raise UserError("NN0707", f"expected at least one row to {function}, but found none")
        compiled = self.sizes("train_step" if function == "fit" else function)
        if self._compiler is None:
            flag = ",".join(map(str, [*(n for n in compiled if n), rows]))
            raise UserError(
                "NN0710", f"expected rows that the compiled batch sizes of '{function}' "
                f"({', '.join(map(str, compiled))}) make up, but found {rows} more",
                help=f"compile the model with `--batch {flag}`",
            )  # fmt: skip
        self._add(self._compiler(rows))
        entries = {("fit", n) for n in self._fits} | self._entries.keys()
        if (function, rows) not in entries:
            raise CompilerBug("NN0691", f"the compiler gave no '{function}' for {rows} rows")


def slices(arrays: Mapping[str, Array], entry: Entry, piece: Piece) -> list[Array]:
    """The arrays a call takes for the rows of a piece, in the order of the call."""
    return [
        arrays[a.name][piece.start : piece.stop] if a.batched else arrays[a.name]
        for a in entry.given
    ]  # fmt: skip
