"""`nnc fmt`: one layout for every `.nn` file.

Four spaces inside a bracket, one statement a line, `else` beside its brace, one space round
operators, `=` and the `:` of a type, none in keyword arguments, slices and ranges. Comments, the
line breaks inside a statement, blocks written on one line, and single blank lines stay; a line
that continues a statement is indented once. The tree stays the same, and formatting twice is
formatting once.
"""

from __future__ import annotations

from itertools import pairwise

from nncompiler.errors import CompilerBug
from nncompiler.lang import syntax as s
from nncompiler.lang.lex import CLOSERS, OPENERS, Lexed, Token, lex, read
from nncompiler.lang.parse import parse, parse_tokens
from nncompiler.record import dataclass, field

_SEPARATE = (s.Input, s.Target, s.Param, s.State, s.Assign, s.Output, s.Loss, s.Metric, s.If,
             s.For, s.Return, s.Yield, s.Minimize, s.Import, s.Model, s.Train, s.Fn, s.Layer)
_OPERAND_ENDS = frozenset({"NAME", "INT", "FLOAT", "STRING", "TRUE", "FALSE", "RPAR", "RSQB"})
_TIGHT = frozenset({"DOT", "RANGE"})
COMMENT = "COMMENT"


def format_source(text: str | bytes, name: str) -> str:
    """The canonical layout of a file; raises what `parse` raises."""
    lexed = lex(read(text, name))
    file = parse_tokens(lexed)
    result = _Layout(lexed, file).run()
    if parse(result, name) != file:
        raise CompilerBug("NN0098", f"formatting would change the meaning of {name}")
    return result


@dataclass(slots=True)
class _Bracket:
    token: Token
    indent: int  # of the line it stands on
    header: bool


@dataclass(slots=True)
class _Layout:
    """Walks the tokens and comments in order and writes lines."""

    lexed: Lexed
    file: s.File
    starts: set[tuple[int, int]] = field(default_factory=set)
    names: set[tuple[int, int]] = field(default_factory=set)
    inline: set[int] = field(default_factory=set)
    stack: list[_Bracket] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    header: bool = False
    level: int = 0

    def run(self) -> str:
        self.note_tree()
        self.note_inline_blocks()
        tokens = [t for t, after in pairwise(self.lexed.tokens) if not self.superfluous(t, after)]
        comments = [t._replace(kind=COMMENT) for t in self.lexed.comments]
        before, unary = None, False
        for token in sorted(tokens + comments, key=lambda t: t.offset):
            closed = self.stack.pop() if token.text in OPENERS else None
            if before is None or self.breaks(before, token):
                if before is not None and self.blank(before, token):
                    self.lines.append("")
                self.level = self.indent(token, closed)
                self.lines.append(" " * 4 * self.level + token.text)
            else:
                space = "  " if token.kind == COMMENT else " "
                tight = unary or self.tight(before, token, closed)
                self.lines[-1] += ("" if tight else space) + token.text
            unary = token.kind == "MINUS" and not self.is_operand_end(before)
            self.enter(token)
            before = token
        return "".join(line + "\n" for line in self.lines)

    def note_tree(self) -> None:
        """Where statements begin, and which soft keywords are names."""
        stack: list[s.Node] = [self.file]
        while stack:
            node = stack.pop()
            if isinstance(node, _SEPARATE):
                self.starts.add((node.span.line, node.span.column))
            if isinstance(node, (s.Name, s.Ident)):
                self.names.add((node.span.line, node.span.column))
            stack += s.children(node)

    def note_inline_blocks(self) -> None:
        """Blocks on one line with at most one statement keep that form; so do empty ones."""
        opened: list[tuple[Token, int]] = []
        statements, comments = 0, [c.offset for c in self.lexed.comments]
        for token in self.lexed.tokens:
            statements += (token.span.line, token.span.column) in self.starts
            if token.kind == "LBRACE":
                opened.append((token, statements))
            elif token.kind == "RBRACE":
                opener, count = opened.pop()
                empty = count == statements and not any(
                    opener.offset < c < token.offset for c in comments)
                if empty or opener.span.line == token.span.line and statements - count <= 1:
                    self.inline |= {opener.offset, token.offset}

    def enter(self, token: Token) -> None:
        if token.kind in {"MODEL", "FN", "LAYER"}:
            self.header = True
        elif token.text in CLOSERS:
            self.header = self.header and token.text != "{"
            self.stack.append(_Bracket(token, self.level, self.header))

    def superfluous(self, token: Token, after: Token) -> bool:
        """A last comma counts only when the bracket closes on another line."""
        return (token.kind == "COMMA" and after.text in OPENERS
                and token.span.line == after.span.line)

    def breaks(self, before: Token, token: Token) -> bool:
        """Whether `token` begins a line."""
        apart = before.span.line != token.span.line
        if COMMENT in (before.kind, token.kind):
            return apart
        if before.kind == "LBRACE":
            return before.offset not in self.inline
        if token.kind == "RBRACE":
            return token.offset not in self.inline
        if token.kind in {"ELSE", "LBRACE"} or before.kind == "ELSE":
            return False
        return apart or (token.span.line, token.span.column) in self.starts

    def blank(self, before: Token, token: Token) -> bool:
        """Whether a blank line stands between: where one was, and after a long definition."""
        if before.text in CLOSERS or token.text in OPENERS:
            return False
        if not self.stack and before.kind == "RBRACE" and before.offset not in self.inline:
            return True
        between = self.lexed.source.text[before.offset + len(before.text) : token.offset]
        return between.count("\n") > 1

    def indent(self, token: Token, closed: _Bracket | None) -> int:
        """One more than the line of the innermost bracket, and one inside a broken statement."""
        if closed:
            return closed.indent
        depth = self.stack[-1].indent + 1 if self.stack else 0
        in_block = not self.stack or self.stack[-1].token.text == "{"
        at_start = (token.span.line, token.span.column) in self.starts
        return depth + (in_block and not at_start and token.kind not in {COMMENT, "ELSE"})

    def tight(self, before: Token, token: Token, closed: _Bracket | None) -> bool:
        """Whether nothing stands between two tokens on a line."""
        if token.kind == COMMENT:
            return False
        if token.kind in {"COMMA", "RPAR", "RSQB"} or before.kind in {"LPAR", "LSQB"}:
            return True
        if token.kind in {"CALL", "INDEX"}:
            return self.is_operand_end(before)
        if before.kind in {"CALL", "INDEX"} or {before.kind, token.kind} & _TIGHT:
            return True
        if before.kind == "LBRACE":
            return token.kind == "RBRACE"
        inside = closed or (self.stack[-1] if self.stack else None)
        pair = {before.kind, token.kind}
        if inside is None or inside.header:
            return False
        return ("EQUAL" in pair and inside.token.text == "("
                or "COLON" in pair and inside.token.text == "[" and before.kind != "COMMA")

    def is_operand_end(self, token: Token | None) -> bool:
        """Whether an operator, a call or an index may follow; a soft keyword is a name here."""
        if token is None:
            return False
        place = (token.span.line, token.span.column)
        return token.kind in _OPERAND_ENDS or (
            token.kind in {"AXIS", "OVER", "CARRY"} and place in self.names)
