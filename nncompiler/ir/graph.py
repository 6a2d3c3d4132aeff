"""The Graph level: ordered SSA tensor programs, frozen.

A `Function` has typed parameters, nodes in execution order, and named results. Values are named;
a name is defined once. A node names a registered operator (`ir.op.REGISTRY`) and may own one
region (`body`): only `fused` and `scan` do. Rewriting means building a new function; `Builder` is
how every pass and the language front end do that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from nncompiler.errors import CompilerBug, Span
from nncompiler.ir.scalar import const as literal
from nncompiler.ir.types import DType, TensorType, scalar
from nncompiler.record import dataclass, field, replace

Attr: TypeAlias = "int | float | bool | str | tuple[int, ...]"

#: What a parameter of a function is. `header` are the values at the head of the state (step,
#: seed, draws, rate); `state` the model's own (running statistics), `slot` the optimizer's;
#: `gradient` the inputs of `apply`; `operand` the parameters of a region.
PARAM_KINDS = ("input", "target", "param", "state", "slot", "header", "gradient", "operand")


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA value: a name without the leading %, and a type."""

    name: str
    type: TensorType

    def __hash__(self) -> int:
        # Names are unique in a function, and a string keeps its hash; a type's is computed anew.
        return hash(self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, slots=True)
class Param:
    kind: str
    value: Value


@dataclass(frozen=True, slots=True)
class Node:
    """One operator application. `attrs` are sorted by name; `span` is the source it stems from."""

    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attrs: tuple[tuple[str, Attr], ...] = ()
    body: Function | None = None
    span: Span | None = None

    @property
    def output(self) -> Value:
        if len(self.outputs) != 1:
            raise CompilerBug(
                "NN0391", f"node '{self.op}' has {len(self.outputs)} results, not one"
            )
        return self.outputs[0]

    def attr(self, name: str) -> Attr:
        for key, value in self.attrs:
            if key == name:
                return value
        raise CompilerBug("NN0391", f"node '{self.op}' has no attribute '{name}'")

    def ints(self, name: str) -> tuple[int, ...]:
        value = self.attr(name)
        if not isinstance(value, tuple):
            raise CompilerBug("NN0391", f"attribute '{name}' of '{self.op}' is not a tuple")
        return value


@dataclass(frozen=True, slots=True)
class Function:
    """A typed SSA program. `results` are (name, value); the names are part of the interface."""

    name: str
    params: tuple[Param, ...]
    nodes: tuple[Node, ...]
    results: tuple[tuple[str, Value], ...]

    def definitions(self) -> dict[Value, Node]:
        """The node that defines each value (parameters have none)."""
        return {v: n for n in self.nodes for v in n.outputs}

    def users(self) -> dict[Value, list[Node]]:
        """For every value the nodes that read it, in order, each once."""
        found: dict[Value, list[Node]] = {p.value: [] for p in self.params}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                found.setdefault(value, []).append(node)
            for value in node.outputs:
                found.setdefault(value, [])
        return found

    def params_of(self, *kinds: str) -> tuple[Value, ...]:
        return tuple(p.value for p in self.params if p.kind in kinds)

    def result(self, name: str) -> Value:
        for key, value in self.results:
            if key == name:
                return value
        raise CompilerBug("NN0391", f"function '{self.name}' has no result '{name}'")

    def with_nodes(self, nodes: Iterable[Node]) -> Function:
        return replace(self, nodes=tuple(nodes))


