"""Expressions as instructions: the SIMD value layer that every nest strategy shares.

An `Emitter` knows the current value of each axis. At most one axis runs over SIMD lanes: lane
``l`` of it stands for base + l. An expression that does not depend on that axis is computed once
as a scalar and spread where a vector needs it. Loads and stores take the cheapest form their
address allows: one scalar, one vector, or lane by lane. Of a last, partial vector only the first
`active` lanes touch memory; what the others compute is never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from nncompiler.codegen.address import At, Lanes, Offset, Place
from nncompiler.codegen.clip import Bounds
from nncompiler.codegen.primitive import apply_primitive, convert, reinterpret, zero
from nncompiler.codegen.share import Share
from nncompiler.codegen.target import Target
from nncompiler.codegen.writer import (
    Counter,
    Value,
    Writer,
    active_mask,
    literal,
    memory_type,
    register_type,
    suffix,
    vector_of,
)
from nncompiler.errors import CompilerBug
from nncompiler.ir.scalar import (
    Affine,
    Apply,
    Bitcast,
    Cast,
    Const,
    Expr,
    Index,
    Iota,
    Load,
    Ref,
)
from nncompiler.ir.types import BOOL, I32, DType


class Emitter:
    """Evaluates expressions at the current axis values; `expand` rewrites transcendental
    primitives.
    """

    def __init__(
        self,
        writer: Writer,
        target: Target,
        places: Mapping[str, Place],
        expand: Callable[[Expr], Expr],
    ) -> None:
        self.w = writer
        self.target = target
        self.places = dict(places)
        self.expand = expand
        self.axes: dict[str, At] = {}
        self.locals: dict[str, Value] = {}
        self.lanes: Lanes | None = None
        #: What this worker runs of the outermost loops; None where it runs them all.
        self.share: Share | None = None

    @contextmanager
    def scope(self, axes: Mapping[str, At], lanes: Lanes | None = None) -> Iterator[None]:
        """Set axes (and what runs over lanes); on leaving, forget them and the locals bound
        meanwhile.
        """
        saved = self.axes, self.locals, self.lanes
        self.axes, self.locals = {**self.axes, **axes}, dict(self.locals)
        self.lanes = lanes or self.lanes
        yield
        self.axes, self.locals, self.lanes = saved

    # --- expressions ---

    def values(self, exprs: Sequence[Expr]) -> list[Value]:
        """The values of several expressions, common parts computed once; parts are shared by
        identity.
        """
        memo: dict[int, Value] = {}
        roots = [self.expand(e) for e in exprs]
        return [self._value(e, memo) for e in roots]

    def value(self, expr: Expr) -> Value:
        return self.values([expr])[0]

    def _value(self, expr: Expr, memo: dict[int, Value]) -> Value:
        found = memo.get(id(expr))
        if found is None:
            found = memo[id(expr)] = self._compute(expr, memo)
        return found

    def _compute(self, expr: Expr, memo: dict[int, Value]) -> Value:
        match expr:
            case Const():
                return literal(expr)
            case Ref(name):
                if name not in self.locals:
                    raise CompilerBug("NN0591", f"local '{name}' is used before it is bound")
                return self.locals[name]
            case Iota(index, dtype):
                return self._iota(index, dtype)
            case Load():
                return self._load(expr, memo)
            case Apply(op, args):
                return apply_primitive(
                    self.w, op, [self._value(a, memo) for a in args], self.target.fma
                )
            case Cast(arg, dtype):
                return convert(self.w, self._value(arg, memo), dtype)
            case Bitcast(arg, dtype):
                return reinterpret(self.w, self._value(arg, memo), dtype)

    def _iota(self, index: Affine, dtype: DType) -> Value:
        offset = Offset()
        self._add_affine(offset, index, 1)
        base = self._scalar_sum(offset)
        if dtype.bytes < 8:
            base = self._narrow(base, register_type(dtype))
        scalar = Value(base, dtype)
        if not offset.stride:
            return scalar
        assert self.lanes is not None
        return self._ramp(scalar, offset.stride)

    def _ramp(self, base: Value, step: int) -> Value:
        """base, base + step, base + 2 * step, ... over the lanes."""
        assert self.lanes is not None
        count = self.lanes.count
        steps = ", ".join(f"{base.element} {step * i}" for i in range(count))
        wide = self.w.splat(base, count)
        return self.w.value(f"add {wide.typed}, <{steps}>", base.dtype, count)

    def integer(self, index: Affine) -> Counter:
        """The value of an index that does not run over lanes, as i64."""
        offset = Offset()
        self._add_affine(offset, index, 1)
        text = self._scalar_sum(offset)
        return text if text.startswith("%") else int(text)

    def clamp(self, extent: int, bounds: Bounds) -> tuple[Counter, Counter]:
        """Where a loop over 0 .. `extent` starts and stops within `bounds`."""
        start: Counter = 0
        stop: Counter = extent
        for form in bounds.low:
            start = self._extreme("smax", start, self.integer(form))
        for form in bounds.high:
            stop = self._extreme("smin", stop, self.integer(form))
        return start, stop

    def _extreme(self, name: str, a: Counter, b: Counter) -> Counter:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b) if name == "smax" else min(a, b)
        return self.w.intrinsic(f"llvm.{name}.i64", "i64", [("i64", str(a)), ("i64", str(b))])

    def _narrow(self, text: str, to: str) -> str:
        return self.w.assign(f"trunc i64 {text} to {to}") if text.startswith("%") else text

    # --- addresses ---

    def _add_affine(self, offset: Offset, index: Affine, factor: int) -> None:
        offset.fixed += index.const * factor
        for axis, k in index.terms:
            at = self.axes.get(axis)
            if at is None:
                raise CompilerBug("NN0591", f"axis '{axis}' is used outside its loop")
            offset.fixed += at.plus * k * factor
            if at.base:
                offset.terms.append((at.base, k * factor))
            if self.lanes is not None and axis == self.lanes.axis:
                offset.stride += k * factor

    def _address(self, place: Place, index: Sequence[Index], memo: dict[int, Value]) -> Offset:
        if len(index) != len(place.strides):
            message = f"{len(index)} indices for a buffer of rank {len(place.strides)}"
            raise CompilerBug("NN0591", message)
        offset = Offset()
        for i, stride in zip(index, place.strides, strict=True):
            if isinstance(i, Affine):
                self._add_affine(offset, i, stride)
                continue
            at = self._value(i, memo)
            if at.lanes:
                part = apply_primitive(
                    self.w, "mul", [at, literal(Const(stride, at.dtype))], False
                )
                so_far = offset.gathered
                offset.gathered = (
                    apply_primitive(self.w, "add", [so_far, part], False) if so_far else part
                )
            elif at.text.startswith("%"):
                extend = "zext" if at.dtype.kind == "uint" else "sext"
                small = at.dtype.bytes < 8
                wide = self.w.assign(f"{extend} {at.typed} to i64") if small else at.text
                offset.terms.append((wide, stride))
            else:
                offset.fixed += int(at.text) * stride
        return offset

    def _terms(self, offset: Offset) -> list[str]:
        """The products that the lanes share. Those of inner loops come last, so that the sum of
        the others stands outside of these.
        """
        factors: dict[str, int] = {}
        for text, k in offset.terms:
            factors[text] = factors.get(text, 0) + k
        return [
            text if factors[text] == 1 else self.w.assign(f"mul nsw i64 {text}, {factors[text]}")
            for text in sorted(factors, key=self.w.depth)
        ]

    def _scalar_sum(self, offset: Offset) -> str:
        """The part all lanes share, as i64."""
        total = ""
        for part in self._terms(offset):
            total = self.w.assign(f"add nsw i64 {total}, {part}") if total else part
        if not total:
            return str(offset.fixed)
        return self.w.assign(f"add nsw i64 {total}, {offset.fixed}") if offset.fixed else total

    def _pointer(self, place: Place, offset: Offset) -> str:
        """The address of lane 0, without `gathered`."""
        element, pointer = memory_type(place.dtype), place.pointer
        for part in self._terms(offset):
            pointer = self.w.assign(f"getelementptr {element}, ptr {pointer}, i64 {part}")
        displacement = place.displacement + offset.fixed * place.dtype.bytes
        return self._step(pointer, "i8", displacement)

    def _step(self, pointer: str, element: str, count: int) -> str:
        if not count:
            return pointer
        return self.w.assign(f"getelementptr {element}, ptr {pointer}, i64 {count}")

    def _lane_pointers(
        self, place: Place, offset: Offset, guard: Value | None
    ) -> Iterator[tuple[int, str]]:
        """Lane and address of every active lane. Where the guard fails the address is the buffer's
        first element.
        """
        assert self.lanes is not None
        element = memory_type(place.dtype)
        if offset.gathered is None and guard is None:
            base = self._pointer(place, offset)
            for i in range(self.lanes.active):
                yield i, self._step(base, element, i * offset.stride)
            return
        shared = Value(self._narrow(self._scalar_sum(offset), "i32"), I32)
        index = self._ramp(shared, offset.stride)
        if offset.gathered is not None:
            index = apply_primitive(
                self.w, "add", [index, convert(self.w, offset.gathered, I32)], False
            )
        if guard is not None:
            index = self.w.choose(guard, index, literal(Const(0, I32)))
        base = self._step(place.pointer, "i8", place.displacement)
        for i in range(self.lanes.active):
            at = self.w.assign(f"sext i32 {self.w.lane(index, i).text} to i64")
            yield i, self.w.assign(f"getelementptr {element}, ptr {base}, i64 {at}")

    # --- memory ---

    def _load(self, load: Load, memo: dict[int, Value]) -> Value:
        place = self.places[load.buffer]
        if place.dtype != load.dtype:
            raise CompilerBug("NN0591", f"a load of {load.dtype} from a buffer of {place.dtype}")
        guard = None if load.guard is None else self._value(load.guard, memo)
        fill = literal(load.fill or zero(load.dtype))
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

    def prefetch(self, load: Load) -> None:
        """Ask for the cache line of an element, which may lie outside the buffer."""
        place = self.places[load.buffer]
        pointer = ("ptr", self._pointer(place, self._address(place, load.index, {})))
        hints = [("i32", "0"), ("i32", "3"), ("i32", "1")]
        self.w.intrinsic("llvm.prefetch.p0", "void", [pointer, *hints])

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
        pointer, mask = self._pointer(place, offset), self._mask(guard)
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
        return self.w.assign(text, not place.read_only)

    def _from_memory(self, text: str, dtype: DType, lanes: int) -> Value:
        if dtype != BOOL:
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
        if mask is None:
            self._write(stored, place, pointer)
            return
        element = memory_type(place.dtype)
        wide = vector_of(element, value.lanes)
        args = [(wide, stored.removeprefix(wide).strip()), ("ptr", pointer)]
        args += [("i32", str(place.dtype.bytes)), (mask.type, mask.text)]
        self.w.intrinsic(f"llvm.masked.store.{suffix(element, value.lanes)}.p0", "void", args)

    def _write(self, typed: str, place: Place, pointer: str) -> None:
        self.w.line(f"store {typed}, ptr {pointer}, align {place.dtype.bytes}")
