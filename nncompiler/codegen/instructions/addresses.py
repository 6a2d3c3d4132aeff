"""Where elements are: indices at the current values of axes, as instructions.

At most one axis runs over SIMD lanes: lane ``l`` of it stands for base + l.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from nncompiler.codegen.instructions.address import At, Lanes, Offset, Place
from nncompiler.codegen.instructions.primitive import apply_primitive, convert
from nncompiler.codegen.instructions.value import Value, literal, memory_type
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.codegen.target import Target
from nncompiler.errors import CompilerBug
from nncompiler.ir.scalar import Affine, Const, Expr, Index
from nncompiler.ir.types import I32


class Addresses(ABC):
    """Knows the place of every buffer and the current value of each axis."""

    def __init__(self, writer: Writer, target: Target, places: Mapping[str, Place]) -> None:
        self.w = writer
        self.target = target
        self.places = dict(places)
        self.axes: dict[str, At] = {}
        self.locals: dict[str, Value] = {}
        self.lanes: Lanes | None = None

    @abstractmethod
    def _value(self, expr: Expr, memo: dict[int, Value]) -> Value:
        """The value of an expression; what is in `memo` is not computed again."""

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

    def _ramp(self, base: Value, step: int) -> Value:
        """base, base + step, base + 2 * step, ... over the lanes."""
        assert self.lanes is not None
        count = self.lanes.count
        steps = ", ".join(f"{base.element} {step * i}" for i in range(count))
        wide = self.w.splat(base, count)
        return self.w.value(f"add {wide.typed}, <{steps}>", base.dtype, count)

    def _narrow(self, text: str, to: str) -> str:
        return self.w.assign(f"trunc i64 {text} to {to}") if text.startswith("%") else text
