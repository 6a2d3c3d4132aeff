"""The kinds of token, in groups and in the language's words."""

from __future__ import annotations

from nncompiler.lang.lex import Token
from nncompiler.lang.tables import END, tables

ITEMS = frozenset({"MODEL", "TRAIN", "FN", "LAYER", "IMPORT"})
DECLARATIONS = frozenset({"INPUT", "TARGET", "PARAM", "STATE"})
STATEMENTS = DECLARATIONS | {
    "OUTPUT", "LOSS", "METRIC", "IF", "FOR", "RETURN", "YIELD", "MINIMIZE"}
SOFT = frozenset({"AXIS", "OVER", "CARRY"})
NAMES = SOFT | {"NAME"}
LITERALS = frozenset({"INT", "FLOAT", "STRING", "TRUE", "FALSE"})
STARTS = NAMES | LITERALS | {"LPAR", "CALL", "LSQB", "INDEX", "MINUS", "NOT", "SCAN"}
COMPARISONS = frozenset({"EQEQ", "NOTEQ", "LESS", "LESSEQ", "MORE", "MOREEQ"})
OPERATORS = COMPARISONS | {
    "PLUS", "MINUS", "STAR", "SLASH", "AT", "POWER", "AND", "OR", "PIPE"}
OPERAND_ENDS = NAMES | LITERALS | {"RPAR", "RSQB"}


def found(token: Token) -> str:
    """The token as it is named in ``but found ...``."""
    match token.kind:
        case "NAME":
            return f"the name `{token.text}`"
        case "INT" | "FLOAT":
            return f"the number `{token.text}`"
        case "STRING":
            return "a string"
    word = "the keyword " if token.text.isalpha() else ""
    return f"{word}`{token.text}`"


def wanted(accepts: frozenset[str]) -> str:
    """The acceptable kinds in words, groups first."""
    rest, words = set(accepts), []
    if rest >= STATEMENTS:
        rest -= STATEMENTS | NAMES
        words.append("a statement")
    if rest >= ITEMS:
        rest -= ITEMS
        words.append("a definition (model, train, fn or layer)")
    if rest >= LITERALS:
        rest -= STARTS
        words.append("an expression")
    if "NAME" in rest:
        rest -= NAMES
        words.append("a name")
    if rest >= {"PLUS", "STAR"}:
        rest -= OPERATORS | {"CALL", "INDEX", "DOT", "AS"}
        if not rest:
            words.append("an operator")
    spelling = {kind: text for text, kind in tables().literals.items()}
    spelling |= {"CALL": "(", "INDEX": "["}
    rest -= {"LPAR"} if "CALL" in rest else set()
    rest -= {"LSQB"} if "INDEX" in rest else set()
    if END in rest:
        rest.remove(END)
        words.append("the end of the file")
    if "STRING" in rest:
        rest.remove("STRING")
        words.append("a string")
    words += sorted(f"`{spelling[kind]}`" for kind in rest)
    if len(words) > 1:
        return ", ".join(words[:-1]) + f" or {words[-1]}"
    return words[0]
