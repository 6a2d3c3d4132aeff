"""What graph text and plan text share: scanner, names, literals, printed lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NoReturn

import numpy as np

from nncompiler.errors import Source, Span, UserError
from nncompiler.ir.combine import COMBINES
from nncompiler.ir.scalar import PRIMITIVES, Const
from nncompiler.ir.types import BOOL, DTYPES, F32, F64, I32, DType, TensorType
from nncompiler.record import dataclass, field

#: Deepest nesting of regions, loops and parentheses that the parsers follow.
MAX_DEPTH = 100
MAX_DIGITS = 20

# Patterns are compiled as they are needed: a compilation prints, and does not read.
NAME = r"[\w.']+(?:\[\d+\][\w.']*)*"
#: A name in front of an index list: a bracket group belongs to the name only if more follows it.
INDEXED = r"%?([\w.']+(?:\[\d+\](?=[\w.'\[])[\w.']*)*)(?=\[)"
LOCAL = r"%([\w.']+)|([A-Za-z_][\w.']*)"
WORD = r"[A-Za-z_]\w*"
INTEGER = r"-?\d+"
NUMBER = (
    r"(-?(?:inf|nan)(?![\w.'\[])|-?(?:inf|nan)(?=f64\b)|-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"
    r"(f32|f64|i32|i64|u8|u32|u64)?(?![\w'])"
)
TYPE = r"(\w+)[ ]*\[([\d, ]*)\]"
_BLANK = r"(?:\s+|//[^\n]*)+"
_SPANS = r"[ \t]*//[ \t]*((?:[^\n]+?:\d+:\d+(?:,[ ]|[ \t]*(?=\n|$)))+)"
_SPAN = r"(.+?):(\d+):(\d+)(?:, |\s*$)"

KEYWORDS = frozenset(
    {
        "and", "barrier", "bitcast", "else", "false", "for", "from", "if", "index", "inf",
        "inff64", "kernel", "loop", "nan", "nanf64", "not", "or", "ordered", "reverse", "schedule",
        "true",
    }
)  # fmt: skip
RESERVED = KEYWORDS | frozenset(PRIMITIVES) | frozenset(COMBINES) | frozenset(DTYPES)


@dataclass(slots=True)
class Lines:
    """Printed lines, each with the object it shows, so that the verifier can write below it."""

    found: list[tuple[str, object]] = field(default_factory=list)

    def add(self, depth: int, text: str, anchor: object = None) -> None:
        self.found.append(("  " * depth + text, anchor))

    def __str__(self) -> str:
        return "".join(f"{text}\n" for text, _ in self.found)


@lru_cache(maxsize=4096)
def name_text(name: str) -> str:
    """A name of plan text: bare where it cannot be taken for anything else, else after %."""
    bare = re.fullmatch(r"[A-Za-z_][\w.']*(?:\[\d+\][\w.']*)*", name) and name not in RESERVED
    return name if bare else f"%{name}"


def spans_text(spans: Iterable[Span]) -> str:
    found = ", ".join(map(str, spans))
    return f"    // {found}" if found else ""


def literal_text(value: float | int | bool, dtype: DType) -> str:
    """The shortest literal that reads back as `value`: 0.5, 0.5f64, 3, 3u32, true, -inf."""
    if dtype == BOOL:
        return "true" if value else "false"
    if not dtype.is_float:
        return f"{int(value)}" + ("" if dtype == I32 else dtype.name)
    if dtype == F64:
        return f"{float(value)!r}f64"
    # a zero has a sign, which keys of a cache do not see
    return str(float(value)) if value == 0 else _float32_text(float(value))


@lru_cache(maxsize=4096)
def _float32_text(value: float) -> str:
    with np.errstate(over="ignore"):
        return str(np.float32(value))


@dataclass(slots=True)
class Scanner:
    """A cursor over a text; white space and ``//`` comments are skipped before each token."""

    source: Source
    pos: int = 0
    depth: int = 0

    def here(self) -> int:
        """Where the next token begins. The cursor stays: a comment in between may hold spans."""
        found = re.compile(_BLANK).match(self.source.text, self.pos)
        return found.end() if found else self.pos

    def skip(self) -> None:
        self.pos = self.here()

    def at(self, *tokens: str) -> bool:
        """Is one of these punctuation marks or words next?"""
        text, here = self.source.text, self.here()
        for token in tokens:
            if text.startswith(token, here):
                end = here + len(token)
                if not (token[-1].isalnum() and end < len(text) and _continues(text[end])):
                    return True
        return False

    def accept(self, token: str) -> bool:
        if found := self.at(token):
            self.pos = self.here() + len(token)
        return found

    def expect(self, token: str, why: str = "") -> None:
        if not self.accept(token):
            self.fail_expected(f"'{token}'{why}")

    def match(self, pattern: str) -> re.Match[str] | None:
        found = self.peek(pattern)
        if found:
            self.pos = found.end()
        return found

    def peek(self, pattern: str) -> re.Match[str] | None:
        return re.compile(pattern).match(self.source.text, self.here())

    def need(self, pattern: str, what: str) -> re.Match[str]:
        return self.match(pattern) or self.fail_expected(what)

    def span(self, pos: int | None = None) -> Span:
        text, pos = self.source.text, self.here() if pos is None else pos
        start = text.rfind("\n", 0, pos) + 1
        width = len(m[0]) if (m := re.compile(r"[%@]?[\w.']+").match(text, pos)) else 1
        return Span(
            self.source.name, text.count("\n", 0, pos) + 1, pos - start + 1, width, self.source
        )

    def fail(
        self, code: str, message: str, pos: int | None = None, help: str | None = None
    ) -> NoReturn:
        raise UserError(code, message, self.span(pos), help=help)

    def fail_expected(self, what: str) -> NoReturn:
        self.skip()
        rest = self.source.text[self.pos :]
        found = re.match(r"[%@]?[\w.']+|\S", rest)
        shown = f"'{found[0][:40]}'" if found else "the end of the text"
        self.fail("NN0302", f"expected {what}, but found {shown}")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail("NN0305", f"nested more than {MAX_DEPTH} levels deep")

    # --- common pieces ---

    def name(self, what: str) -> str:
        """A declared name, with or without %, brackets included."""
        self.accept("%")
        return self.need(NAME, what)[0]

    def value_name(self) -> str:
        self.expect("%", " and a value's name")
        return self.need(NAME, "a value's name")[0]

    def function_name(self) -> str:
        self.expect("@", " and a name")
        return self.need(NAME, "a name")[0]

    def integer(self, what: str = "an integer") -> int:
        found = self.need(INTEGER, what)
        if len(found[0]) > MAX_DIGITS:
            self.fail("NN0306", "this number has too many digits", found.start())
        return int(found[0])

    def dtype(self) -> DType:
        found = self.need(WORD, "an element type")
        if found[0] not in DTYPES:
            message = f"expected an element type such as f32, but found '{found[0]}'"
            self.fail("NN0301", message, found.start())
        return DTYPES[found[0]]

    def type(self) -> TensorType:
        found = self.need(TYPE, "a type such as f32[64,784]")
        dims = [d.strip() for d in found[2].split(",")] if found[2].strip() else []
        if found[1] not in DTYPES or not all(re.fullmatch(r"\d{1,18}", d) for d in dims):
            message = f"expected a type such as f32[64,784], but found '{found[0][:60]}'"
            self.fail("NN0301", message, found.start())
        return TensorType(DTYPES[found[1]], tuple(map(int, dims)))

    def literal(self) -> Const | None:
        """A literal if one is next."""
        if self.at("true", "false"):
            return Const(bool(self.need(WORD, "a literal")[0] == "true"), BOOL)
        found = self.match(NUMBER)
        return None if found is None else self._number(found)

    def _number(self, found: re.Match[str]) -> Const:
        text, suffix = found[1], found[2]
        whole = re.fullmatch(INTEGER, text) is not None
        dtype = DTYPES[suffix] if suffix else (I32 if whole else F32)
        if len(text) > 40 or (whole and len(text) > MAX_DIGITS + 1):
            self.fail("NN0306", "this number has too many digits", found.start())
        if dtype.is_float:
            return self._float(float(text), text, dtype, found.start())
        low, high = (0, 2 ** (8 * dtype.bytes)) if dtype.kind == "uint" else _signed(dtype)
        if not whole or not low <= int(text) < high:
            self.fail("NN0306", f"'{text}' is not a number of type {dtype}", found.start())
        return Const(int(text), dtype)

    def _float(self, value: float, text: str, dtype: DType, pos: int) -> Const:
        with np.errstate(over="ignore"):
            rounded = value if dtype == F64 else float(np.float32(value))
        if np.isinf(rounded) and "inf" not in text:
            self.fail("NN0306", f"'{text}' does not fit {dtype}", pos)
        return Const(rounded, dtype)

    def spans(self) -> tuple[Span, ...]:
        """The source positions in the comment that ends this line, if it holds any."""
        found = re.compile(_SPANS).match(self.source.text, self.pos)
        if not found:
            return ()
        every = re.findall(_SPAN, found[1])
        if any(len(n) > 9 for _, *numbers in every for n in numbers):
            return ()
        return tuple(Span(file, int(line), int(column)) for file, line, column in every)


def _signed(dtype: DType) -> tuple[int, int]:
    half = int(2 ** (8 * dtype.bytes - 1))
    return -half, half


def _continues(character: str) -> bool:
    return character.isalnum() or character in "_.'"
