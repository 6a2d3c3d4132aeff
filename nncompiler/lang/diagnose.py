"""Why a token does not fit: the mistake behind it, in the language's words.

`explain` gets the tokens, the position of the one that does not fit, and the kinds that would.
Each rule looks for one plausible mistake; the first that recognises its own wins.
"""

from __future__ import annotations

from collections.abc import Callable

from nncompiler.errors import Note, UserError, nearest
from nncompiler.lang.lex import CLOSERS, Lexed, Token
from nncompiler.lang.site import Site
from nncompiler.lang.tables import END
from nncompiler.lang.words import (
    COMPARISONS,
    DECLARATIONS,
    ITEMS,
    LITERALS,
    NAMES,
    OPERAND_ENDS,
    OPERATORS,
    STARTS,
    STATEMENTS,
    found,
    wanted,
)


def explain(lexed: Lexed, position: int, accepts: frozenset[str]) -> UserError:
    """The error for token `position`, where only kinds in `accepts` fit."""
    site = Site(lexed, position, accepts)
    for rule in _RULES:
        if error := rule(site):
            return error
    return _unexpected(site)


# The mistakes, most telling first ---------------------------------------------------------------


def _unclosed(site: Site) -> UserError | None:
    """An opener that nothing closes, noticed where its content stops making sense."""
    open_ = site.open
    if not open_:
        return None
    opener = open_[-1]
    if site.kind == END:
        note = Note("the file ends here", site.token.span)
    elif opener not in site.lexed.unclosed:
        return None
    elif site.kind in ITEMS if opener.text == "{" else site.on_new_line:
        note = Note(f"`{site.token.text}` here cannot be inside", site.token.span)
    else:
        return None
    if opener.text == "{":
        opener = _outdented(site.lexed.tokens[: site.position]) or opener
    return site.error("NN0011", f"`{opener.text}` is never closed", at=opener, notes=(note,),
                      help=f"add the missing `{CLOSERS[opener.text]}`")


def _outdented(tokens: list[Token]) -> Token | None:
    """The first `{` closed by a `}` that is indented less: its own is the one that is missing."""
    stack: list[tuple[Token, int]] = []
    indent, line = 0, 0
    for token in tokens:
        if token.span.line != line:
            indent, line = token.span.column, token.span.line
        if token.text == "{":
            stack.append((token, indent))
        elif token.text == "}" and stack:
            opener, opener_indent = stack.pop()
            if token.span.column == indent < opener_indent:
                return opener
    return None


def _end_of_file(site: Site) -> UserError | None:
    if site.kind != END:
        return None
    return site.error("NN0021", f"expected {wanted(site.accepts)}, but the file ends here")


def _bracket_on_new_line(site: Site) -> UserError | None:
    applied = {"LPAR": "CALL", "LSQB": "INDEX"}.get(site.kind)
    if applied not in site.accepts or not site.after_operand or not site.on_new_line:
        return None
    what = "a call" if applied == "CALL" else "an index"
    return site.error(
        "NN0033", f"a line cannot begin with the `{site.token.text}` of {what}",
        help=f"put the `{site.token.text}` on the line of what it applies to")


def _operator_after_stage(site: Site) -> UserError | None:
    """``x |> block + x``."""
    inside = {"PIPE", "CALL"} <= site.accepts and "PLUS" not in site.accepts
    if not inside or not (site.kind in OPERATORS or site.kind in {"INDEX", "DOT"}):
        return None
    start = site.position - 1
    while start and site.lexed.tokens[start].kind != "PIPE":
        start -= 1
    stage = _text(site.lexed, start + 1, site.position)
    if site.kind in {"INDEX", "DOT"}:
        return site.error("NN0027", "the right side of `|>` must be a name with its call lists",
                          help=f"write `(x |> {stage}){site.token.text}...`, "
                               "or bind the layer to a name first")
    op = site.token.text
    return site.error("NN0027", f"`|>` binds looser than `{op}`",
                      help=f"write `(x |> {stage}) {op} ...`")


def _text(lexed: Lexed, start: int, stop: int) -> str:
    """The source from token `start` up to token `stop`, shortened."""
    last = lexed.tokens[stop - 1]
    text = lexed.source.text[lexed.tokens[start].offset : last.offset + len(last.text)]
    return text if len(text) <= 40 and "\n" not in text else "..."


def _chained_comparison(site: Site) -> UserError | None:
    if site.kind not in COMPARISONS or "AND" not in site.accepts or not site.after_operand:
        return None
    return site.error("NN0026", "comparisons cannot be chained",
                      help="write `a < b and b < c`")


