"""What an operator is: one class that holds everything the compiler knows about it.

Subclass `Operator`, give it a `name`, and write its shape rule (`infer`), its NumPy reference,
its gradient, its lowering to scalar expressions, and `samples` for the tests. The class is
registered when it is defined; a missing rule fails right then. No other place in the compiler
names an operator in order to treat it specially.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from nncompiler.errors import CompilerBug, UserError, nearest
from nncompiler.ir.graph import Attr, Builder, Node, Value
from nncompiler.ir.kernel import Stmt
from nncompiler.ir.lowering import Lowering, Memory
from nncompiler.ir.scalar import Affine, Expr, Index, apply, const
from nncompiler.ir.types import I32, Array, TensorType
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """A test case: input types, attributes, and the range (low, high) from which random inputs
    are drawn."""

    inputs: tuple[TensorType, ...]
    attrs: tuple[tuple[str, Attr], ...] = ()
    low: float = -2.0
    high: float = 2.0


#: Pairs (input number, input dimension, output dimension) that run over the same axis at the same
#: index.
DimMap = tuple[tuple[int, int, int], ...]
#: Positions along each dimension, in steps upwards.
Part = tuple[range, ...]
#: One for each input.
Shapes = tuple[tuple[int, ...], ...]


class Operator(ABC):
    """An operator of the graph. `kind` says how it is fused:

    `map`: each output element is a scalar expression of input elements; `fold`: it reduces over
    new axes;
    `contract`: a sum of products; `view`: the same bytes under another shape; `region`: it owns a
    body; `nest`: it writes its own loops, which nothing joins.
    """

    name: ClassVar[str]
    kind: ClassVar[str] = "map"
    #: False is the explicit statement that gradients do not flow through this operator.
    differentiable: ClassVar[bool] = True
    #: A region that runs more than once: passes enter its body, and it becomes a loop of kernels.
    loops: ClassVar[bool] = False
    #: Cheap enough to be computed again wherever it is needed (moves data or counts, no
    #: arithmetic to speak of).
    cheap: ClassVar[bool] = False
    #: A fold whose result has the factors of its operand that do not vary along `axes`.
    linear: ClassVar[bool] = False
    #: Groups of inputs: where all of one group are multiplied by a number, so is the result.
    proportional: ClassVar[tuple[tuple[int, ...], ...]] = ()
    #: Its elements follow from a few numbers: better computed again than kept in memory.
    generates: ClassVar[bool] = False
    #: Even for its whole result it may leave the ends of an operand unread (`reach`).
    skips: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if inspect.isabstract(cls) or "name" not in cls.__dict__:
            return
        if cls.differentiable and cls.gradient is Operator.gradient:
            raise CompilerBug(
                "NN0393", f"operator '{cls.name}' has no gradient and does not say so"
            )
        own = cls.nest is not Operator.nest if cls.kind == "nest" else cls.kind == "region"
        if not own and cls.lower is Operator.lower:
            raise CompilerBug("NN0393", f"operator '{cls.name}' has no lowering")
        missing = [
            m for m in ("infer", "reference", "samples") if getattr(cls, m) is getattr(Operator, m)
        ]
        if missing:
            raise CompilerBug("NN0393", f"operator '{cls.name}' lacks {', '.join(missing)}")
        if cls.name in REGISTRY:
            raise CompilerBug("NN0393", f"operator '{cls.name}' is defined twice")
        REGISTRY[cls.name] = cls()

    @abstractmethod
    def infer(self, node: Node) -> tuple[TensorType, ...]:
        """The result types; `UserError` NN0310 (by `expect`) when the inputs or attributes do not
        fit."""

    @abstractmethod
    def reference(self, node: Node, *inputs: Array) -> Array | tuple[Array, ...]:
        """The meaning, in NumPy, written independently of `lower`. Computes in the dtype of its
        inputs."""

    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """Cases for the registry-driven tests, awkward shapes included."""

    def gradient(
        self, b: Builder, node: Node, cotangents: tuple[Value | None, ...]
    ) -> Sequence[Value | None]:
        """Cotangents of the inputs, before unbroadcasting; None where there is none."""
        raise CompilerBug("NN0393", f"operator '{self.name}' is not differentiable")

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        """The element of the (single) result at `index`, in terms of the inputs' elements."""
        raise CompilerBug("NN0393", f"operator '{self.name}' cannot be lowered by itself")

    def nest(self, node: Node, memory: Memory) -> tuple[Stmt, ...]:
        """The whole kernel, for what no expression of one element says well."""
        raise CompilerBug("NN0393", f"operator '{self.name}' has no loops of its own")

    def simplify(self, b: Builder, node: Node, definitions: dict[Value, Node]) -> Value | None:
        """An equal value by fewer means, or None. `definitions` are of the function under
        construction."""
        return None

    def by_constants(
        self, b: Builder, node: Node, definitions: dict[Value, Node], constants: set[Value]
    ) -> Value | None:
        """An equal value of which more follows from `constants` alone, or None; `definitions` are
        of the function under construction."""
        return None

    def affine(
        self, b: Builder, node: Node, k: int
    ) -> tuple[Value | None, Value | None] | None:
        """(scale, shift) where the result is ``input k * scale + shift``, None for 1 and for 0;
        None where it is not of that form."""
        return None

    def permutation(self, node: Node) -> tuple[int, ...] | None:
        """Where the dimensions of the result are in the operand, if their order is all that
        changes."""
        return None

    def permuted(self, b: Builder, node: Node, perm: tuple[int, ...]) -> Value | None:
        """The result with its dimensions in another order, if the operator can make it so."""
        return None

    def factors(self, node: Node) -> tuple[float, tuple[Value, ...]] | None:
        """A number and inputs whose product the result is; None where it is no product."""
        return None

    def vanishes(
        self, x: Value, axes: Sequence[int], definitions: dict[Value, Node]
    ) -> bool:
        """Of a fold that is linear: whether it makes zero of `x`."""
        return False

    def quotient(self, node: Node) -> tuple[Value, Value] | None:
        """The dividend and the divisor, of floats; None where the result is no quotient."""
        return None

    def choice(self, node: Node) -> tuple[Value, Value, Value] | None:
        """A condition, the result where it holds, and the result where not; None where there is
        no choice."""
        return None

    def dims(self, node: Node) -> DimMap:
        """Which input dimensions run with which output dimensions; what is not listed does not
        line up."""
        return ()

    def reach(self, node: Node, shape: tuple[int, ...]) -> Shapes | None:
        """Of each operand, the shape from its first element on that the part of `shape` from the
        result's first element on is made of; None where that part alone cannot be made."""
        return None

    def narrowed(
        self, b: Builder, node: Node, inputs: Sequence[Value], shape: tuple[int, ...]
    ) -> Value:
        """The part of `shape` of the result, or more, from inputs of which there is at least what
        `reach` says."""
        raise CompilerBug("NN0393", f"operator '{self.name}' makes no part of its result alone")

    def along(self, node: Node, axis: int) -> tuple[int | None, ...] | None:
        """Of each operand the dimension that is left out with `axis` of the result, None for one
        that is read as before; None where the same node does not make one place of that axis."""
        return None

    def leaf_only(self, node: Node) -> bool:
        """True where an input is read at shifted, gathered or repeated places, so its producer
        must be in memory."""
        return False

    def origin(self, node: Node, k: int, part: Part) -> Part | None:
        """Where the elements of operand `k` are that stand, unchanged, at `part` of the result;
        None where there are none, or no such part holds just them."""
        return None

    def index_bounds(self, node: Node) -> tuple[tuple[int, int], ...]:
        """(input number, extent) for inputs whose elements are indices and must lie in ``0 <= x <
        extent``."""
        return ()

    def operations(self, node: Node) -> int:
        """Multiply-adds (contractions) or elements computed (others), for the report."""
        return sum(v.type.size for v in node.outputs)

    def attribute_text(self, node: Node) -> str | None:
        """A special way to print the attributes (between braces), else None; `parse_attributes`
        reads it back."""
        return None

    def parse_attributes(self, text: str) -> dict[str, Attr] | None:
        return None


