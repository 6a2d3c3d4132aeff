"""Loads and stores, in the cheapest form that their address allows: one scalar, one vector, or
lane by lane.

Of a last, partial vector only the first `active` lanes touch memory; what the others compute is
never seen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from nncompiler.codegen.instructions.address import Offset, Place
from nncompiler.codegen.instructions.addresses import Addresses
from nncompiler.codegen.instructions.certain import undecided
from nncompiler.codegen.instructions.primitive import apply_primitive, zero
from nncompiler.codegen.instructions.value import (
    Value,
    active_mask,
    literal,
    memory_type,
    suffix,
    vector_of,
)
from nncompiler.errors import CompilerBug
from nncompiler.ir.scalar import Expr, Index, Load
from nncompiler.ir.types import BOOL, DType

_PAGE = 4096


class Memory(Addresses):
    """Reads and writes elements of buffers."""

    @abstractmethod
    def value(self, expr: Expr) -> Value:
        """The value of an expression at the current values of axes."""

    def _load(self, load: Load, memo: dict[int, Value]) -> Value:
        place = self.places[load.buffer]
        if place.dtype != load.dtype:
            raise CompilerBug("NN0591", f"a load of {load.dtype} from a buffer of {place.dtype}")
        fill = literal(load.fill or zero(load.dtype))
        conditions = undecided(load.guard, self.axes, self.lanes)
        if conditions is None:
            return fill
        guard = self._all(conditions, memo)
        offset = self._address(place, load.index, memo)
        if self.lanes is None or (offset.gathered is None and not offset.stride):
            return self._load_one(place, offset, guard, fill)
        if offset.gathered is None and offset.stride == 1 and self._maskable(load.dtype, guard):
            return self._load_vector(place, offset, guard, fill)
        lanes = self.lanes
        if guard is not None:
            guard = self.w.splat(guard, lanes.count)
        wide = vector_of(memory_type(load.dtype), lanes.count)
        text = "zeroinitializer"
        for i, pointer in self._lane_pointers(place, offset, guard):
            one = self._read(place, 0, pointer)
            text = self.w.assign(
                f"insertelement {wide} {text}, {memory_type(load.dtype)} {one}, i64 {i}"
            )
        found = self._from_memory(text, load.dtype, lanes.count)
        return found if guard is None else self.w.choose(guard, found, fill)

    def prefetch(self, load: Load, write: bool = False, level: int = 1) -> None:
        """Ask for the cache line of an element, which may lie outside the buffer, in the first or
        the second level of cache.
        """
        place = self.places[load.buffer]
        pointer = ("ptr", self._pointer(place, self._address(place, load.index, {})))
        hints = [("i32", str(int(write))), ("i32", str(4 - level)), ("i32", "1")]
        self.w.intrinsic("llvm.prefetch.p0", "void", [pointer, *hints])

    def _all(self, conditions: Sequence[Expr], memo: dict[int, Value]) -> Value | None:
        values = [self._value(c, memo) for c in conditions]
        for n in range(1, len(values)):
            values[n] = apply_primitive(self.w, "and", values[n - 1 : n + 1], False)
        return values[-1] if values else None

    def _maskable(self, dtype: DType, guard: Value | None) -> bool:
        """Is a masked vector access one instruction? Constant masks cost no branches on any
        target.
        """
        wide = self.target.vector_bytes > 16 and dtype.bytes >= 4
        return guard is None or self.target.masks or wide

    def _load_one(self, place: Place, offset: Offset, guard: Value | None, fill: Value) -> Value:
        """One element; a failing guard moves the address to the buffer's first element, which is
        always there.
        """
        if guard is None:
            one = self._read(place, 0, self._pointer(place, offset))
            return self._from_memory(one, place.dtype, 0)
        any_lane = guard.text
        if guard.lanes:
            bits = self.w.assign(f"bitcast {guard.typed} to i{guard.lanes}")
            any_lane = self.w.assign(f"icmp ne i{guard.lanes} {bits}, 0")
        at = self.w.assign(f"select i1 {any_lane}, i64 {self._scalar_sum(offset)}, i64 0")
        base = self._step(place.pointer, "i8", place.displacement)
        pointer = self.w.assign(f"getelementptr {memory_type(place.dtype)}, ptr {base}, i64 {at}")
        found = self._from_memory(self._read(place, 0, pointer), place.dtype, 0)
        return self.w.choose(guard, found, fill)

    def _load_vector(
        self, place: Place, offset: Offset, guard: Value | None, fill: Value
    ) -> Value:
        assert self.lanes is not None
        count, dtype = self.lanes.count, place.dtype
        pointer, mask = self._guarded_pointer(place, offset, guard), self._mask(guard)
        if mask is None:
            return self._from_memory(self._read(place, count, pointer), dtype, count)
        element = memory_type(dtype)
        wide = vector_of(element, count)
        number = {"true": "1", "false": "0"}.get(fill.text, fill.text)
        args = [("ptr", pointer), ("i32", str(dtype.bytes)), (mask.type, mask.text)]
        args.append((wide, f"splat ({element} {number})"))
        name = f"llvm.masked.load.{suffix(element, count)}.p0"
        text = self.w.intrinsic(name, wide, args, not place.read_only)
        return self._from_memory(text, dtype, count)

    def _guarded_pointer(self, place: Place, offset: Offset, guard: Value | None) -> str:
        """The address of lane 0. Where a guard that all lanes share fails, nothing is read, but a
        processor takes hundreds of cycles to find that out on a page that is not there, such as
        the one in front of the arena: the address is then in the buffer's first page.
        """
        if guard is None or guard.lanes or not guard.text.startswith("%"):
            return self._pointer(place, offset)
        inside = self.w.depth(guard.text)
        element, start = memory_type(place.dtype), place.pointer
        start = self._step(start, "i8", place.displacement)
        found, behind = place.pointer, list[str]()
        for part in self._terms(offset):
            if self.w.depth(part) > inside:
                behind.append(part)
            else:
                found = self.w.assign(f"getelementptr {element}, ptr {found}, i64 {part}")
        # Loads beside each other share the choice.
        pages, rest = divmod(offset.fixed * place.dtype.bytes, _PAGE)
        found = self._step(found, "i8", place.displacement + pages * _PAGE)
        found = self.w.assign(f"select i1 {guard.text}, ptr {found}, ptr {start}")
        for part in behind:
            found = self.w.assign(f"getelementptr {element}, ptr {found}, i64 {part}")
        return self._step(found, "i8", rest)

    def _mask(self, guard: Value | None) -> Value | None:
        """The lanes that may touch memory; None for all."""
        assert self.lanes is not None
        lanes = self.lanes
        tail = active_mask(lanes.active, lanes.count) if lanes.active < lanes.count else None
        if guard is None:
            return tail
        guard = self.w.splat(guard, lanes.count)
        return guard if tail is None else apply_primitive(self.w, "and", [guard, tail], False)

    def _read(self, place: Place, lanes: int, pointer: str) -> str:
        wide = vector_of(memory_type(place.dtype), lanes)
        text = f"load {wide}, ptr {pointer}, align {place.dtype.bytes}"
        # From one block to another LLVM takes 48 lanes apart: loaded again, they stay vectors.
        return self.w.assign(text, not place.read_only or lanes & (lanes - 1) > 0)

    def _from_memory(self, text: str, dtype: DType, lanes: int) -> Value:
        if dtype.kind != "bool":
            return Value(text, dtype, lanes)
        zeros = "zeroinitializer" if lanes else "0"
        return self.w.value(f"icmp ne {vector_of('i8', lanes)} {text}, {zeros}", BOOL, lanes)

    def _to_memory(self, value: Value) -> str:
        """The stored form of a value, with its type."""
        if value.dtype != BOOL:
            return value.typed
        wide = vector_of("i8", value.lanes)
        return f"{wide} {self.w.assign(f'zext {value.typed} to {wide}')}"

    def store(self, buffer: str, index: Sequence[Index], expr: Expr) -> None:
        """Write `expr` at `index`. Lanes write in order, so the last one stays where several meet.
        """
        place = self.places[buffer]
        if place.dtype != expr.dtype:
            raise CompilerBug("NN0591", f"a store of {expr.dtype} to a buffer of {place.dtype}")
        value = self.value(expr)
        offset = self._address(place, index, {})
        lanes = self.lanes
        if lanes is None or (offset.gathered is None and not offset.stride):
            last = self.w.lane(value, lanes.active - 1) if lanes else value
            self._write(self._to_memory(last), place, self._pointer(place, offset))
            return
        value = self.w.splat(value, lanes.count)
        if offset.gathered is None and offset.stride == 1:
            self._store_vector(place, value, self._pointer(place, offset))
            return
        for i, pointer in self._lane_pointers(place, offset, None):
            self._write(self._to_memory(self.w.lane(value, i)), place, pointer)

    def _store_vector(self, place: Place, value: Value, pointer: str) -> None:
        stored, mask = self._to_memory(value), self._mask(None)
        element = memory_type(place.dtype)
        wide = vector_of(element, value.lanes)
        if mask is None:
            self._write(stored, place, pointer)
        elif self.target.masks:
            args = [(wide, stored.removeprefix(wide).strip()), ("ptr", pointer)]
            args += [("i32", str(place.dtype.bytes)), (mask.type, mask.text)]
            self.w.intrinsic(f"llvm.masked.store.{suffix(element, value.lanes)}.p0", "void", args)
        else:
            self._store_parts(place, stored, pointer)

    def _store_parts(self, place: Place, stored: str, pointer: str) -> None:
        """The active lanes by powers of two: a store under a mask takes 12 cycles and more on
        processors without registers for masks.
        """
        assert self.lanes is not None
        element, first, active = memory_type(place.dtype), 0, self.lanes.active
        while first < active:
            size = 1 << ((active - first).bit_length() - 1)
            picks = ", ".join(f"i32 {n}" for n in range(first, first + size))
            other = f"{vector_of(element, self.lanes.count)} poison"
            part = self.w.assign(f"shufflevector {stored}, {other}, <{size} x i32> <{picks}>")
            to = self._step(pointer, element, first)
            self._write(f"<{size} x {element}> {part}", place, to)
            first += size

    def _write(self, typed: str, place: Place, pointer: str) -> None:
        self.w.line(f"store {typed}, ptr {pointer}, align {place.dtype.bytes}")
