"""Expressions as instructions: the SIMD value layer that every nest strategy shares.

An expression that does not depend on the axis over lanes is computed once as a scalar and spread
where a vector needs it. `addresses` says where elements are, `memory` reads and writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nncompiler.codegen.instructions.address import Offset, Place
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.memory import Memory
from nncompiler.codegen.instructions.primitive import apply_primitive, convert, reinterpret
from nncompiler.codegen.instructions.share import Share
from nncompiler.codegen.instructions.value import Value, literal, register_type
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.codegen.target import Target
from nncompiler.errors import CompilerBug
from nncompiler.ir.scalar import Affine, Apply, Bitcast, Cast, Const, Expr, Iota, Load, Ref
from nncompiler.ir.types import DType


class Emitter(Memory):
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
        super().__init__(writer, target, places)
        self.expand = expand
        #: What this worker runs of the outermost loops; None where it runs them all.
        self.share: Share | None = None

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

    def integer(self, index: Affine) -> Counter:
        """The value of an index that does not run over lanes, as i64."""
        offset = Offset()
        self._add_affine(offset, index, 1)
        text = self._scalar_sum(offset)
        return text if text.startswith("%") else int(text)
