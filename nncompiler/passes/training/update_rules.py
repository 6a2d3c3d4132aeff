"""Optimizers as graph: for each kind, its slots and how one parameter is updated.

Notation: w parameter, g gradient, a learning rate of this step. Conventions (where eps goes,
momentum without dampening, bias correction) are those of PyTorch, so that loss curves can be
compared step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nncompiler.ir.graph import Builder, Value
from nncompiler.ir.train import OptimizerSpec, TrainSpec
from nncompiler.ir.types import F64, DType
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """Scalars of the step: the learning rate, and Adam's corrections 1 / (1 - beta ** t)."""

    rate: Value
    correction1: Value | None = None
    correction2: Value | None = None


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Infix-like helpers over a builder, for formulas that read like the paper."""

    b: Builder
    dtype: DType

    def number(self, x: float | Value) -> Value:
        return x if isinstance(x, Value) else self.b.const(x, self.dtype)

    def add(self, x: float | Value, y: float | Value) -> Value:
        return self.b.emit("add", self.number(x), self.number(y))

    def sub(self, x: float | Value, y: float | Value) -> Value:
        return self.b.emit("sub", self.number(x), self.number(y))

    def mul(self, x: float | Value, y: float | Value) -> Value:
        return self.b.emit("mul", self.number(x), self.number(y))

    def div(self, x: float | Value, y: float | Value) -> Value:
        return self.b.emit("div", self.number(x), self.number(y))

    def min(self, x: float | Value, y: float | Value) -> Value:
        return self.b.emit("min", self.number(x), self.number(y))

    def max(self, x: float | Value, y: float | Value) -> Value:
        return self.b.emit("max", self.number(x), self.number(y))

    def pow(self, x: float | Value, y: float | Value) -> Value:
        return self.b.emit("pow", self.number(x), self.number(y))

    def unary(self, op: str, x: Value) -> Value:
        return self.b.emit(op, x)


Slots = Sequence[Value]
Update = Callable[
    [Arithmetic, OptimizerSpec, Rates, Value, Value, Slots], tuple[Value, tuple[Value, ...]]
]


def _sgd(
    a: Arithmetic, spec: OptimizerSpec, r: Rates, w: Value, g: Value, slots: Slots
) -> tuple[Value, tuple[Value, ...]]:
    """w -= a g"""
    return a.sub(w, a.mul(r.rate, g)), ()


def _momentum(
    a: Arithmetic, spec: OptimizerSpec, r: Rates, w: Value, g: Value, slots: Slots
) -> tuple[Value, tuple[Value, ...]]:
    """m = mu m + g;  w -= a m  (Polyak 1964)"""
    m = a.add(a.mul(spec.get("momentum"), slots[0]), g)
    return a.sub(w, a.mul(r.rate, m)), (m,)


def _nesterov(
    a: Arithmetic, spec: OptimizerSpec, r: Rates, w: Value, g: Value, slots: Slots
) -> tuple[Value, tuple[Value, ...]]:
    """m = mu m + g;  w -= a (g + mu m)  (Sutskever et al. 2013)"""
    mu = spec.get("momentum")
    m = a.add(a.mul(mu, slots[0]), g)
    return a.sub(w, a.mul(r.rate, a.add(g, a.mul(mu, m)))), (m,)


def _scaled_step(
    a: Arithmetic, spec: OptimizerSpec, r: Rates, w: Value, g: Value, s: Value
) -> Value:
    root = a.add(a.unary("sqrt", s), spec.get("eps"))
    return a.sub(w, a.div(a.mul(r.rate, g), root))


def _adagrad(
    a: Arithmetic, spec: OptimizerSpec, r: Rates, w: Value, g: Value, slots: Slots
) -> tuple[Value, tuple[Value, ...]]:
    """s += g²;  w -= a g / (sqrt(s) + eps)  (Duchi et al. 2011)"""
    s = a.add(slots[0], a.mul(g, g))
    return _scaled_step(a, spec, r, w, g, s), (s,)


def _rmsprop(
    a: Arithmetic, spec: OptimizerSpec, r: Rates, w: Value, g: Value, slots: Slots
) -> tuple[Value, tuple[Value, ...]]:
    """s = rho s + (1 - rho) g²;  w -= a g / (sqrt(s) + eps)  (Hinton 2012)"""
    rho = spec.get("rho")
    s = a.add(a.mul(rho, slots[0]), a.mul(a.mul(1.0 - rho, g), g))
    return _scaled_step(a, spec, r, w, g, s), (s,)


def _adam(
    a: Arithmetic, spec: OptimizerSpec, r: Rates, w: Value, g: Value, slots: Slots
) -> tuple[Value, tuple[Value, ...]]:
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²;  w -= a m^ / (sqrt(v^) + eps)  (Kingma & Ba
    2015)

    AdamW (Loshchilov & Hutter 2019) first shrinks w by a * weight_decay.
    """
    b1, b2 = spec.get("beta1"), spec.get("beta2")
    assert r.correction1 is not None and r.correction2 is not None
    m = a.add(a.mul(b1, slots[0]), a.mul(1.0 - b1, g))
    v = a.add(a.mul(b2, slots[1]), a.mul(a.mul(1.0 - b2, g), g))
    root = a.add(a.unary("sqrt", a.mul(v, r.correction2)), spec.get("eps"))
    if decay := spec.get("weight_decay"):
        w = a.sub(w, a.mul(a.mul(r.rate, decay), w))
    return a.sub(w, a.div(a.mul(a.mul(r.rate, r.correction1), m), root)), (m, v)


