"""What an expression can be worth while a file is elaborated.

Numbers, truth values and strings are Python's own and known at compile time; a tensor is the graph
value that will hold it; the rest are the classes below. `describe` names a value in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from nncompiler.errors import Span
from nncompiler.ir.graph import Value
from nncompiler.ir.types import TensorType
from nncompiler.lang import syntax as s
from nncompiler.record import dataclass, field

if TYPE_CHECKING:
    from nncompiler.lang.elaborate.context import Context


@dataclass(frozen=True, slots=True)
class Tuple:
    """The values of a list literal, or of a `return` with several."""

    items: tuple[V, ...]
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """The default of an optional argument that was left out."""


NOTHING = Nothing()


@dataclass(frozen=True, slots=True)
class Module:
    """A namespace of definitions: the user's file, or a file of the standard library."""

    definitions: Mapping[str, s.Fn | s.Layer] = field(hash=False)
    stdlib: bool
    imported: Mapping[str, Definition] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Definition:
    """A fn or a layer, with the namespace its body sees."""

    item: s.Fn | s.Layer
    module: Module

    @property
    def name(self) -> str:
        return self.item.name.text

    @property
    def is_layer(self) -> bool:
        return isinstance(self.item, s.Layer)


@dataclass(frozen=True, slots=True)
class Initial:
    """An initialiser with its settings: ``normal(0, 0.1)``."""

    kind: str
    settings: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """An optimizer or schedule of the train block."""

    family: str
    kind: str
    settings: tuple[tuple[str, float], ...]


#: Where a body makes an instance: the node, and the rounds of the loops round it.
Key: TypeAlias = "tuple[int, tuple[int, ...]]"


@dataclass(eq=False, slots=True)
class Parameter:
    """A parameter or state as declared: `value` stands for it in the graph under construction."""

    name: str
    type: TensorType
    value: Value
    initial: Initial
    span: Span
    where: Span | None


@dataclass(eq=False, slots=True)
class Instance:
    """A layer with its arguments and, once applied, its parameters and states.

    It is remembered by its owner (the instance whose body made it) under a key, so that applying
    the owner again finds the same inner instances. `explicit` is the name given by the user.
    """

    layer: Definition | None
    span: Span
    where: Span | None
    owner: Instance | None = None
    in_fn: bool = False
    arguments: dict[str, Argument] = field(default_factory=dict)
    explicit: str | None = None
    rounds: tuple[int, ...] = ()
    #: The statement it was made in and that statement's target, where that may give the name.
    statement: Key | None = None
    target: str | None = None
    parameters: dict[str, Parameter] = field(default_factory=dict)
    children: dict[Key, Instance] = field(default_factory=dict)
    applied: bool = False

    @property
    def has_parameters(self) -> bool:
        return bool(self.parameters) or any(c.has_parameters for c in self.children.values())


@dataclass(frozen=True, slots=True)
class Argument:
    """A value and where it was written."""

    value: V
    span: Span


#: A builtin's argument that must be given.
REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function written in Python; a parameter ``*name`` takes any number of arguments."""

    name: str
    parameters: tuple[tuple[str, Any], ...]
    doc: str
    example: str
    run: Callable[[Context, Arguments], V] = field(repr=False)
    family: str = ""

    @property
    def signature(self) -> str:
        parts = []
        for name, default in self.parameters:
            if name.startswith("*"):
                parts.append(f"{name[1:]}...")
            elif default is REQUIRED:
                parts.append(name)
            elif default is NOTHING:
                parts.append(f"[{name}]")
            else:
                shown = str(default).lower() if isinstance(default, bool) else f"{default}"
                parts.append(f"{name}={shown}")
        return f"{self.name}({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a call of a builtin, bound to its parameters."""

    function: str
    span: Span
    bound: Mapping[str, Argument]
    rest: tuple[Argument, ...] = ()

    def __getitem__(self, name: str) -> Argument:
        return self.bound[name]

    def given(self, name: str) -> bool:
        return self.bound[name].value is not NOTHING


V: TypeAlias = (
    "int | float | bool | str | Value | Tuple | Nothing | Definition | Instance | Initial"
    " | Settings | Builtin"
)
Number: TypeAlias = "int | float | bool"


def quoted(span: Span, otherwise: str = "x") -> str:
    """What is written at `span`, for a suggestion; `otherwise` where it is long or not at hand."""
    if span.source is None or span.width > 30:
        return otherwise
    return span.source.line(span.line)[span.column - 1 : span.column - 1 + span.width]


def is_number(value: V) -> bool:
    """An int or float known at compile time (a truth value is not a number)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_static(value: V) -> bool:
    """A number or truth value known at compile time."""
    return isinstance(value, (int, float))


def describe(value: V) -> str:
    """What `value` is, for "expected X, but found Y"."""
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"the number {value:.6g}" if isinstance(value, float) else f"the number {value}"
        case str():
            return "a string"
        case Value():
            return f"a tensor {value.type}"
        case Tuple(items=items, literal=literal):
            return f"a list of {len(items)}" if literal else f"{len(items)} values"
        case Definition():
            return f"the {'layer' if value.is_layer else 'fn'} `{value.name}`"
        case Instance(layer=Definition() as layer):
            return f"an instance of the layer `{layer.name}`"
        case Builtin():
            return f"the function `{value.name}`"
        case Initial(kind=kind):
            return f"the initialiser `{kind}`"
        case Settings(family=family, kind=kind):
            return f"the {family} `{kind}`"
        case _:
            return "nothing"