def _equals(site: Site) -> UserError | None:
    """``=`` for ``==``, the reverse, and a keyword bound like a name."""
    before = site.before
    if site.kind == "EQEQ" and "EQUAL" in site.accepts:
        return site.error("NN0025", "expected `=`, but found `==`",
                          help="`=` binds a name, `==` compares")
    if site.kind != "EQUAL" or before is None:
        return None
    if before.kind in STATEMENTS | ITEMS:
        return _keyword(site, before)
    if "EQEQ" in site.accepts:
        return site.error("NN0024", "`=` is not part of an expression",
                          help="compare with `==`; bind a name in a statement of its own")
    return None


def _keyword(site: Site, token: Token) -> UserError:
    help = f"choose another name, such as `{token.text}_1`"
    if token.kind in {"LOSS", "OUTPUT", "METRIC"} and site.kind == "EQUAL":
        help = f"write `{token.text} NAME = ...` with a name"
        if token.kind == "LOSS":
            help = "leave the `=` out, or write `loss NAME = ...` with a name"
    if site.before is not None and site.before.kind == "MINIMIZE" and token.kind == "LOSS":
        help = "give the loss a name, `loss fit = ...`, and write `minimize fit over ...`"
    return site.error("NN0022", f"`{token.text}` is a keyword and cannot be used as a name",
                      at=token, help=help)


def _missing_type(site: Site) -> UserError | None:
    if "COLON" in site.accepts and site.kind_at(-2) in DECLARATIONS:
        word, name = site.lexed.tokens[site.position - 2 : site.position]
        message = f"expected the type of `{name.text}`, but found {found(site.token)}"
        return site.error("NN0042", message, at=name,
                          help=f"write `{word.text} {name.text} : f32[...]` with its sizes")
    if site.accepts == {"INDEX"}:
        assert site.before is not None
        dtype = site.before.text
        message = f"expected a shape after `{dtype}`, but found {found(site.token)}"
        return site.error("NN0041", message, at=site.before,
                          help=f"write `{dtype}[batch, 3]`, or `{dtype}[]` for a scalar")
    return None


def _conditional(site: Site) -> UserError | None:
    """``a if c else b``, and ``if c { a } else { b }`` where a value is expected."""
    as_value = "INT" in site.accepts and not site.on_new_line
    if not (site.kind == "ELSE" and "LBRACE" in site.accepts
            or site.kind == "IF" and (site.after_operand and "PLUS" in site.accepts or as_value)):
        return None
    return site.error("NN0029", f"`{site.token.text}` is not part of an expression",
                      help="write `where(c, a, b)` for tensors, or an `if` statement")


def _block(site: Site) -> UserError | None:
    """A block without its brace, or a definition with the wrong number of lists."""
    if "LBRACE" in site.accepts:
        if site.kind == "COLON":
            return site.error("NN0032", "expected `{`, but found `:`",
                              help="a block is written in braces: `{ ... }`")
        if site.kind in {"CALL", "LPAR"}:
            return site.error("NN0039", "only a layer has a second parameter list",
                              help="write `layer` instead, or put all parameters into one list")
        if "RANGE" not in site.accepts and (site.on_new_line or site.kind in STATEMENTS):
            return site.error("NN0032", f"expected `{{`, but found {found(site.token)}",
                              help="a block is written in braces: `{ ... }`")
    if site.kind == "LBRACE" and site.accepts == {"CALL", "LPAR"}:
        if site.kind_at(-1) == "RPAR":
            return site.error("NN0039", "expected the second parameter list of the layer",
                              help="a layer is `layer NAME(sizes)(x) { ... }`: "
                                   "sizes first, then tensors")
        return site.error("NN0039", "expected a parameter list", help="write `()` if it is empty")
    return None


def _range(site: Site) -> UserError | None:
    if site.kind == "RANGE":
        return site.error("NN0049", "`..` stands between the bounds of a `for` only",
                          help="a slice is `x[1:3]`; any number of axes is `...`")
    if "RANGE" in site.accepts and site.kind not in OPERATORS:
        return site.error("NN0049", f"expected `..`, but found {found(site.token)}",
                          help="a loop is `for i in 0..n { ... }`")
    return None


def _missing_comma(site: Site) -> UserError | None:
    open_ = site.open
    if ("COMMA" not in site.accepts or not open_ or open_[-1].text == "{"
            or site.kind not in STARTS | {"LBRACE"} or not site.after_operand):
        return None
    assert site.before is not None
    return site.error("NN0023", f"expected `,` between `{site.before.text}` "
                      f"and `{site.token.text}`", help="separate the parts with a comma")


