"""Text -> `syntax.File`, or a `UserError` with a code NN00xx that says what to write instead.

An LALR(1) automaton over the tables of `grammar.lark`: `lex` makes the tokens, `build` the nodes,
`placement` checks the finished tree and `diagnose` explains a token that does not fit. Nothing
here recurses, so no input can overflow the stack.
"""

from __future__ import annotations

from typing import Any

from nncompiler.errors import CompilerBug, Span
from nncompiler.lang import placement
from nncompiler.lang.build import BUILDERS
from nncompiler.lang.diagnose import explain
from nncompiler.lang.lex import Lexed, lex, read
from nncompiler.lang.syntax import File
from nncompiler.lang.tables import Rule, tables


def parse(text: str | bytes, name: str) -> File:
    """Parse the text of a `.nn` file; `name` is what errors call it."""
    return parse_tokens(lex(read(text, name)))


def parse_tokens(lexed: Lexed) -> File:
    """Parse what `lex` made of a file."""
    items = _run(lexed)
    file = File(items, span=Span(lexed.source.name, 1, 1, 1, lexed.source))
    placement.check(file)
    return file


def _run(lexed: Lexed) -> Any:
    rows, rules, end = tables().rows, tables().rules, tables().end
    states, values = [tables().start], []
    for position, token in enumerate(lexed.tokens):
        kind = token.kind
        while states[-1] != end:
            action = rows[states[-1]].get(kind)
            if action is None:
                raise explain(lexed, position, _acceptable(states))
            if action >= 0:
                states.append(action)
                values.append(token)
                break
            rule = rules[~action]
            if rule.unit:  # The value stays as it is: most reductions are of this kind.
                states[-1] = rows[states[-2]][rule.origin]
                continue
            first = len(values) - rule.length
            kids = values[first:]
            del values[first:], states[first + 1 :]
            values.append(_reduce(rule, kids))
            states.append(rows[states[-1]][rule.origin])
        else:
            return values[0]
    if lexed.error is None:
        raise CompilerBug("NN0099", "the token stream has no end")
    raise lexed.error


def _reduce(rule: Rule, kids: list[Any]) -> Any:
    """The value of a production; a spliced one is a list that joins the children round it."""
    if kids and isinstance(kids[0], list):
        flat = kids[0]  # Nobody else holds it: grown in place, a long list takes linear time.
        rest = kids[1:]
    else:
        flat, rest = [], kids
    for kid in rest:
        if isinstance(kid, list):
            flat += kid
        else:
            flat.append(kid)
    if rule.spliced:
        return flat
    if rule.transparent and len(flat) == 1:
        return flat[0]
    return BUILDERS[rule.action](flat)


def _acceptable(states: list[int]) -> frozenset[str]:
    """The kinds of token that could come next: those that a run of reductions lets shift."""
    rows, rules, end = tables().rows, tables().rules, tables().end
    found = set()
    for kind in rows[states[-1]]:
        if not kind.isupper():
            continue
        stack = list(states)
        while stack[-1] != end and (action := rows[stack[-1]].get(kind)) is not None:
            if action >= 0:
                found.add(kind)
                break
            rule = rules[~action]
            del stack[len(stack) - rule.length :]
            stack.append(rows[stack[-1]][rule.origin])
        else:
            if stack[-1] == end:
                found.add(kind)
    return frozenset(found)