@dataclass(slots=True)
class Builder:
    """Appends nodes, infers their types by the operators' own shape rules, and keeps names unique.

    >>> b = Builder("f"); x = b.param("input", "x", TensorType(F32, (4,)))
    >>> y = b.emit("add", x, b.const(1.0, F32)); f = b.finish([("y", y)])
    """

    name: str
    params: list[Param] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    span: Span | None = None
    _names: set[str] = field(default_factory=set)
    _next: int = 0
    _constants: dict[tuple[str, str], Value] = field(default_factory=dict)

    @classmethod
    def extending(cls, function: Function, name: str | None = None) -> Builder:
        """A builder that starts with everything `function` holds, to append to it."""
        builder = cls(name or function.name, list(function.params), list(function.nodes))
        builder._names = {p.value.name for p in function.params}
        builder._names |= {v.name for n in function.nodes for v in n.outputs}
        return builder

    def fresh(self, hint: str | None = None) -> str:
        """A name not used yet: `hint` itself, ``hint.1``, …; a number without a hint."""
        if hint is not None:
            name, count = hint, 0
            while name in self._names:
                count += 1
                name = f"{hint}.{count}"
        else:
            while str(self._next) in self._names:
                self._next += 1
            name = str(self._next)
        self._names.add(name)
        return name

    def param(self, kind: str, name: str, type: TensorType) -> Value:
        if kind not in PARAM_KINDS or name in self._names:
            raise CompilerBug("NN0391", f"bad or duplicate parameter '{name}' of kind '{kind}'")
        self._names.add(name)
        value = Value(name, type)
        self.params.append(Param(kind, value))
        return value

    def operand(self, hint: str, type: TensorType) -> Value:
        """A parameter of a region, under a name made from `hint`."""
        value = Value(self.fresh(hint), type)
        self.params.append(Param("operand", value))
        return value

    def emit(self, op: str, *inputs: Value, hint: str | None = None, **attrs: Attr) -> Value:
        """Append a node with one result and give that result."""
        (output,) = self.emit_many(op, inputs, attrs, hint=hint)
        return output

    def emit_many(
        self,
        op: str,
        inputs: Sequence[Value],
        attrs: Mapping[str, Attr] | None = None,
        *,
        body: Function | None = None,
        hint: str | None = None,
    ) -> tuple[Value, ...]:
        from nncompiler.ir.op import lookup

        attributes = tuple(sorted((attrs or {}).items()))
        probe = Node(op, tuple(inputs), (), attributes, body, self.span)
        types = lookup(op).infer(probe)
        outputs = tuple([Value(self.fresh(hint), t) for t in types])
        self.nodes.append(Node(op, probe.inputs, outputs, attributes, body, self.span))
        return outputs

    def copy(self, node: Node, inputs: Sequence[Value], hints: bool = True) -> tuple[Value, ...]:
        """Append a copy of `node` on new inputs, keeping its span and, where free, its names."""
        outputs = tuple([
            Value(self.fresh(v.name if hints and not v.name.isdigit() else None), v.type)
            for v in node.outputs
        ])
        made = Node(node.op, tuple(inputs), outputs, node.attrs, node.body, node.span)
        self.nodes.append(made)
        return outputs

    def const(self, value: float | int | bool, dtype: DType) -> Value:
        """A scalar constant, rounded to `dtype`; equal constants are one value."""
        value = literal(value, dtype).value
        key = (repr(value), dtype.name)
        if key not in self._constants:
            self._constants[key] = self.emit("constant", value=value, dtype=dtype.name)
        return self._constants[key]

    def full(self, value: float | int | bool, type: TensorType) -> Value:
        """A constant of any shape."""
        element = self.const(value, type.dtype)
        if type == scalar(type.dtype):
            return element
        return self.emit("broadcast", element, shape=type.shape)

    @contextmanager
    def at(self, span: Span | None) -> Iterator[None]:
        """Give every node emitted inside this source position."""
        before, self.span = self.span, span or self.span
        try:
            yield
        finally:
            self.span = before

    def finish(self, results: Iterable[tuple[str, Value]]) -> Function:
        return Function(self.name, tuple(self.params), tuple(self.nodes), tuple(results))


def inline(b: Builder, function: Function, arguments: Sequence[Value]) -> dict[str, Value]:
    """Copy the body of `function` into `b` on `arguments`; gives its results by name."""
    mapping = dict(zip((p.value for p in function.params), arguments, strict=True))
    for node in function.nodes:
        outputs = b.copy(node, [mapping[v] for v in node.inputs])
        mapping.update(zip(node.outputs, outputs, strict=True))
    return {name: mapping[value] for name, value in function.results}
