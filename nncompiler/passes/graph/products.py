"""Products of a function: what makes and reads their factors, and how they are built again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.ops.common import constant_of
from nncompiler.record import dataclass, field, replace

#: Factors of a product that are looked at together.
_MOST = 64


@dataclass(slots=True)
class Facts:
    """Of a function: what makes each value, which nodes and results read it (twice, if both of
    its inputs are this value), and its level: how many kernels at least lie between it and the
    inputs. The latter two by name, whose hash is there already. `zeros` were found to be zero."""

    nodes: dict[Value, Node] = field(default_factory=dict)
    readers: dict[str, list[Node | None]] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)
    zeros: set[Value] = field(default_factory=set)

    @classmethod
    def of(cls, function: Function) -> Facts:
        facts = cls(function.definitions())
        for node in function.nodes:
            level = 0
            for v in node.inputs:
                facts.readers.setdefault(v.name, []).append(node)
                level = max(level, facts.levels.get(v.name, 0))
            level += lookup(node.op).kind not in ("map", "view")
            for v in node.outputs:
                facts.levels[v.name] = level
        for _, v in function.results:
            facts.readers.setdefault(v.name, []).append(None)
        return facts

    def parts(self, value: Value) -> tuple[float, tuple[Value, ...]] | None:
        """Number and values whose product `value` is by its node alone."""
        node = self.nodes.get(value)
        if node is None or not value.dtype.is_float:
            return None
        return lookup(node.op).factors(node)

    def level(self, value: Value) -> int:
        return self.levels.get(value.name, 0)

    def alone(self, value: Value) -> bool:
        return len(self.readers.get(value.name, ())) <= 1

    def factors(
        self, value: Value, into: Callable[[Value], bool],
        known: dict[str, Product] | None = None,
    ) -> Product:  # fmt: skip
        """Number and values whose product `value` is, looking `into` factors as well while the
        values are few: a square of a square has four, and so on. `known` are those found so far.
        """
        known = {} if known is None else known
        if value.name in known:
            return known[value.name]
        found = self.parts(value)
        assert found is not None
        number, values = 1.0 * found[0], list[Value]()
        numbers = int(abs(number) != 1)
        for v in found[1]:
            constant = constant_of(v, self.nodes)
            if isinstance(constant, float):
                number, numbers = number * constant, numbers + 1
                continue
            inner = self.factors(v, into, known) if self.parts(v) and into(v) else None
            if inner is not None and len(values) + len(inner.values) <= _MOST:
                number, numbers = number * inner.number, numbers + inner.numbers
                values += inner.values
            else:
                values.append(v)
        product = known[value.name] = Product(number, tuple(values), numbers)
        return product


@dataclass(frozen=True, slots=True)
class Product:
    """`number` is the product of so many `numbers`."""

    number: float
    values: tuple[Value, ...]
    numbers: int

    @property
    def sane(self) -> bool:
        """Whether the number is none that only rounding made: 0, infinite or tiny."""
        return math.isfinite(self.number) and abs(self.number) > 1e-30

    def without(self, value: Value) -> Product:
        return replace(self, values=tuple(v for v in self.values if v != value))


def times(b: Builder, values: Sequence[Value]) -> Value:
    """The product of the values, from the first one on."""
    found = values[0]
    for v in values[1:]:
        found = b.emit("mul", found, v)
    return found


def scaled(b: Builder, number: float, values: Sequence[Value]) -> Value:
    """The product of the values, the first of which meets the number."""
    if abs(number) == 1:
        found = times(b, values)
        return b.emit("neg", found) if number == -1 else found
    return times(b, [b.emit("mul", values[0], b.const(number, values[0].dtype)), *values[1:]])
