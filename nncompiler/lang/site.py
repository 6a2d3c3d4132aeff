"""The place of a syntax error, and what stands around it."""

from __future__ import annotations

from nncompiler.errors import Note, UserError
from nncompiler.lang.lex import CLOSERS, OPENERS, Lexed, Token
from nncompiler.lang.words import OPERAND_ENDS
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Site:
    """Token `position`, where only kinds in `accepts` fit."""

    lexed: Lexed
    position: int
    accepts: frozenset[str]

    @property
    def token(self) -> Token:
        return self.lexed.tokens[self.position]

    @property
    def kind(self) -> str:
        return self.token.kind

    @property
    def before(self) -> Token | None:
        return self.lexed.tokens[self.position - 1] if self.position else None

    @property
    def on_new_line(self) -> bool:
        return self.before is None or self.before.span.line != self.token.span.line

    @property
    def after_operand(self) -> bool:
        return self.before is not None and self.before.kind in OPERAND_ENDS

    @property
    def open(self) -> list[Token]:
        """The brackets open here, outermost first."""
        stack: list[Token] = []
        for token in self.lexed.tokens[: self.position]:
            if token.text in CLOSERS:
                stack.append(token)
            elif token.text in OPENERS and stack:
                while stack and stack.pop().text != OPENERS[token.text]:
                    pass
        return stack

    def kind_at(self, offset: int) -> str:
        """The kind of the token `offset` places from this one; empty outside the file."""
        position = self.position + offset
        return self.lexed.tokens[position].kind if 0 <= position < len(self.lexed.tokens) else ""

    def error(self, code: str, message: str, *, help: str | None = None,
              notes: tuple[Note, ...] = (), at: Token | None = None) -> UserError:
        return UserError(code, message, (at or self.token).span, notes=notes, help=help)
