"""The syntax tree of a `.nn` file: frozen, printable, every node with the span it came from.

Two trees are equal when they say the same: spans do not count. Names that are introduced (targets,
parameters, labels) are `Ident` nodes, so that an error can point at the name alone. A span begins
at the node's first character, a bracket round it included; its width ends with the first line.
"""

from __future__ import annotations

from typing import TypeAlias

from nncompiler.lang.node import Ident as Ident
from nncompiler.lang.node import Node as Node
from nncompiler.lang.node import children as children
from nncompiler.lang.node import dump as dump
from nncompiler.record import dataclass

# Expressions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A name used as a value: ``x``."""

    text: str


@dataclass(frozen=True, slots=True)
class Int(Node):
    """``10_000``."""

    value: int


@dataclass(frozen=True, slots=True)
class Float(Node):
    """``1e-3``; equal values are equal whatever their spelling."""

    value: float


@dataclass(frozen=True, slots=True)
class Bool(Node):
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True, slots=True)
class String(Node):
    """``"text"``; nothing in it is an escape."""

    value: str


@dataclass(frozen=True, slots=True)
class ListExpr(Node):
    """``[a, b]``."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """``-x`` or ``not x``."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """``a op b``, op one of ``+ - * / @ ** == != < <= > >= and or``."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """An argument of a call; `name` is None for a positional one. Positional ones come first."""

    name: Ident | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Call(Node):
    """``callee(arguments)``; ``dense(3)(x)`` is a call of a call."""

    callee: Expr
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Dots(Node):
    """``...``: any number of axes, in a shape or an index."""


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """``start:stop:step`` in an index, each part optional."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True, slots=True)
class Index(Node):
    """``value[items]``."""

    value: Expr
    items: tuple[Expr | Slice | Dots, ...]


@dataclass(frozen=True, slots=True)
class Attribute(Node):
    """``value.name``: a parameter or inner instance of a layer instance."""

    value: Expr
    name: Ident


@dataclass(frozen=True, slots=True)
class Named(Node):
    """``value as name``: names the layer instance that `value` makes (or makes and applies).

    `value` is a `Name` or a chain of `Call`s on one. Binds tighter than every operator.
    """

    value: Expr
    name: Ident


@dataclass(frozen=True, slots=True)
class Pipe(Node):
    """``value |> stage |> stage``; a stage is a `Name`, a chain of `Call`s on one or a `Named`."""

    value: Expr
    stages: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Carry(Node):
    """``name = initial`` in the head of a scan."""

    name: Ident
    initial: Expr


@dataclass(frozen=True, slots=True)
class Scan(Node):
    """``scan variable over sequence axis axis carry a = e, b = f { body }``."""

    variable: Ident
    sequence: Expr
    axis: Expr
    carries: tuple[Carry, ...]
    body: tuple[Statement, ...]


Expr: TypeAlias = (
    "Name | Int | Float | Bool | String | ListExpr | Unary | Binary | Call | Index | Attribute"
    " | Named | Pipe | Scan"
)


# Types ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TensorType(Node):
    """``f32[..., n]``; no dimensions at all is a scalar. `dtype` is one of `DTYPES`."""

    dtype: Ident
    dims: tuple[Expr | Dots, ...]


DTYPES = ("f32", "f64", "i32", "bool", "u8")


# Statements -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Input(Node):
    """``input name : type``."""

    name: Ident
    type: TensorType


@dataclass(frozen=True, slots=True)
class Target(Node):
    """``target name : type``."""

    name: Ident
    type: TensorType


@dataclass(frozen=True, slots=True)
class Param(Node):
    """``param name : type = initial``."""

    name: Ident
    type: TensorType
    initial: Expr | None


@dataclass(frozen=True, slots=True)
class State(Node):
    """``state name : type = initial``."""

    name: Ident
    type: TensorType
    initial: Expr | None


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """``a, b = value``."""

    targets: tuple[Ident, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Output(Node):
    """``output name = value``; without a value, a name bound before."""

    name: Ident
    value: Expr | None


@dataclass(frozen=True, slots=True)
class Loss(Node):
    """``loss value`` or ``loss name = value``."""

    name: Ident | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Metric(Node):
    """``metric name = value``."""

    name: Ident
    value: Expr


@dataclass(frozen=True, slots=True)
class Branch(Node):
    """``if condition { body }``, the first or a later one of an `If`."""

    condition: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class If(Node):
    """``if c { } else if d { } else { }``; `orelse` is None without a last ``else``."""

    branches: tuple[Branch, ...]
    orelse: tuple[Statement, ...] | None


@dataclass(frozen=True, slots=True)
class For(Node):
    """``for variable in start..stop { body }``."""

    variable: Ident
    start: Expr
    stop: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Return(Node):
    """``return a, b``."""

    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Yield(Node):
    """``yield a, b`` in the body of a scan."""

    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Minimize(Node):
    """``minimize loss over prefix``; the prefix may be dotted."""

    loss: Ident
    prefix: Ident


Statement: TypeAlias = (
    "Input | Target | Param | State | Assign | Output | Loss | Metric | If | For | Return"
    " | Yield | Minimize"
)


# Files ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """``name : type = default`` in a header; type and default are optional."""

    name: Ident
    type: TensorType | None
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Import(Node):
    """``import "path"``."""

    path: String


@dataclass(frozen=True, slots=True)
class Model(Node):
    """``model name(parameters) { body }``."""

    name: Ident
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Train(Node):
    """``train { body }``; the body holds `Assign` and `Minimize` only."""

    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Fn(Node):
    """``fn name(parameters) { body }``."""

    name: Ident
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Layer(Node):
    """``layer name(parameters)(inputs) { body }``."""

    name: Ident
    parameters: tuple[Parameter, ...]
    inputs: tuple[Parameter, ...]
    body: tuple[Statement, ...]


Item: TypeAlias = "Import | Model | Train | Fn | Layer"


@dataclass(frozen=True, slots=True)
class File(Node):
    """A whole file: imports first, at most one model, at most one train block after it."""

    items: tuple[Item, ...]
