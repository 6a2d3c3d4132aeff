"""Errors and source positions; the one module every other room may import.

Three kinds of failure, and no others, cross a public boundary:

- `UserError`: the input (a `.nn` file, an option, an array, an artifact) is wrong. Says what,
where, and what to write.
- `Limitation`: the input is meaningful, but this version cannot do it. Says what is missing.
- `CompilerBug`: a promise inside the compiler was broken. Asks for a report.

Each has a `code` such as ``NN0103`` (stable, documented in `docs/errors.md`) and an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

EXIT_OK = 0
EXIT_USER = 1
EXIT_USAGE = 2
EXIT_LIMITATION = 3
EXIT_CHECK_FAILED = 4
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Source:
    """A named text; errors quote its lines."""

    name: str
    text: str = field(repr=False)

    def line(self, number: int) -> str:
        """The text of line `number` (1-based), without its newline; empty when out of range."""
        lines = self.text.split("\n")
        return lines[number - 1].rstrip("\r") if 1 <= number <= len(lines) else ""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of source: 1-based line and column, `width` characters on the first line.

    Equality looks at file, line and column only, so that a span survives a round trip through IR
    text.
    """

    file: str
    line: int
    column: int
    width: int = field(default=1, compare=False)
    source: Source | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def quote(self, indent: str = "  ") -> str:
        """The source line with carets under the span; empty when the source is not at hand."""
        if self.source is None:
            return ""
        text = self.source.line(self.line)
        if len(text) > 160:
            return ""
        gutter = f"{self.line:>4} | "
        lead = "".join("\t" if c == "\t" else " " for c in text[: self.column - 1])
        carets = "^" * max(1, min(self.width, len(text) - self.column + 1))
        return f"{indent}{gutter}{text}\n{indent}{' ' * (len(gutter) - 2)}| {lead}{carets}"


class Note(NamedTuple):
    """A second place that helps to understand an error (where a shape came from, a first
    definition)."""

    message: str
    span: Span | None = None


class NNError(Exception):
    """Base of everything nncompiler raises on purpose; `render()` is what the command line
    prints."""

    kind = "error"
    exit_code = EXIT_USER

    def __init__(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        notes: Iterable[Note] = (),
        help: str | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.span = span
        self.notes = tuple(notes)
        self.help = help
        super().__init__(self.render())

    def render(self) -> str:
        """``file:line:column: error NN0103: message``, the quoted line, notes and help, without a
        last newline."""
        place = f"{self.span}: " if self.span else ""
        lines = [f"{place}{self.kind} {self.code}: {self.message}"]
        if self.span and (quoted := self.span.quote()):
            lines.append(quoted)
        for note in self.notes:
            lines.append(f"  note: {note.message}" + (f" ({note.span})" if note.span else ""))
            if note.span and (quoted := note.span.quote()):
                lines.append(quoted)
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class UserError(NNError):
    """The input is wrong; the message says what to write instead."""


class Limitation(NNError):
    """The input is meaningful, but this version of the compiler cannot do it."""

    kind = "limitation"
    exit_code = EXIT_LIMITATION


class CompilerBug(NNError):
    """A broken promise inside the compiler."""

    kind = "internal error"
    exit_code = EXIT_BUG


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The member of `known` most like `name`, or None when nothing is close."""
    import difflib  # only what is wrong needs it

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def parameters_missing(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> UserError:
    """The error for weights that lack some of the parameters `wanted`, each given by its shape."""
    missing = [name for name in wanted if name not in found]
    others = {name: shape for name, shape in found.items() if name not in wanted}
    first = missing[0]
    near = nearest(first, [name for name, shape in others.items() if shape == wanted[first]])
    help = (
        "load_state_dict(..., strict=False) in Python sets only those there are; "
        "nnc takes files that hold all"
    )
    if near:
        help = f"'{near}' may be '{first}' under another name"
    elif len(missing) == len(wanted):
        help = f"the weights are of another model: they are {_some(others)}" if others else help
    verb = "is" if len(missing) == 1 else "are"
    return UserError(
        "NN0805", f"expected {len(wanted)} parameters, but {len(missing)} {verb} missing: "
        + _some(missing), help=help,
    )  # fmt: skip


def _some(names: Iterable[str]) -> str:
    """The first of them, to be told."""
    known = list(names)
    return ", ".join(known[:8]) + (" ..." if len(known) > 8 else "")
