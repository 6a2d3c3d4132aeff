"""What the grammar leaves to a walk over the finished tree: what may stand where, and how deep."""

from __future__ import annotations

from nncompiler.errors import Note, Span, UserError
from nncompiler.lang import syntax as s

MAX_DEPTH = 120

_ANYWHERE = (s.Assign, s.If, s.For)
_ALLOWED: dict[str, tuple[type[s.Node], ...]] = {
    "a model": (*_ANYWHERE, s.Input, s.Target, s.Param, s.State, s.Output, s.Loss, s.Metric),
    "a train block": (s.Assign, s.Minimize),
    "a fn": (*_ANYWHERE, s.Return),
    "a layer": (*_ANYWHERE, s.Param, s.State, s.Return),
    "the body of a scan": (*_ANYWHERE, s.Yield),
}
_HELP: dict[type[s.Node], str] = {
    s.Input: "inputs belong to the model; a fn or a layer takes arguments",
    s.Target: "targets belong to the model; a fn or a layer takes arguments",
    s.Param: "parameters belong to a layer or the model; make this fn a layer",
    s.State: "state belongs to a layer or the model",
    s.Output: "outputs belong to the model; a fn or a layer ends with `return`",
    s.Loss: "losses belong to the model",
    s.Metric: "metrics belong to the model",
    s.Return: "`return` ends a fn or a layer; a model says `output NAME = ...`, a scan `yield`",
    s.Yield: "`yield` ends the body of a scan; a fn or a layer ends with `return`",
    s.Minimize: "`minimize` belongs to the train block",
    s.If: "settings of a train block are expressions",
    s.For: "settings of a train block are expressions",
}
_HELP_IN: dict[tuple[type[s.Node], str], str] = {
    (s.Param, "the body of a scan"): "its steps share one: declare it in front of the scan",
    (s.State, "the body of a scan"): "declare it in front of the scan; what one step leaves "
    "to the next is a carry",
}


def check(file: s.File) -> None:
    """Raise the first misplacement in file order."""
    _check_tree(file)
    seen: dict[type[s.Node], s.Item] = {}
    for item in file.items:
        _check_order(item, seen)
        seen.setdefault(type(item), item)
        match item:
            case s.Model():
                _check_body(item.body, "a model")
            case s.Train():
                _check_body(item.body, "a train block")
            case s.Fn():
                _check_body(item.body, "a fn")
            case s.Layer():
                _check_body(item.body, "a layer")


def _check_order(item: s.Item, seen: dict[type[s.Node], s.Item]) -> None:
    first = seen.get(type(item))
    match item:
        case s.Import() if seen.keys() - {s.Import}:
            raise UserError("NN0038", "`import` comes after a definition", item.span,
                            help="move the imports to the top of the file")
        case s.Model() if s.Train in seen:
            raise UserError("NN0036", "`train` comes before the model it trains",
                            seen[s.Train].span, notes=[Note("the model is here", item.span)],
                            help="put the train block after the model")
        case (s.Model() | s.Train()) if first:
            word = "model" if isinstance(item, s.Model) else "train block"
            raise UserError("NN0037", f"this file has a second {word}", item.span,
                            notes=[Note("the first is here", first.span)],
                            help=f"a file holds one {word}; put the other into its own file")


def _check_body(body: tuple[s.Statement, ...], where: str) -> None:
    for statement in body:
        if not isinstance(statement, _ALLOWED[where]):
            word = type(statement).__name__.lower()
            raise UserError("NN0035", f"`{word}` does not belong in {where}", statement.span,
                            help=_HELP_IN.get((type(statement), where), _HELP[type(statement)]))
        match statement:
            case s.If(branches, orelse):
                for branch in branches:
                    _check_body(branch.body, where)
                _check_body(orelse or (), where)
            case s.For():
                _check_body(statement.body, where)


def _check_tree(file: s.File) -> None:
    """Look into every scan; bound the tree's depth, so that what walks it later may recurse."""
    stack: list[tuple[s.Node, int, Span]] = [(file, 0, file.span)]
    while stack:
        node, depth, statement = stack.pop()
        if depth > MAX_DEPTH:
            raise UserError(
                "NN0015", f"this statement nests more than {MAX_DEPTH} operations deep", statement,
                help="bind parts of it to names in statements of their own")
        if isinstance(node, s.Scan):
            _check_body(node.body, "the body of a scan")
        match node:
            case s.Argument() | s.Branch() | s.Carry() | s.Slice() | s.Ident():
                pass
            case s.Assign() | s.Output() | s.Loss() | s.Metric() | s.Return() | s.Param():
                depth, statement = depth + 1, node.span
            case _:
                depth += 1
        stack += [(child, depth, statement) for child in s.children(node)]
