"""The gradient of a strided operand by phases: no zeros are inserted, no product with 0 is formed.

With y[h] = sum over r of x[2 h + r] w[r], the elements of dx at even places see only even r, those
at odd places only odd r: dx[2 q + p] = sum over r' of dy[q - r'] w[2 r' + p]. Each phase p is a
contraction without a stride on every second weight; the phases are then interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nncompiler.ir.graph import Builder, Value
from nncompiler.ir.ops.contract_spec import ContractSpec, make_spec
from nncompiler.ir.scalar import Affine
from nncompiler.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class Terms:
    """What a contraction sums: products of `operands`, over axes of these `extents`."""

    operands: Sequence[Value]
    spec: ContractSpec
    extents: Mapping[str, int]


#: The cotangent of an operand, by its number, from that of the result.
Gradient = Callable[[Builder, Terms, int, Value], Value]


@dataclass(frozen=True, slots=True)
class Strided:
    """Dimension `dim` of the operand is ``stride * outer + step * inner + const``."""

    dim: int
    outer: str
    stride: int
    inner: str | None
    step: int
    const: int


def find_strided(spec: ContractSpec, k: int) -> Strided | None:
    """A dimension of operand `k` that can be split into phases, or None."""
    forms = spec.operands[k]
    for j, form in enumerate(forms):
        big = [(a, c) for a, c in form.terms if a in spec.output and c > 1]
        rest = [(a, c) for a, c in form.terms if (a, c) not in big]
        if len(big) != 1 or len(rest) > 1:
            continue
        (outer, stride), inner = big[0], rest[0] if rest else None
        if any(outer in f.axes for i, f in enumerate(forms) if i != j):
            continue
        if any(outer in f.axes for m in _others(spec, k) for f in m):
            continue
        if inner is None:
            return Strided(j, outer, stride, None, 0, form.const)
        name, step = inner
        if (
            name not in spec.output
            and step % stride
            and _inverse(step, stride)
            and _single(spec, k, j, name)
        ):
            return Strided(j, outer, stride, name, step, form.const)
    return None


def phase_gradient(
    b: Builder, terms: Terms, k: int, d: Value, s: Strided, gradient: Gradient
) -> Value:
    """The cotangent of operand `k`: a contraction per phase of dimension `s.dim`, interleaved."""
    target = terms.operands[k]
    rows = -(-target.shape[s.dim] // s.stride)
    shape = (*target.shape[: s.dim], rows, *target.shape[s.dim + 1 :])
    phases = []
    for p in range(s.stride):
        phase = _phase(b, terms, k, s, p, rows)
        if phase is None:
            found = b.full(0.0, target.type.with_shape(shape))
        else:
            found = gradient(b, phase, k, d)
        split = (*shape[: s.dim + 1], 1, *shape[s.dim + 1 :])
        phases.append(b.emit("reshape", found, shape=split))
    joined = b.emit("concat", *phases, axis=s.dim + 1)
    whole = (*shape[: s.dim], rows * s.stride, *shape[s.dim + 1 :])
    dense = b.emit("reshape", joined, shape=whole)
    if whole == target.shape:
        return dense
    none = (0,) * target.type.rank
    return b.emit("slice", dense, start=none, stop=target.shape, step=(1,) * target.type.rank)


def _phase(
    b: Builder, terms: Terms, k: int, s: Strided, p: int, rows: int
) -> Terms | None:
    """Those that have the `rows` elements at ``stride * q + p``; None where no weight reaches
    them."""
    operands, spec, extents = terms.operands, terms.spec, terms.extents
    values, sizes, first = list(operands), dict(extents), 0
    form = Affine.axis(s.outer)
    if s.inner is None:
        if (p - s.const) % s.stride:
            return None
    else:
        inverse = _inverse(s.step, s.stride)
        assert inverse is not None
        first = (p - s.const) * inverse % s.stride
        if first >= extents[s.inner]:
            return None
        sizes[s.inner] = len(range(first, extents[s.inner], s.stride))
        values = [
            v if j == k else _every(b, v, m, s, first)
            for j, (v, m) in enumerate(zip(operands, spec.operands, strict=True))
        ]
        form = form + Affine.axis(s.inner) * s.step
    form = form + (s.step * first + s.const - p) // s.stride
    target, dims = operands[k], spec.operands[k]
    shape = (*target.shape[: s.dim], rows, *target.shape[s.dim + 1 :])
    values[k] = replace(target, type=target.type.with_shape(shape))
    maps = list(spec.operands)
    maps[k] = (*dims[: s.dim], form, *dims[s.dim + 1 :])
    return Terms(values, make_spec(tuple(maps), spec.output, sizes), sizes)


def _every(b: Builder, value: Value, dims: Sequence[Affine], s: Strided, first: int) -> Value:
    """Every `stride`-th element of an operand along the inner axis, from `first` on."""
    for j, form in enumerate(dims):
        if form.single == s.inner:
            rank = value.type.rank
            start = tuple(first if i == j else 0 for i in range(rank))
            step = tuple(s.stride if i == j else 1 for i in range(rank))
            value = b.emit("slice", value, start=start, stop=value.shape, step=step)
    return value


def _others(spec: ContractSpec, k: int) -> list[tuple[Affine, ...]]:
    return [m for j, m in enumerate(spec.operands) if j != k]


def _single(spec: ContractSpec, k: int, dim: int, axis: str) -> bool:
    """Whether an axis occurs elsewhere only alone, and in another operand."""
    own = [f for i, f in enumerate(spec.operands[k]) if i != dim]
    uses = [f for m in _others(spec, k) for f in m if axis in f.axes]
    return (
        not any(axis in f.axes for f in own) and bool(uses) and all(f.single == axis for f in uses)
    )


def _inverse(step: int, modulus: int) -> int | None:
    """The number that, times `step`, is 1 modulo `modulus`."""
    return next((x for x in range(1, modulus) if x * step % modulus == 1), None)
