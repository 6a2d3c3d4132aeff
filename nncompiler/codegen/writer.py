"""LLVM text under construction: typed values, fresh names, and loops with carried values.

A `Value` is one scalar (`lanes` 0) or a SIMD vector; booleans are i1 in registers and one byte in
memory. `Writer` appends instructions to one function body and tracks the current block, so that
structured loops can write their phis.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nncompiler.ir.scalar import Const
from nncompiler.ir.types import BOOL, DType

_TYPES = {
    "f32": "float", "f64": "double", "i32": "i32", "i64": "i64", "u8": "i8", "u32": "i32",
    "u64": "i64", "bool": "i1",
}  # fmt: skip
_SUFFIX = {"float": "f32", "double": "f64"}


def vector_of(element: str, lanes: int) -> str:
    return f"<{lanes} x {element}>" if lanes else element


def suffix(element: str, lanes: int) -> str:
    """How an overloaded intrinsic spells a type: ``v8f32``."""
    name = _SUFFIX.get(element, element)
    return f"v{lanes}{name}" if lanes else name


def register_type(dtype: DType) -> str:
    return _TYPES[dtype.name]


def memory_type(dtype: DType) -> str:
    return "i8" if dtype == BOOL else _TYPES[dtype.name]


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA name or literal with its type."""

    text: str
    dtype: DType
    lanes: int = 0

    @property
    def element(self) -> str:
        return register_type(self.dtype)

    @property
    def type(self) -> str:
        return vector_of(self.element, self.lanes)

    @property
    def typed(self) -> str:
        return f"{self.type} {self.text}"


def literal(value: Const, lanes: int = 0) -> Value:
    """A constant of one scalar or with all lanes equal."""
    dtype = value.dtype
    match dtype.kind:
        case "float":
            bits = struct.pack(">d", dtype.numpy.type(value.value))
            text = f"0x{bits.hex().upper()}"
        case "bool":
            text = "true" if value.value else "false"
        case _:
            text = str(int(value.value))
    return Value(f"splat ({register_type(dtype)} {text})" if lanes else text, dtype, lanes)


def active_mask(active: int, lanes: int) -> Value:
    """The constant mask whose first `active` lanes are on."""
    bits = ", ".join("i1 true" if i < active else "i1 false" for i in range(lanes))
    return Value(f"<{bits}>", BOOL, lanes)


Counter = int | str
Body = Callable[[Counter, list[Value]], list[Value]]


class Writer:
    """Appends to the body of one function."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self.allocations: list[str] = []
        self.block = "entry"
        self._count = 0

    def fresh(self, stem: str = "v") -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def line(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def assign(self, instruction: str) -> str:
        """Append ``%name = instruction`` and return the name."""
        name = f"%{self.fresh()}"
        self.line(f"{name} = {instruction}")
        return name

    def times(self, number: Counter, factor: int) -> Counter:
        """The product of numbers that are not negative."""
        if isinstance(number, int):
            return number * factor
        return self.assign(f"mul nuw nsw i64 {number}, {factor}")

    def scratch(self, size: int) -> str:
        """The address of `size` bytes of stack, aligned for any vector."""
        name = f"%{self.fresh('scratch')}"
        self.allocations.append(f"  {name} = alloca [{size} x i8], align 64")
        return name

    def value(self, instruction: str, dtype: DType, lanes: int) -> Value:
        return Value(self.assign(instruction), dtype, lanes)

    def intrinsic(self, name: str, result: str, args: Sequence[tuple[str, str]]) -> str:
        """Call an LLVM intrinsic with (type, text) arguments; ``void`` returns an empty name."""
        types = ", ".join(t for t, _ in args)
        self.declarations.add(f"declare {result} @{name}({types})")
        call = f"call {result} @{name}({', '.join(f'{t} {x}' for t, x in args)})"
        if result == "void":
            self.line(call)
            return ""
        return self.assign(call)

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

    def loop(
        self, start: int, stop: int, step: int, carried: Sequence[Value], body: Body
    ) -> list[Value]:
        """Run ``body(counter, carried)`` for start, start + step, ... below stop; one iteration is
        straight-line.
        """
        trips = max(0, -(-(stop - start) // step))
        if trips <= 1:
            return body(start, list(carried)) if trips else list(carried)
        head, after = self.fresh("head"), self.fresh("after")
        self.line(f"br label %{head}")
        last = str(start + trips * step)
        return self._repeat(head, after, (str(start), last, step), carried, body)[1]

    def span(
        self, start: Counter, stop: Counter, carried: Sequence[Value], body: Body
    ) -> list[Value]:
        """`loop` with steps of 1 between bounds that may be known at run time only; `start` is not
        negative.
        """
        if isinstance(start, int) and isinstance(stop, int):
            return self.loop(start, stop, 1, carried, body)
        head, after, before = self.fresh("head"), self.fresh("after"), self.block
        some = self.assign(f"icmp slt i64 {start}, {stop}")
        self.line(f"br i1 {some}, label %{head}, label %{after}")
        latch, results = self._repeat(head, after, (str(start), str(stop), 1), carried, body)
        found = []
        for first, last in zip(carried, results, strict=True):
            incoming = f"[ {first.text}, %{before} ], [ {last.text}, %{latch} ]"
            joined = self.assign(f"phi {first.type} {incoming}")
            found.append(Value(joined, first.dtype, first.lanes))
        return found

    def _repeat(
        self, head: str, after: str, steps: tuple[str, str, int], carried: Sequence[Value],
        body: Body,
    ) -> tuple[str, list[Value]]:  # fmt: skip
        """Blocks from `head` to `after` that run at least once, and the current block before."""
        start, stop, step = steps
        before = self.block
        self.enter(head)
        counter = f"%{self.fresh('i')}"
        phis = [Value(f"%{self.fresh('phi')}", c.dtype, c.lanes) for c in carried]
        hole = len(self.lines)
        self.lines += [""] * (1 + len(phis))
        results = body(counter, phis)
        following = self.assign(f"add nuw nsw i64 {counter}, {step}")
        latch = self.block
        self.lines[hole] = (
            f"  {counter} = phi i64 [ {start}, %{before} ], [ {following}, %{latch} ]"
        )
        for i, (phi, first, last) in enumerate(zip(phis, carried, results, strict=True), hole + 1):
            incoming = f"[ {first.text}, %{before} ], [ {last.text}, %{latch} ]"
            self.lines[i] = f"  {phi.text} = phi {phi.type} {incoming}"
        more = self.assign(f"icmp ult i64 {following}, {stop}")
        self.line(f"br i1 {more}, label %{head}, label %{after}")
        self.enter(after)
        return latch, results

    def when(self, at: Counter, start: Counter, stop: Counter, body: Body) -> None:
        """Run ``body`` if start <= at < stop; nothing is asked where that is known."""
        inside = "true"
        for word, bound in (("sge", start), ("slt", stop)):
            test = self.assign(f"icmp {word} i64 {at}, {bound}")
            inside = self.assign(f"and i1 {inside}, {test}")
        then, after = self.fresh("then"), self.fresh("after")
        self.line(f"br i1 {inside}, label %{then}, label %{after}")
        self.enter(then)
        body(at, [])
        self.line(f"br label %{after}")
        self.enter(after)

    def enter(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label
