"""The state of one elaboration: the graph under construction, limits, and where values came from.

`Context.emit` is the only way to add a node: it checks the number of elements, remembers the
origin of the result for later errors, and gives nodes of the standard library the place in the
user's file that called it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nncompiler.errors import Note, Span, UserError
from nncompiler.ir.graph import Attr, Builder, Value
from nncompiler.ir.types import BOOL, F32, F64, I32, MAX_ELEMENTS, U8, DType, TensorType
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.values import Argument, Instance, Module, Parameter, V
from nncompiler.record import dataclass, field

MAX_CALLS = 64
MAX_DEPTH = 800
MAX_STEPS = 40_000
MAX_NODES = 10_000
MAX_RANK = 8


@dataclass(slots=True)
class Record:
    """What the statements of a model declared, by kind, in order."""

    inputs: dict[str, Value] = field(default_factory=dict)
    targets: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    losses: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, Value] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)


@dataclass(slots=True)
class Loop:
    """The body of a scan: names it may not bind anew, where it assigned others, what it yields."""

    outside: frozenset[str]
    assigned: dict[str, Span] = field(default_factory=dict)
    yielded: tuple[Argument, ...] | None = None


@dataclass(slots=True)
class Frame:
    """The names of one body. `owner` is the instance it runs for; `record` is the model's only."""

    module: Module
    owner: Instance
    names: dict[str, V] = field(default_factory=dict)
    record: Record | None = None
    #: How often the body can bind each name at most.
    bindings: dict[str, int] = field(default_factory=dict)
    rounds: tuple[int, ...] = ()
    statement: s.Node | None = None
    target: str | None = None
    loop: Loop | None = None
    states: dict[str, Parameter] = field(default_factory=dict)


@dataclass(slots=True)
class Context:
    """One elaboration, with `training` on or off."""

    dtype: DType
    training: bool
    #: Runs the statements of a body; None when it ends without `return`.
    execute: Callable[[Context, Frame, Sequence[s.Statement]], V | None]
    #: The graph of the model, and the one that takes nodes now: of a scan's body, while in one.
    root: Builder = field(default_factory=lambda: Builder("model"))
    b: Builder = field(init=False)
    parameters: list[Parameter] = field(default_factory=list)
    states: list[Parameter] = field(default_factory=list)
    #: New values of states, for the next training step.
    updates: dict[Parameter, Value] = field(default_factory=dict)
    #: `seed` and `draws`, where something draws, and how many draws there are.
    header: dict[str, Value] = field(default_factory=dict)
    streams: int = 0
    origins: dict[Value, Span] = field(default_factory=dict)
    #: The call in the user's file that led into the standard library.
    site: Span | None = None
    calls: list[str] = field(default_factory=list)
    #: How often bodies can bind each name, by the identity of the definition.
    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    depth: int = 0
    steps: int = 0
    training_read: bool = False

    def __post_init__(self) -> None:
        self.b = self.root

    def float_type(self, name: str) -> DType:
        """The element type that `name` means in source."""
        return {"f32": self.dtype, "f64": F64, "i32": I32, "bool": BOOL, "u8": U8}[name]

    def step(self, span: Span) -> None:
        """Count one more expression or statement."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise self.too_large(span)

    def too_large(self, span: Span) -> UserError:
        return UserError("NN0220", f"this file expands to more than {MAX_NODES} operations",
                         self.site or span,
                         help="look for a fn or layer that calls others many times over")

    def emit(self, op: str, *inputs: Value, span: Span, **attrs: Attr) -> Value:
        """Append a node for the expression at `span`."""
        return self.build(span, lambda b: b.emit_many(op, inputs, attrs)[0])

    def build(self, span: Span, make: Callable[[Builder], Value]) -> Value:
        """Append what `make` emits; the operators' own complaints become the language's."""
        place = self.site or span
        if len(self.b.nodes) > MAX_NODES:
            raise self.too_large(span)
        with self.b.at(place):
            try:
                found = make(self.b)
            except UserError as e:
                raise UserError("NN0149", f"this operation does not fit its operands: {e.message}",
                                span) from None
        check_elements(found.shape, span)
        self.origins[found] = place
        return found

    def constant(self, value: float | int | bool, dtype: DType, span: Span) -> Value:
        """A scalar."""
        with self.b.at(self.site or span):
            return self.b.const(value, dtype)

    def current(self, parameter: Parameter) -> Value:
        """A parameter's value; a state's after the changes so far."""
        return self.updates.get(parameter, parameter.value)

    def declare(self, value: Value, span: Span) -> None:
        """Remember where an argument of the graph was declared."""
        self.origins[value] = span

    def origin(self, what: str, value: Value) -> Note:
        """Where `value` came from."""
        return Note(f"{what} is {value.type}", self.origins.get(value))

    def enter(self, span: Span) -> None:
        """Count an expression, and the nesting of expressions over all calls."""
        self.step(span)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UserError("NN0221", f"this nests more than {MAX_DEPTH} expressions deep",
                            self.site or span, help="bind parts of it to names")


def check_elements(shape: Sequence[int], span: Span) -> None:
    """Refuse a tensor that is too large to index."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise UserError("NN0163", f"a tensor of shape {list(shape)} has {math.prod(shape)} "
                        f"elements, but at most {MAX_ELEMENTS} are possible", span)
    if len(shape) > MAX_RANK:
        raise UserError("NN0163", f"a tensor of {len(shape)} axes; at most {MAX_RANK} are "
                        "possible", span)


def is_float32_range(value: float) -> bool:
    """Whether `value` rounds to a finite f32."""
    return abs(value) < 3.4028235677973366e38


def fits(value: float | int, dtype: DType) -> bool:
    """Whether a number can be a constant of `dtype`."""
    if dtype.is_float:
        return math.isfinite(value) and (dtype != F32 or is_float32_range(value))
    low, high = {"i32": (-(2**31), 2**31 - 1), "u8": (0, 255)}[dtype.name]
    return isinstance(value, int) and low <= value <= high


def tensor_type(dtype: DType, shape: Sequence[int]) -> TensorType:
    return TensorType(dtype, tuple(shape))