REGISTRY: dict[str, Operator] = {}


def lookup(name: str) -> Operator:
    """The operator called `name`; loads the operator library on first use. `UserError` NN0311
    when there is none."""
    found = REGISTRY.get(name)
    if found is None and not REGISTRY:
        import nncompiler.ir.ops  # noqa: F401  (defines and registers every operator)

        found = REGISTRY.get(name)
    if found is None:
        close = nearest(name, REGISTRY)
        raise UserError(
            "NN0311",
            f"no operator is called '{name}'",
            help=f"did you mean '{close}'?" if close else None,
        )
    return found


def expect(condition: bool, message: str) -> None:
    """Raise the shape error of an operator (`UserError` NN0310) unless `condition` holds."""
    if not condition:
        raise UserError("NN0310", message)


def expect_inputs(node: Node, count: int) -> None:
    found = len(node.inputs)
    if found != count:
        takes = f"'{node.op}' takes {count} operand{'s' * (count != 1)}"
        raise UserError("NN0310", f"{takes}, but {found} were given")


def broadcast_index(index: Sequence[Index], shape: tuple[int, ...]) -> tuple[Index, ...]:
    """The index into an operand of `shape` that is broadcast (NumPy's rule) into the space
    `index` runs over."""
    tail = tuple(index)[len(index) - len(shape) :]
    return tuple(Affine() if n == 1 else i for i, n in zip(tail, shape, strict=True))


def broadcast_dims(shape: tuple[int, ...], out: tuple[int, ...], k: int) -> DimMap:
    """The `dims` of operand `k` of `shape` broadcast into `out`."""
    lead = len(out) - len(shape)
    return tuple((k, d, d + lead) for d, n in enumerate(shape) if n == out[d + lead])


def index_expr(index: Index) -> Expr:
    """An index as an i32 scalar expression."""
    from nncompiler.ir.scalar import Iota

    return Iota(index) if isinstance(index, Affine) else index


def added(a: Index, b: Index) -> Index:
    """The sum of two indices."""
    if isinstance(a, Affine) and isinstance(b, Affine):
        return a + b
    return apply("add", index_expr(a), index_expr(b))


def scaled(index: Index, factor: int, offset: int) -> Index:
    """``index * factor + offset``."""
    if isinstance(index, Affine):
        return index * factor + offset
    return apply("add", apply("mul", index, const(factor, I32)), const(offset, I32))


def fill_shape(array: Array, shape: tuple[int, ...]) -> Array:
    """A broadcast copy, for references."""
    return np.array(
        np.broadcast_to(array, shape), order="C"
    )  # ascontiguousarray makes scalars rank 1
