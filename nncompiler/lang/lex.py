"""Text -> tokens of the `.nn` language, with every lexical limit and mistake.

`lex` never raises: it stops at the first lexical mistake and hands it back with the tokens before
it, so that the parser reports whatever is wrong earlier in the file first.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from nncompiler.errors import Note, Source, Span, UserError
from nncompiler.lang.tables import END, tables
from nncompiler.record import dataclass, field

MAX_BYTES = 1 << 20
MAX_TOKENS = 100_000
MAX_NESTING = 100
MAX_NUMBER = 100
MAX_NAME = 200
MAX_STRING = 4096
MAX_INT = 2**63 - 1

CLOSERS = {"(": ")", "[": "]", "{": "}"}
OPENERS = {close: open_ for open_, close in CLOSERS.items()}
# A `(` or `[` applies to one of these when it stands on the same line.
_APPLICABLE = frozenset({"NAME", "AXIS", "OVER", "CARRY", "RPAR", "RSQB"})

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_EXPONENT = rf"(?:[eE][+-]?{_DIGITS})?"
_INT = re.compile(_DIGITS)
_FLOAT = re.compile(rf"(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS}){_EXPONENT}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_SPLIT = "move layers and functions to files of their own"
_FOREIGN_WORDS = {
    "True": "write `true`",
    "False": "write `false`",
    "None": "there is no null value; leave the argument out",
    "null": "there is no null value; leave the argument out",
    "def": "write `fn NAME(...) { ... }`, or `layer NAME(...)(...) { ... }` if it has parameters",
    "class": "write `layer NAME(...)(...) { ... }`",
    "lambda": "write `fn NAME(...) { return ... }` and pass its name",
    "elif": "write `else if`",
    "while": "loops are `for i in 0..n { ... }` and `scan`",
}
_FOREIGN_OPERATORS = {
    "//": "comments begin with `#`; division is `/`",
    "/*": "comments begin with `#` and end with the line",
    "&&": "write `and`",
    "||": "write `or`",
    "&": "write `and`",
    "|": "write `or`, or `|>` to apply a layer",
    "!": "write `not`",
    "^": "a power is `**`",
    "%": "there is no remainder operator",
    ";": "leave it out; a statement ends where the next one begins",
    "->": "leave the result type out; it is inferred",
    "=>": "write `>=` for a comparison",
    ":=": "write `=`",
}
_COMPOUND = frozenset({"+=", "-=", "*=", "/=", "@=", "**="})
_LOOKALIKES = {
    "×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=",
    "≠": "!=", "“": '"', "”": '"', "…": "...", "＝": "=", "（": "(", "）": ")", "，": ",",
}


class Token(NamedTuple):
    """A terminal of the grammar (`kind`), its text, place, and offset in the file."""

    kind: str
    text: str
    span: Span
    offset: int


@dataclass(frozen=True, slots=True)
class Lexed:
    """The tokens of a file, last `$END`, or those before `error`.

    `unclosed` holds the openers that nothing closes; it is empty when `error` cut the file short.
    """

    source: Source
    tokens: list[Token]
    comments: list[Token]
    unclosed: frozenset[Token]
    error: UserError | None


@cache
def _pattern() -> re.Pattern[str]:
    symbols = {t for t in tables().literals if not t[0].isalpha()}
    symbols |= _COMPOUND | _FOREIGN_OPERATORS.keys()
    longest_first = sorted(symbols, key=lambda text: (-len(text), text))
    return re.compile(
        r"(?P<space>[ \t\r]+)|(?P<newline>\n)|(?P<comment>\#[^\n]*)"
        r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
        r"|(?P<number>(?:[0-9]|\.[0-9])[A-Za-z0-9_]*"
        r"(?:\.(?!\.)[A-Za-z0-9_]*)?(?:(?<=[eE])[+-][A-Za-z0-9_]*)?)"
        r"|(?P<string>\"[^\"\n]*\"?)"
        rf"|(?P<symbol>{'|'.join(map(re.escape, longest_first))})"
        r"|(?P<unknown>.)"
    )


def read(text: str | bytes, name: str) -> Source:
    """The file as a `Source`: decoded, within the size limit, free of control characters."""
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise UserError("NN0003", f"{name}: expected at most {MAX_BYTES} bytes, but found {size}",
                        help=_SPLIT)
    decoded = _decode(text, name) if isinstance(text, bytes) else text
    source = Source(name, decoded.removeprefix("\ufeff"))
    if found := _CONTROL.search(source.text) or _SURROGATE.search(source.text):
        line = source.text.count("\n", 0, found.start()) + 1
        column = found.start() - source.text.rfind("\n", 0, found.start())
        # Not quoted: a terminal should not see the character.
        raise UserError("NN0002", f"expected text, but found U+{ord(found[0]):04X}",
                        Span(name, line, column), help="this looks like a binary file")
    return source


def _decode(data: bytes, name: str) -> str:
    if data.startswith(b"\x7fELF"):
        raise UserError("NN0002", f"expected the source of a model, but '{name}' is a library",
                        help="give the .nn file it was compiled from")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        before = data[: e.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
        raise UserError("NN0001", f"expected UTF-8 text, but found byte 0x{data[e.start]:02X}",
                        Span(name, before.count(b"\n") + 1, column),
                        help="save the file as UTF-8") from None


def lex(source: Source) -> Lexed:
    """Split `source` into tokens."""
    lexer = _Lexer(source)
    error = None
    try:
        lexer.run()
    except UserError as e:
        error = e
    unclosed = frozenset() if error else frozenset([*lexer.unclosed, *lexer.open])
    return Lexed(source, lexer.tokens, lexer.comments, unclosed, error)


@dataclass(slots=True)
class _Lexer:
    source: Source
    tokens: list[Token] = field(default_factory=list)
    comments: list[Token] = field(default_factory=list)
    open: list[Token] = field(default_factory=list)
    unclosed: list[Token] = field(default_factory=list)

    def run(self) -> None:
        source, line, line_start = self.source, 1, 0
        for match in _pattern().finditer(source.text):
            group, text, offset = match.lastgroup, match[0], match.start()
            if group == "space":
                continue
            if group == "newline":
                line, line_start = line + 1, offset + 1
                continue
            text = text.rstrip("\r") if group == "comment" else text
            span = Span(source.name, line, offset - line_start + 1, len(text), source)
            token = Token("", text, span, offset)
            match group:
                case "comment":
                    self.comments.append(token._replace(text=text.rstrip()))
                case "word":
                    self.add(token, _word(text, span))
                case "symbol":
                    self.add(token, self.symbol(token))
                case "number":
                    self.add(token, _number(text, span))
                case "string":
                    self.add(token, _string(text, span))
                case _:
                    raise _unknown(text, span)
        column = len(source.text) - line_start + 1
        self.add(Token("", "", Span(source.name, line, column, 1, source), len(source.text)), END)

    def add(self, token: Token, kind: str) -> None:
        if len(self.tokens) >= MAX_TOKENS:
            raise UserError("NN0003", f"expected at most {MAX_TOKENS} words and symbols in a file",
                            token.span, help=_SPLIT)
        self.tokens.append(token._replace(kind=kind))

    def symbol(self, token: Token) -> str:
        """The kind of a symbol; keeps track of brackets."""
        text = token.text
        if text in _COMPOUND:
            raise UserError("NN0009", f"expected an operator, but found `{text}`", token.span,
                            help=f"write `x = x {text[:-1]} ...`; this binds the name anew")
        if text in _FOREIGN_OPERATORS and text not in tables().literals:
            raise UserError("NN0009", f"expected an operator, but found `{text}`", token.span,
                            help=_FOREIGN_OPERATORS[text])
        kind = tables().literals[text]
        if text in CLOSERS:
            kind = self.opening(token, kind)
        elif text in OPENERS:
            self.closing(token)
        return kind

    def opening(self, token: Token, kind: str) -> str:
        if self.tokens and token.text != "{":
            last = self.tokens[-1]
            if last.kind in _APPLICABLE and last.span.line == token.span.line:
                kind = "CALL" if token.text == "(" else "INDEX"
        self.open.append(token._replace(kind=kind))
        if len(self.open) > MAX_NESTING:
            raise UserError("NN0010", f"brackets nest more than {MAX_NESTING} levels deep",
                            token.span, help="bind inner parts to names in their own statements")
        return kind

    def closing(self, token: Token) -> None:
        wanted = OPENERS[token.text]
        matched = any(opener.text == wanted for opener in self.open)
        if not matched and (not self.open or self.open[-1].text == "{"):
            raise UserError("NN0012", f"`{token.text}` closes nothing", token.span,
                            help=f"remove it, or open the matching `{wanted}` before")
        if not matched:
            opener = self.open[-1]
            raise UserError(
                "NN0013", f"expected `{CLOSERS[opener.text]}`, but found `{token.text}`",
                token.span, notes=[Note(f"to close this `{opener.text}`", opener.span)],
                help=f"write `{CLOSERS[opener.text]}`")
        while self.open[-1].text != wanted:
            self.unclosed.append(self.open.pop())
        self.open.pop()


def _word(text: str, span: Span) -> str:
    if len(text) > MAX_NAME:
        raise UserError("NN0008", f"expected a name of at most {MAX_NAME} characters, "
                        f"but found {len(text)}", span)
    if text in _FOREIGN_WORDS:
        raise UserError("NN0031", f"`{text}` is not a word of this language", span,
                        help=_FOREIGN_WORDS[text])
    return tables().literals.get(text, "NAME")


def _number(text: str, span: Span) -> str:
    if len(text) > MAX_NUMBER:
        raise UserError("NN0008", f"expected a number of at most {MAX_NUMBER} characters, "
                        f"but found {len(text)}", span)
    if _INT.fullmatch(text):
        if int(text) > MAX_INT:
            raise UserError("NN0007", "this integer does not fit into 64 bits", span,
                            help=f"the largest is {MAX_INT}; write a float as `{text[0]}e30`")
        return "INT"
    if _FLOAT.fullmatch(text):
        if float(text) == float("inf"):
            raise UserError("NN0007", "this number is larger than any float", span)
        return "FLOAT"
    raise UserError("NN0006", f"expected a number, but found `{text}`", span,
                    help="numbers look like 3, 10_000, 0.5 or 1e-3; names begin with a letter")


def _string(text: str, span: Span) -> str:
    if len(text) < 2 or not text.endswith('"'):
        raise UserError("NN0005", 'expected `"` before the end of the line', span,
                        help="a string stays on one line")
    if len(text) > MAX_STRING:
        raise UserError("NN0008", f"expected a string of at most {MAX_STRING} characters, "
                        f"but found {len(text)}", span)
    return "STRING"


def _unknown(text: str, span: Span) -> UserError:
    if text == "'":
        return UserError("NN0014", "strings are written in double quotes", span,
                         help='write `"..."`')
    help = None
    if text in _LOOKALIKES:
        help = f"write `{_LOOKALIKES[text]}`"
    elif text.isalpha():
        help = "names are made of the letters a-z, A-Z, digits and `_`"
    shown = f"`{text}`" if text.isprintable() else f"U+{ord(text):04X}"
    return UserError("NN0004", f"{shown} has no meaning here", span, help=help)
