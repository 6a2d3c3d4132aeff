"""`contract`: sums of products over affine index maps: matrix products, convolutions, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompiler.errors import Limitation
from nncompiler.ir.graph import Attr, Builder, Node, Value
from nncompiler.ir.op import DimMap, Lowering, Operator, Sample, expect, index_expr, scaled
from nncompiler.ir.ops.common import Cotangents, Definitions, Grads, only, producer, sample
from nncompiler.ir.ops.contract_spec import (
    ContractSpec,
    make_spec,
    matmul_of_batches,
    matmul_spec,
    parse_affine,
    parse_spec,
)  # fmt: skip
from nncompiler.ir.ops.elementwise import common_dtype
from nncompiler.ir.ops.join import conjunction, guarded, within
from nncompiler.ir.scalar import Affine, Expr, Index, apply, const
from nncompiler.ir.types import F64, I32, Array, TensorType

__all__ = ["Contract", "ContractSpec", "emit_matmul", "make_spec", "matmul_spec", "parse_affine", "parse_spec", "spec_of"]


def spec_of(node: Node) -> ContractSpec:
    return parse_spec(str(node.attr("spec")))


def _extents(node: Node) -> dict[str, int]:
    return spec_of(node).extents([v.shape for v in node.inputs])


class Contract(Operator):
    """``contract %a, %b {i j k: i k, k j -> i j}``: for every point of the result's axes the sum, over the others, of
    the product of the operands' elements. An element outside an operand counts as 0: that is padding.
    """

    name = "contract"
    kind = "contract"

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        spec = spec_of(node)
        expect(
            len(node.inputs) == len(spec.operands),
            f"'contract' expected {len(spec.operands)} operands for '{spec}', but {len(node.inputs)} were given",
        )
        dtype, extents = common_dtype(node, node.inputs), _extents(node)
        expect(dtype.kind != "bool", "'contract' does not take bool operands")
        return (TensorType(dtype, tuple(extents[a] for a in spec.output)),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        spec, extents = spec_of(node), _extents(node)
        letter = {a: k for k, a in enumerate(spec.axes)}
        arguments: list[Any] = []
        for x, dims in zip(inputs, spec.operands, strict=True):
            axes = [form.single for form in dims]
            if None in axes:
                axes = list(dict.fromkeys(a for form in dims for a in form.axes))
                x = _gathered(x, dims, [str(a) for a in axes], extents)
            arguments += [x, [letter[str(a)] for a in axes]]
        with np.errstate(all="ignore"):
            found = np.einsum(*arguments, [letter[a] for a in spec.output], optimize=len(inputs) > 1)
        return np.ascontiguousarray(found).reshape([extents[a] for a in spec.output]).astype(inputs[0].dtype)

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[str, list[tuple[int, ...]]]] = [
            ("i j k: i k, k j -> i j", [(17, 33), (33, 15)]),
            ("i j k: i k, k j -> i j", [(0, 3), (3, 2)]),
            ("i j k: i k, k j -> i j", [(2, 0), (0, 3)]),
            ("i j k: k i, j k -> i j", [(3, 16), (31, 3)]),
            ("b i j k: b i k, b j k -> b i j", [(2, 3, 5), (2, 4, 5)]),
            ("k: k, k ->", [(33,), (33,)]),
            ("j i: i, j -> j i", [(3,), (16,)]),
            ("i j k l: i k l, k j -> i j", [(2, 3, 4), (3, 5)]),
            ("j i: i j -> j", [(3, 4)]),
            ("i j k: i k, k j, i -> i j", [(2, 3), (3, 4), (2,)]),
            ("n h=9 c r: n h+r-1 c, r -> n h c", [(2, 9, 3), (3,)]),
            ("n h=5 o c r: n 2*h+r-1 c, r c o -> n h o", [(2, 9, 3), (3, 3, 2)]),
            ("h=5 r: 3-r+h, r -> h", [(7,), (3,)]),
        ]
        found = [sample(*shapes, attrs={"spec": text}) for text, shapes in rows]
        found.append(sample((3, 4), (4, 5), dtype=F64, attrs={"spec": rows[0][0]}))
        return [*found, sample((3, 4), (4, 5), dtype=I32, attrs={"spec": rows[0][0]})]

    # --- gradient --------------------------------------------------------------------------------

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        """d a = contract(dy, the other operands), the index maps permuted."""
        d = only(cotangents)
        return [self._operand_gradient(b, node, k, d) for k in range(len(node.inputs))]

    def _operand_gradient(self, b: Builder, node: Node, k: int, d: Value) -> Value:
        spec, extents, target = spec_of(node), _extents(node), node.inputs[k]
        others = [v for j, v in enumerate(node.inputs) if j != k]
        maps = [m for j, m in enumerate(spec.operands) if j != k]
        maps.append(tuple(Affine.axis(a) for a in spec.output))
        names, solved, d, maps = _invert(b, spec, k, d, maps, extents)
        maps = [tuple(form.substitute(solved) for form in m) for m in maps]
        known = {a for m in maps for form in m for a in form.axes}
        sizes = dict(zip(names, target.shape, strict=True))
        # an axis only this operand has was summed there: its gradient is the same all along it
        output = [a for a in names if a in known]
        sizes.update((a, n) for a, n in extents.items() if a not in sizes)
        grown = make_spec(tuple(maps[-1:] + maps[:-1]), output, sizes)
        found = b.emit("contract", d, *others, spec=str(grown))
        if len(output) < len(names):
            shape = tuple(sizes[a] if a in known else 1 for a in names)
            found = b.emit("broadcast", b.emit("reshape", found, shape=shape), shape=target.shape)
        return found

    # --- lowering --------------------------------------------------------------------------------

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        spec, extents = spec_of(node), _extents(node)
        outer = dict(zip(spec.output, index, strict=True))

        def product(axes: tuple[Affine, ...]) -> tuple[Expr, ...]:
            at: dict[str, Index] = {**outer, **dict(zip(spec.reduction, axes, strict=True))}
            factors = [
                _element(ctx, k, v, dims, at, extents)
                for k, (v, dims) in enumerate(zip(node.inputs, spec.operands, strict=True))
            ]
            total = factors[0]
            for f in factors[1:]:
                total = apply("mul", total, f)
            return (total,)

        if not spec.reduction:
            return product(())[0]
        return ctx.fold("sum", [extents[a] for a in spec.reduction], product)[0]

    def dims(self, node: Node) -> DimMap:
        spec = spec_of(node)
        place = {a: j for j, a in enumerate(spec.output)}
        return tuple(
            (k, d, place[form.single])
            for k, dims in enumerate(spec.operands)
            for d, form in enumerate(dims)
            if form.single in place
        )

    def leaf_only(self, node: Node) -> bool:
        return not spec_of(node).is_bare

    def operations(self, node: Node) -> int:
        return math.prod(_extents(node).values())

    # --- simplification --------------------------------------------------------------------------

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        spec, extents = spec_of(node), _extents(node)
        inputs, maps = list(node.inputs), list(spec.operands)
        for k, v in enumerate(node.inputs):
            if moved := producer(v, "transpose", definitions):
                perm = moved.ints("perm")
                inputs[k] = moved.inputs[0]
                maps[k] = tuple(maps[k][perm.index(p)] for p in range(len(perm)))
        if inputs != list(node.inputs):
            absorbed = make_spec(tuple(maps), spec.output, _stated(spec))
            return b.emit("contract", *inputs, spec=str(absorbed))
        if spec.is_bare and all(extents[a] == 1 for a in spec.reduction) and node.output.type.size:
            return _product(b, node, spec)
        return None

    def attribute_text(self, node: Node) -> str | None:
        return str(node.attr("spec"))

    def parse_attributes(self, text: str) -> dict[str, Attr] | None:
        return {"spec": text.strip()}


def _stated(spec: ContractSpec) -> dict[str, int]:
    return {a: n for a, n in zip(spec.axes, spec.sizes, strict=True) if n}


def _gathered(x: Array, dims: Sequence[Affine], axes: list[str], extents: dict[str, int]) -> Array:
    """The operand laid out over its axes, with 0 where its forms lead outside."""
    grid = np.indices([extents[a] for a in axes])
    at = dict(zip(axes, grid, strict=True))
    inside: Any = np.ones(grid.shape[1:], bool)
    places = []
    for form, n in zip(dims, x.shape, strict=True):
        place: Any = sum((k * at[a] for a, k in form.terms), np.zeros(grid.shape[1:], int)) + form.const
        inside = inside & (place >= 0) & (place < n)
        places.append(np.clip(place, 0, max(n - 1, 0)))
    if 0 in x.shape:
        return np.zeros(grid.shape[1:], x.dtype)
    return np.where(inside, x[tuple(places)], np.zeros((), x.dtype))


def _element(
    ctx: Lowering, k: int, v: Value, dims: Sequence[Affine], at: dict[str, Index], extents: dict[str, int]
) -> Expr:
    """Operand `k` at a point, guarded where its forms can lead outside."""
    places, conditions = [], []
    for form, n in zip(dims, v.shape, strict=True):
        place = at[form.single] if form.single is not None else _combined(form, at)
        low, high = form.bounds(extents)
        conditions += within(place, 0 if low < 0 else None, n if high >= n else None)
        places.append(place)
    zero = const(0, v.dtype)
    return guarded(ctx.read(k, tuple(places)), conjunction(conditions), zero)


def _combined(form: Affine, at: dict[str, Index]) -> Index:
    total: Index = Affine((), form.const)
    for a, k in form.terms:
        part = scaled(at[a], k, 0)
        if isinstance(total, Affine) and isinstance(part, Affine):
            total = total + part
        else:
            total = apply("add", index_expr(total), index_expr(part))
    return total


def _invert(
    b: Builder,
    spec: ContractSpec,
    k: int,
    d: Value,
    maps: list[tuple[Affine, ...]],
    extents: dict[str, int],
) -> tuple[list[str], dict[str, Affine], Value, list[tuple[Affine, ...]]]:
    """Make each dimension of operand `k` an axis of its own.

    A dimension that is one axis alone is that axis. For a form such as ``2*h+r-1``, one axis that no other dimension
    of the operand has is solved for: with X for the dimension, h = (X - r + 1) / 2. A stride is taken out first by
    spreading the cotangent with zeros, so that the division is by 1. Gives the names of the dimensions, what to
    substitute, and the cotangent and the maps (the cotangent's is the last) after spreading.
    """
    dims = spec.operands[k]
    names: list[str] = []
    solved: dict[str, Affine] = {}
    taken = set(spec.axes)
    for j, form in enumerate(dims):
        rest = {a for i, other in enumerate(dims) if i != j for a in other.axes}
        if form.single is not None and form.single not in rest:
            names.append(form.single)
            continue
        axis = _pivot(form, rest, spec, maps)
        if axis is None:
            raise Limitation(
                "NN0312",
                f"the gradient of operand {k} of 'contract {{{spec}}}' cannot be formed: no axis of '{form}' "
                "can be solved for",
            )
        stride = abs(form.coefficient(axis))
        if stride > 1:
            place = [f.single for f in maps[-1]].index(axis)
            interior = tuple(stride - 1 if i == place else 0 for i in range(d.type.rank))
            none = (0,) * d.type.rank
            d = b.emit("pad", d, low=none, high=none, interior=interior, value=0.0)
            form = Affine(tuple((a, c // stride if a == axis else c) for a, c in form.terms), form.const)
        fresh = next(f"{c}{n or ''}" for n in range(len(taken) + 1) for c in "xyzuvw" if f"{c}{n or ''}" not in taken)
        taken.add(fresh)
        names.append(fresh)
        sign = form.coefficient(axis)
        others = Affine(tuple((a, c) for a, c in form.terms if a != axis), form.const)
        solved[axis] = (Affine.axis(fresh) + others * -1) * sign
    return names, solved, d, maps


def _pivot(
    form: Affine, rest: set[str], spec: ContractSpec, maps: list[tuple[Affine, ...]]
) -> str | None:
    """An axis of `form` to solve for: in no other dimension, and alone in another map, whose bounds then guard it.

    One with a stride must be the cotangent's only, since that is what is spread.
    """
    for axis, coefficient in sorted(form.terms, key=lambda t: (t[0] not in spec.output, abs(t[1]))):
        users = [m for m in maps if any(axis in f.axes for f in m)]
        alone = any(f.single == axis for m in users for f in m)
        if axis in rest or not alone:
            continue
        if abs(coefficient) == 1 or (axis in spec.output and len(users) == 1):
            return axis
    return None


def _product(b: Builder, node: Node, spec: ContractSpec) -> Value | None:
    """A contraction that sums nothing is a product of its operands, moved and broadcast into place."""
    factors = []
    for v, dims in zip(node.inputs, spec.operands, strict=True):
        names = [str(form.single) for form in dims]
        if len(set(names)) < len(names):
            return None
        order = sorted(range(len(names)), key=lambda d: spec.axes.index(names[d]))
        moved = b.emit("transpose", v, perm=tuple(order))
        extent = dict(zip(names, v.shape, strict=True))
        factors.append(b.emit("reshape", moved, shape=tuple(extent.get(a, 1) for a in spec.output)))
    total = factors[0]
    for f in factors[1:]:
        total = b.emit("mul", total, f)
    return total if total.type == node.output.type else b.emit("broadcast", total, shape=node.output.shape)


def emit_matmul(b: Builder, x: Value, y: Value) -> Value:
    """NumPy's ``matmul``: vectors, matrices, and leading batch dimensions that broadcast."""
    expect(
        x.type.rank > 0 and y.type.rank > 0, f"'@' expected operands of rank 1 or more, but found {x.type} and {y.type}"
    )
    inner = (x.shape[-1], y.shape[-2] if y.type.rank > 1 else y.shape[0])
    expect(inner[0] == inner[1], f"'@' expected equal inner extents, but found {x.type} @ {y.type}")
    lead = max(x.type.rank, y.type.rank) - 2
    full = [(1,) * (lead + 2 - max(v.type.rank, 2)) + v.shape[:-2] for v in (x, y)]
    expect(
        all(m == n or 1 in (m, n) for m, n in zip(*full, strict=True)),
        f"'@' expected batch dimensions that broadcast, but found {x.type} @ {y.type}",
    )
    arguments, batches = [], []
    for v, mine, other in ((x, full[0], full[1]), (y, full[1], full[0])):
        own = lead + 2 - max(v.type.rank, 2)
        keep = [n for n in range(own, lead) if mine[n] != 1 or other[n] == 1]
        shape = (*(mine[n] for n in keep), *v.shape[-2:])
        arguments.append(v if shape == v.shape else b.emit("reshape", v, shape=shape))
        batches.append([f"b{n}" for n in keep])
    spec = matmul_of_batches(batches[0], batches[1], x.type.rank, y.type.rank)
    return b.emit("contract", *arguments, spec=str(spec))
