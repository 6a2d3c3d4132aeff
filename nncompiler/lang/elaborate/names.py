"""Names of parameters, which are file format, and names that may not be bound.

An instance is called what the user says (``enc = dense(64)``, ``... as enc``); else after the
target of its statement, when it is the only instance with parameters there and the body binds that
name once; else after its layer, numbered in source order. A name made in the rounds of a loop ends
with their numbers: ``block[0]``. The name of an inner instance follows its owner's after a dot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nncompiler.errors import Note, UserError
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.values import Instance, Key


def binding_counts(item: s.Model | s.Fn | s.Layer) -> dict[str, int]:
    """How often the body of `item` can bind each name at most, its arguments included."""
    counts = _counts(item.body)
    counts.update(p.name.text for p in item.parameters)
    if isinstance(item, s.Layer):
        counts.update(p.name.text for p in item.inputs)
    return dict(counts)


def bound_names(statement: s.Statement) -> frozenset[str]:
    """The names that a statement can bind."""
    return frozenset(_counts([statement]))


def merged_counts(around: Mapping[str, int], node: s.Scan) -> dict[str, int]:
    """How often a scan's body can bind each name, what is bound around it included."""
    return dict(_counts(node.body) + Counter(around))


def _counts(body: Sequence[s.Statement]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for statement in body:
        match statement:
            case s.Assign(targets=targets):
                counts.update(t.text for t in targets)
            case s.Output(name=name, value=value):
                counts.update([name.text] if value is not None else [])
            case s.Input(name=name) | s.Target(name=name) | s.Param(name=name) \
                    | s.State(name=name):
                counts[name.text] += 1
            case s.If(branches=branches, orelse=orelse):
                ways = [_counts(b.body) for b in branches] + [_counts(orelse or ())]
                most: Counter[str] = Counter()
                for way in ways:
                    most |= way
                counts += most
            case s.For(body=inner):
                counts += _counts(inner)
    return counts


def parameter_names(root: Instance) -> dict[int, str]:
    """The full name of every parameter below `root`, by the identity of the parameter."""
    names: dict[int, str] = {}
    _name(root, "", names)
    return names


def _name(instance: Instance, prefix: str, names: dict[int, str]) -> None:
    for p in instance.parameters.values():
        names[id(p)] = prefix + p.name
    children = [c for c in instance.children.values() if c.has_parameters]
    crowded: Counter[Key] = Counter(c.statement for c in children if c.statement)
    numbers: Counter[tuple[str, tuple[int, ...]]] = Counter()
    taken: dict[str, Instance] = {}
    for child in children:
        assert child.layer is not None
        alone = child.statement is not None and crowded[child.statement] == 1
        own = child.explicit or (child.target if alone else None)
        if own is None:
            numbers[child.layer.name, child.rounds] += 1
            own = f"{child.layer.name}{numbers[child.layer.name, child.rounds]}"
        own += "".join(f"[{k}]" for k in child.rounds)
        if own in taken:
            raise UserError("NN0125", f"two layers with parameters are called `{own}`", child.span,
                            notes=[Note("the other is here", taken[own].span)],
                            help=f"name this one: `... {child.layer.name}(...) as NAME`")
        taken[own] = child
        _name(child, f"{prefix}{own}.", names)