def _statement_start(site: Site) -> UserError | None:
    """A statement that begins with a name but binds nothing."""
    if site.accepts != {"EQUAL", "COMMA"}:
        return None
    assert site.before is not None
    name = site.before.text
    if site.kind in STARTS - {"CALL", "INDEX", "MINUS"} and (word := _meant(name, STATEMENTS)):
        return site.error("NN0055", f"expected a statement, but found `{name}`", at=site.before,
                          help=f"did you mean `{word}`?")
    if site.kind_at(-2) in OPERAND_ENDS:
        last = site.lexed.tokens[site.position - 2]
        if last.span.line == site.before.span.line and site.kind != "COLON":
            return site.error(
                "NN0051", f"expected an operator between `{last.text}` and `{name}`",
                at=site.before, help="a product is `a * b`, a call `f(a)`, a binding `a = b`")
    if site.kind in {"INDEX", "DOT"}:
        return site.error("NN0052", "only a name can be bound, not a part of a value",
                          at=site.before,
                          help="values do not change; build the new one and bind it to a name")
    if site.kind in {"CALL", "LPAR"} | OPERATORS or site.kind == "RBRACE":
        return site.error("NN0030", "expected a statement, but found an expression",
                          at=site.before, help=f"bind its value: `y = {name}{_rest(site)}`")
    if site.kind == "COLON":
        return site.error("NN0050", f"`{name}` is bound by `=` and takes no type",
                          help="only input, target, param, state and arguments have types")
    if name in {"let", "var", "const", "val", "auto"} and site.kind in NAMES:
        return site.error("NN0031", f"`{name}` is not a word of this language", at=site.before,
                          help=f"write `{site.token.text} = ...`")
    return None


def _meant(name: str, kinds: frozenset[str]) -> str | None:
    """The keyword among `kinds` that `name` misspells."""
    return nearest(name, sorted(kind.lower() for kind in kinds))


def _rest(site: Site) -> str:
    if site.kind == "RBRACE":
        return ""
    return "(...)" if site.kind == "CALL" else f" {site.token.text} ..."


def _placement(site: Site) -> UserError | None:
    """Statements outside a block, definitions inside one, and values where a statement begins."""
    if site.accepts >= ITEMS:
        if word := _meant(site.token.text, ITEMS):
            return site.error("NN0055", f"expected a definition, but found `{site.token.text}`",
                              help=f"did you mean `{word}`?")
        if site.kind in STATEMENTS | NAMES:
            return site.error("NN0034", f"`{site.token.text}` stands outside of any definition",
                              help="statements belong into `model NAME { ... }`, a fn or a layer")
        return None
    if "RBRACE" not in site.accepts or not site.accepts >= STATEMENTS:
        return None
    if site.kind in ITEMS:
        return site.error("NN0053", f"`{site.token.text}` cannot stand inside a block",
                          help="close the block before with `}`; definitions do not nest")
    if site.kind == "ELSE":
        return site.error("NN0054", "`else` without an `if` before it",
                          help="write `if c { ... } else { ... }`")
    if site.after_operand and site.kind in LITERALS | {"LPAR", "LSQB"} and not site.on_new_line:
        assert site.before is not None
        return site.error("NN0051", f"expected an operator between `{site.before.text}` "
                          f"and `{site.token.text}`", help="a product is `a * b`, a call `f(a)`")
    if site.kind in STARTS:
        return site.error("NN0030", "expected a statement, but found an expression",
                          help="bind its value to a name: `y = ...`")
    return None


def _keyword_as_name(site: Site) -> UserError | None:
    if "NAME" not in site.accepts or not site.token.text.isalpha() or site.kind == "NAME":
        return None
    if "INT" in site.accepts and (site.on_new_line or site.kind in {"AND", "OR", "AS", "IN"}):
        return None  # An operand is missing before it; nobody means it as a name.
    return _keyword(site, site.token)


def _unexpected(site: Site) -> UserError:
    help = None
    if site.on_new_line and site.before and "INT" in site.accepts:
        return site.error("NN0020", f"expected {wanted(site.accepts)} after "
                          f"`{site.before.text}`, but found {found(site.token)}", at=site.before,
                          help="this statement is not finished")
    if site.kind == "PLUS" and "INT" in site.accepts:
        help = "there is no unary `+`; leave it out"
    elif site.kind_at(-2) == "METRIC":
        help = "write `metric NAME = ...`"
    elif site.kind == "COMMA" and site.kind_at(-2) == "OUTPUT":
        help = "write one `output` for each name"
    elif site.kind == "COMMA" and {"RBRACE", "NAME"} <= site.accepts:
        help = "leave it out; nothing stands between statements"
    elif site.kind == "DOTS":
        help = "`...` stands for axes in a type or an index"
    elif site.accepts == {"AXIS"}:
        help = "a scan is `scan z over xs axis 1 carry h = e { ... yield h }`"
    elif site.accepts <= {"OVER", "DOT"} and "OVER" in site.accepts:
        help = "write `minimize NAME over PREFIX` or `scan z over xs axis 1 ...`"
    return site.error("NN0020", f"expected {wanted(site.accepts)}, but found {found(site.token)}",
                      help=help)


_RULES: tuple[Callable[[Site], UserError | None], ...] = (
    _unclosed, _end_of_file, _bracket_on_new_line, _operator_after_stage, _equals,
    _chained_comparison, _missing_type, _conditional, _block, _range, _missing_comma,
    _statement_start, _placement, _keyword_as_name)
