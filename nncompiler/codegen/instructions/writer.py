"""Instructions on typed values, written where `Blocks` puts them."""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.codegen.instructions.blocks import Blocks
from nncompiler.codegen.instructions.value import Value, suffix, vector_of
from nncompiler.ir.types import DType


class Writer(Blocks):
    """Writes single instructions and intrinsics."""

    def value(self, instruction: str, dtype: DType, lanes: int, fixed: bool = False) -> Value:
        return Value(self.assign(instruction, fixed), dtype, lanes)

    def sum(self, a: Value, b: Value) -> Value:
        """Floats added lane by lane."""
        return self.value(f"fadd {a.typed}, {b.text}", a.dtype, a.lanes)

    def overloaded(
        self, name: str, args: Sequence[Value], extra: tuple[tuple[str, str], ...] = ()
    ) -> Value:
        """An intrinsic whose result and arguments all have the first argument's type."""
        first = args[0]
        full = f"llvm.{name}.{suffix(first.element, first.lanes)}"
        text = self.intrinsic(full, first.type, [*((a.type, a.text) for a in args), *extra])
        return Value(text, first.dtype, first.lanes)

    def splat(self, value: Value, lanes: int) -> Value:
        """`value` in every lane; a vector of that width is returned as it is."""
        if value.lanes == lanes:
            return value
        assert value.lanes == 0, "a vector cannot be widened"
        if not value.text.startswith("%"):
            return Value(f"splat ({value.typed})", value.dtype, lanes)
        wide = vector_of(value.element, lanes)
        one = self.assign(f"insertelement {wide} poison, {value.typed}, i64 0")
        text = self.assign(
            f"shufflevector {wide} {one}, {wide} poison, <{lanes} x i32> zeroinitializer"
        )
        return Value(text, value.dtype, lanes)

    def lane(self, value: Value, index: int) -> Value:
        """One lane of a vector; a scalar is every lane of itself."""
        if not value.lanes:
            return value
        return self.value(f"extractelement {value.typed}, i64 {index}", value.dtype, 0)

    def shuffle(self, a: Value, b: Value | None, lanes: Sequence[int]) -> Value:
        """Lanes of `a`, then of `b`, by number."""
        second = b.typed if b else f"{a.type} poison"
        picks = ", ".join(f"i32 {i}" for i in lanes)
        if len(lanes) == 1:
            return self.lane(a, lanes[0])
        return self.value(
            f"shufflevector {a.typed}, {second}, <{len(lanes)} x i32> <{picks}>",
            a.dtype,
            len(lanes),
        )

    def choose(self, condition: Value, yes: Value, no: Value) -> Value:
        """Lane-wise (or whole) select; a scalar condition chooses between vectors too."""
        lanes = max(condition.lanes, yes.lanes, no.lanes)
        if lanes:
            yes, no = self.splat(yes, lanes), self.splat(no, lanes)
        return self.value(f"select {condition.typed}, {yes.typed}, {no.typed}", yes.dtype, lanes)
