"""Running passes: a pass is a frozen dataclass with a name and `run(function) -> function`; its
fields are its options.

Everything that happens between passes (verifying, printing, timing, dumping, comparing) is a
hook, called with one
`Event` after each pass.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import ClassVar, Protocol

from nncompiler.errors import UserError, nearest
from nncompiler.ir.graph import Function, Node
from nncompiler.ir.op import lookup
from nncompiler.passes.fusion.downstream import Downstream
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.fusion.upstream import Upstream
from nncompiler.passes.graph.cse import CommonSubexpressions
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.passes.graph.factor import Factor
from nncompiler.passes.graph.fold_affine import FoldAffine
from nncompiler.passes.graph.narrow import Narrow
from nncompiler.passes.graph.quotients import Quotients
from nncompiler.passes.graph.simplify import Simplify
from nncompiler.passes.graph.sink import Sink
from nncompiler.passes.training.autodiff import Autodiff
from nncompiler.passes.training.recompute import Recompute
from nncompiler.record import dataclass, replace


class Pass(Protocol):
    """`nested` passes also run on the bodies of loops, before the function around them."""

    name: ClassVar[str]
    nested: ClassVar[bool]

    def run(self, function: Function) -> Function:
        """A new function, or the same object when there was nothing to do."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """What a hook is told: the number of the pass in the pipeline, the pass, the function before
    and after."""

    index: int
    step: Pass
    before: Function
    after: Function
    seconds: float


Hook = Callable[[Event], None]

#: Every pass that `nnc opt -p` and pipelines can name.
PASSES: dict[str, type[Pass]] = {
    p.name: p
    for p in (
        Recompute, Autodiff, Narrow, Simplify, CommonSubexpressions, FoldAffine, Quotients, Factor,
        DeadCode, Sink, Fuse, Upstream, Downstream,
    )  # fmt: skip
}


def run_passes(
    function: Function,
    pipeline: Iterable[Pass],
    hooks: Iterable[Hook] = (),
    stop_after: str | None = None,
) -> Function:
    """Run a pipeline in order, telling every hook after every pass; `stop_after` names the last
    pass to run."""
    hooks = tuple(hooks)
    for index, step in enumerate(pipeline):
        start = time.perf_counter()
        after = run_pass(step, function)
        event = Event(index, step, function, after, time.perf_counter() - start)
        for hook in hooks:
            hook(event)
        function = after
        if step.name == stop_after:
            break
    return function


def run_pass(step: Pass, function: Function) -> Function:
    """One pass on a function and, where the pass is `nested`, on the bodies of its loops."""
    if step.nested and any(n.body for n in function.nodes):
        nodes = tuple(_enter(step, n) for n in function.nodes)
        if any(a is not b for a, b in zip(nodes, function.nodes, strict=True)):
            function = function.with_nodes(nodes)
    return step.run(function)


def _enter(step: Pass, node: Node) -> Node:
    if node.body is None or not lookup(node.op).loops:
        return node
    body = run_pass(step, node.body)
    return node if body is node.body else replace(node, body=body)


def parse_pipeline(text: str) -> tuple[Pass, ...]:
    """Passes from text such as ``cse,fuse{max-nodes=16}``; `UserError` NN0402–NN0404 where it
    does not fit."""
    found: list[Pass] = []
    rest = text.strip()
    while rest:
        match = re.match(r"\s*([\w-]+)\s*(?:\{([^}]*)\})?\s*(?:,|$)", rest)
        if not match:
            raise UserError(
                "NN0402", f"expected a pass such as 'fuse{{max-nodes=16}}', but found '{rest}'"
            )
        found.append(_make(match[1], match[2] or ""))
        rest = rest[match.end() :]
    return tuple(found)


def _make(name: str, options: str) -> Pass:
    cls = PASSES.get(name)
    if cls is None:
        close = nearest(name, PASSES)
        known = ", ".join(PASSES)
        raise UserError(
            "NN0403",
            f"no pass is called '{name}'",
            help=f"did you mean '{close}'?" if close else f"passes: {known}",
        )
    types = {f.name: f.type for f in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in options.split(","))):
        key, _, value = item.partition("=")
        field = key.strip().replace("-", "_")
        if field not in types:
            listed = ", ".join(t.replace("_", "-") for t in types) or "none"
            raise UserError(
                "NN0404", f"pass '{name}' has no option '{key.strip()}'", help=f"options: {listed}"
            )
        values[field] = _option(name, key.strip(), value.strip(), str(types[field]))
    return cls(**values)


def _option(name: str, key: str, value: str, type: str) -> int | bool | str:
    if type == "int":
        if not re.fullmatch(r"0*[1-9]\d{0,8}", value):
            raise UserError(
                "NN0404",
                f"option '{key}' of pass '{name}' expected a number above 0, but found '{value}'",
            )
        return int(value)
    if type == "bool":
        if value not in ("true", "false"):
            raise UserError(
                "NN0404",
                f"option '{key}' of pass '{name}' expected true or false, but found '{value}'",
            )
        return value == "true"
    return value


def describe(step: Pass) -> str:
    """A pass as text that `parse_pipeline` reads back; options at their defaults are left out."""
    shown = []
    for f in fields(step):  # type: ignore[arg-type]
        value = getattr(step, f.name)
        if value != f.default:
            text = str(value).lower() if isinstance(value, bool) else value
            shown.append(f"{f.name.replace('_', '-')}={text}")
    return step.name + (f"{{{','.join(shown)}}}" if shown else "")