#: kind -> (names of its slots, its rule)
RULES: dict[str, tuple[tuple[str, ...], Update]] = {
    "sgd": ((), _sgd),
    "momentum": (("m",), _momentum),
    "nesterov": (("m",), _nesterov),
    "adagrad": (("s",), _adagrad),
    "rmsprop": (("s",), _rmsprop),
    "adam": (("m", "v"), _adam),
    "adamw": (("m", "v"), _adam),
}


def adam_corrections(
    b: Builder, spec: OptimizerSpec, step: Value, dtype: DType
) -> tuple[Value, Value]:
    """1 / (1 - beta ** t) for both betas, in f64: in f32 the difference loses half its digits at
    t = 1."""
    wide = Arithmetic(b, F64)
    t = wide.add(b.emit("cast", step, dtype="f64"), 1.0)
    found = [
        wide.div(1.0, wide.sub(1.0, wide.pow(spec.get(beta), t))) for beta in ("beta1", "beta2")
    ]
    first, second = (b.emit("cast", v, dtype=dtype.name) for v in found)
    return first, second


@dataclass(frozen=True, slots=True)
class Regularised:
    """Gradients after penalties and clipping, in that order."""

    spec: TrainSpec
    a: Arithmetic

    def __call__(self, weights: Sequence[Value], gradients: Sequence[Value]) -> list[Value]:
        found = [self._penalised(w, g) for w, g in zip(weights, gradients, strict=True)]
        if limit := self.spec.clip_value:
            found = [self.a.min(self.a.max(g, -limit), limit) for g in found]
        if limit := self.spec.clip_norm:
            scale = self._norm_scale(found, limit)
            found = [self.a.mul(g, scale) for g in found]
        return found

    def _penalised(self, w: Value, g: Value) -> Value:
        if w.type.rank >= 2:
            if self.spec.l2:
                g = self.a.add(g, self.a.mul(self.spec.l2, w))
            if self.spec.l1:
                g = self.a.add(g, self.a.mul(self.spec.l1, self.a.unary("sign", w)))
        return g

    def _norm_scale(self, gradients: Sequence[Value], limit: float) -> Value:
        """min(1, limit / norm over all gradients)  (Pascanu et al. 2013)"""
        total: Value | None = None
        for g in gradients:
            axes = tuple(range(g.type.rank))
            square = self.a.mul(g, g)
            part = (
                self.a.b.emit("reduce_sum", square, axes=axes, keepdims=False) if axes else square
            )
            total = part if total is None else self.a.add(total, part)
        assert total is not None
        return self.a.min(1.0, self.a.div(limit, self.a.add(self.a.unary("sqrt", total), 1e-6)))
