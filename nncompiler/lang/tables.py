"""LALR(1) tables of `grammar.lark`: built by lark, stored in `tables_data.py`, read without lark.

Building takes a third of a second, reading a few milliseconds. The stored text carries the digest
of the grammar it was made from; when the grammar has been edited since, lark builds it anew.
``python -m nncompiler.lang.tables`` rewrites the stored text.
"""

from __future__ import annotations

import binascii
import textwrap
import zlib
from functools import cache
from pathlib import Path
from typing import NoReturn

from nncompiler.record import dataclass

_HERE = Path(__file__).parent
END = "$END"


@dataclass(frozen=True, slots=True)
class Rule:
    """A production. `spliced`: its children join its parent's; `transparent`: an only one does.

    `unit`: one symbol stands for another and the value stays the same.
    """

    origin: str
    action: str
    length: int
    spliced: bool
    transparent: bool
    unit: bool


@dataclass(frozen=True, slots=True)
class Tables:
    """`rows[state][symbol]` is the state to enter when >= 0, else `~` of the rule to reduce by."""

    rules: tuple[Rule, ...]
    rows: tuple[dict[str, int], ...]
    start: int
    end: int
    literals: dict[str, str]


@cache
def tables() -> Tables:
    """The tables of the grammar that lies beside this file."""
    from nncompiler.lang import tables_data

    if grammar_digest() == tables_data.DIGEST:
        return decode(tables_data.TEXT)
    return decode(build())


def grammar_digest() -> str:
    """Tells whether the grammar has been edited (hashlib is slow to load)."""
    return f"{zlib.crc32((_HERE / 'grammar.lark').read_bytes()):08x}"


def build() -> str:
    """Run lark over the grammar and write the tables as text, one item per line.

    States and rules are numbered anew, since lark's own order depends on hash seeds.
    """
    from lark import Lark
    from lark.lexer import Lexer
    from lark.parsers.lalr_analysis import LALR_Analyzer, Shift

    class _NoLexer(Lexer):
        """Keeps lark from building a lexer of its own: tokens come from lex.py."""

        def __init__(self, conf: object) -> None: ...

        def lex(self, lexer_state: object, parser_state: object) -> NoReturn:
            raise AssertionError("lark is only used to build tables")

    grammar = (_HERE / "grammar.lark").read_text(encoding="utf-8")
    lark = Lark(grammar, parser="lalr", lexer=_NoLexer, start="file", maybe_placeholders=False)
    analyzer = LALR_Analyzer(lark.parser.parser_conf)
    analyzer.compute_lalr()  # type: ignore[no-untyped-call]
    table = analyzer.parse_table
    order = [table.start_states["file"]]
    for state in order:
        successors = (arg for _, (act, arg) in sorted(table.states[state].items(), key=_symbol)
                      if act is Shift)
        order += [s for s in dict.fromkeys(successors) if s not in order]
    state_number = {state: i for i, state in enumerate(order)}
    rules = sorted(lark.rules, key=str)
    rule_number = {rule: i for i, rule in enumerate(rules)}

    lines = [f"start 0 {state_number[table.end_states['file']]}"]
    for terminal in sorted(lark.terminals, key=lambda terminal: str(terminal.name)):
        if terminal.pattern is not None:
            lines.append(f"literal {terminal.name} {terminal.pattern.value}")
    for rule in rules:
        origin = str(rule.origin.name)
        # An alternative with a name of its own stays, even round one child.
        flags = f"{int(origin.startswith('_'))}{int(rule.options.expand1 and not rule.alias)}"
        lines.append(f"rule {origin} {rule.alias or origin} {len(rule.expansion)} {flags}")
    for state in order:
        row = (f"{symbol} {state_number[arg] if act is Shift else ~rule_number[arg]}"
               for symbol, (act, arg) in sorted(table.states[state].items(), key=_symbol))
        lines.append(" ".join(["row", *row]))
    return "\n".join(lines) + "\n"


def _symbol(entry: tuple[str, object]) -> str:
    return str(entry[0])


def decode(text: str) -> Tables:
    """The inverse of `build`."""
    rules: list[Rule] = []
    rows: list[dict[str, int]] = []
    literals: dict[str, str] = {}
    start = end = 0
    for line in text.splitlines():
        kind, *words = line.split()
        match kind:
            case "row":
                rows.append(dict(zip(words[::2], map(int, words[1::2]), strict=True)))
            case "rule":
                origin, action, length, flags = words
                spliced, transparent = flags[0] == "1", flags[1] == "1"
                unit = length == "1" and (spliced or transparent)
                rules.append(Rule(origin, action, int(length), spliced, transparent, unit))
            case "literal":
                literals[words[1]] = words[0]
            case _:
                start, end = map(int, words)
    return Tables(tuple(rules), tuple(rows), start, end, literals)


def data_module(text: str) -> str:
    """The Python text of `tables_data.py`."""
    packed = binascii.b2a_base64(zlib.compress(text.encode(), 9), newline=False).decode()
    return f'''"""Made from grammar.lark by `python -m nncompiler.lang.tables`; do not edit."""

import binascii
import zlib

DIGEST = "{grammar_digest()}"
_PACKED = """
{textwrap.fill(packed, 96)}
"""
TEXT = zlib.decompress(binascii.a2b_base64(_PACKED)).decode()
'''


def main() -> None:
    """Write `tables_data.py`."""
    (_HERE / "tables_data.py").write_text(data_module(build()), encoding="utf-8")


if __name__ == "__main__":
    main()
