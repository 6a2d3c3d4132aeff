"""`contract`: sums of products over affine maps: matrix products, convolutions, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompiler.ir.graph import Attr, Builder, Node, Value
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import DimMap, Operator, Sample, Shapes, expect, index_expr, scaled
from nncompiler.ir.ops.common import (
    Cotangents,
    Definitions,
    Grads,
    conjunction,
    cut,
    fit,
    only,
    producer,
    sample,
    within,
)
from nncompiler.ir.ops.contract_gradient import operand_gradient
from nncompiler.ir.ops.contract_phases import Terms
from nncompiler.ir.ops.contract_spec import ContractSpec, make_spec, parse_spec
from nncompiler.ir.ops.contract_tables import constant_table, contracted_table
from nncompiler.ir.ops.elementwise import common_dtype
from nncompiler.ir.scalar import Affine, Expr, Index, apply, const
from nncompiler.ir.types import F64, I32, Array, TensorType


def spec_of(node: Node) -> ContractSpec:
    return parse_spec(str(node.attr("spec")))


def _extents(node: Node) -> dict[str, int]:
    return spec_of(node).extents([v.shape for v in node.inputs])


class Contract(Operator):
    """``contract %a, %b {i j k: i k, k j -> i j}``: a sum of products for each point.

    Axes that the result lacks are summed over. An element outside an operand counts as 0: padding.
    """

    name = "contract"
    kind = "contract"
    skips = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        spec = spec_of(node)
        expect(
            len(node.inputs) == len(spec.operands),
            f"'contract' expected {len(spec.operands)} operands for '{spec}', "
            f"but {len(node.inputs)} were given",
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
            output = [letter[a] for a in spec.output]
            found = np.einsum(*arguments, output, optimize=len(inputs) > 1)
        return np.array(found, inputs[0].dtype, order="C")

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
            ("n h=3 o c: n 2*h c, c o -> n h o", [(2, 6, 2), (2, 4)]),
        ]
        found = [sample(*shapes, attrs={"spec": text}) for text, shapes in rows]
        found.append(sample((3, 4), (4, 5), dtype=F64, attrs={"spec": rows[0][0]}))
        return [*found, sample((3, 4), (4, 5), dtype=I32, attrs={"spec": rows[0][0]})]

    # --- gradient --------------------------------------------------------------------------------

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        """d a = contract(dy, the other operands), the index maps permuted."""
        d = only(cotangents)
        terms = Terms(node.inputs, spec_of(node), _extents(node))
        count = range(len(node.inputs))
        return [operand_gradient(b, terms, k, d) for k in count]

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

    def reach(self, node: Node, shape: tuple[int, ...]) -> Shapes | None:
        spec = spec_of(node)
        extents = {**_extents(node), **dict(zip(spec.output, shape, strict=True))}
        if 0 in extents.values():
            return None
        return tuple(
            tuple(
                max(0, min(n, form.bounds(extents)[1] + 1))
                for form, n in zip(dims, v.shape, strict=True)
            )
            for v, dims in zip(node.inputs, spec.operands, strict=True)
        )

    def narrowed(
        self, b: Builder, node: Node, inputs: Sequence[Value], shape: tuple[int, ...]
    ) -> Value:
        """Operands are cut where an axis that stands alone takes its extent from them."""
        spec = spec_of(node)
        own = dict(zip(spec.output, shape, strict=True))
        parts = []
        for v, dims in zip(inputs, spec.operands, strict=True):
            forms = zip(dims, v.shape, strict=True)
            parts.append(cut(b, v, tuple([own.get(f.single or "", n) for f, n in forms])))
        less = make_spec(spec.operands, spec.output, {**spec.stated, **own})
        return b.emit("contract", *parts, spec=str(less))

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
            absorbed = make_spec(tuple(maps), spec.output, spec.stated)
            return b.emit("contract", *inputs, spec=str(absorbed))
        if spec.is_bare and all(extents[a] == 1 for a in spec.reduction) and node.output.type.size:
            return _product(b, node, spec)
        return contracted_table(b, node, spec, definitions)

    def by_constants(
        self, b: Builder, node: Node, definitions: Definitions, constants: set[Value]
    ) -> Value | None:
        return constant_table(b, node, spec_of(node), definitions, constants)

    def permuted(self, b: Builder, node: Node, perm: tuple[int, ...]) -> Value | None:
        spec = spec_of(node)
        if not spec.is_bare:
            return None
        moved = make_spec(spec.operands, [spec.output[p] for p in perm], spec.stated)
        return b.emit("contract", *node.inputs, spec=str(moved))

    def attribute_text(self, node: Node) -> str | None:
        return str(node.attr("spec"))

    def parse_attributes(self, text: str) -> dict[str, Attr] | None:
        return {"spec": text.strip()}


def _gathered(x: Array, dims: Sequence[Affine], axes: list[str], extents: dict[str, int]) -> Array:
    """The operand laid out over its axes, with 0 where its forms lead outside."""
    grid = np.indices([extents[a] for a in axes])
    at = dict(zip(axes, grid, strict=True))
    inside: Any = np.ones(grid.shape[1:], bool)
    places = []
    for form, n in zip(dims, x.shape, strict=True):
        start = np.full(grid.shape[1:], form.const)
        place: Any = sum((k * at[a] for a, k in form.terms), start)
        inside = inside & (place >= 0) & (place < n)
        places.append(np.clip(place, 0, max(n - 1, 0)))
    if 0 in x.shape:
        return np.zeros(grid.shape[1:], x.dtype)
    return np.where(inside, x[tuple(places)], np.zeros((), x.dtype))


def _element(
    ctx: Lowering,
    k: int,
    v: Value,
    dims: Sequence[Affine],
    at: dict[str, Index],
    extents: dict[str, int],
) -> Expr:
    """Operand `k` at a point, guarded where its forms can lead outside."""
    places, conditions = [], []
    for form, n in zip(dims, v.shape, strict=True):
        place = at[form.single] if form.single is not None else _combined(form, at)
        low, high = form.bounds(extents)
        conditions += within(place, 0 if low < 0 else None, n if high >= n else None)
        places.append(place)
    zero = const(0, v.dtype)
    return ctx.read(k, tuple(places), conjunction(conditions), zero)


def _combined(form: Affine, at: dict[str, Index]) -> Index:
    total: Index = Affine((), form.const)
    for a, k in form.terms:
        part = scaled(at[a], k, 0)
        if isinstance(total, Affine) and isinstance(part, Affine):
            total = total + part
        else:
            total = apply("add", index_expr(total), index_expr(part))
    return total


def _product(b: Builder, node: Node, spec: ContractSpec) -> Value | None:
    """A contraction that sums nothing is a product of its operands, moved and broadcast."""
    factors = []
    for v, dims in zip(node.inputs, spec.operands, strict=True):
        names = [str(form.single) for form in dims]
        if len(set(names)) < len(names):
            return None
        order = sorted(range(len(names)), key=lambda d: spec.axes.index(names[d]))
        moved = b.emit("transpose", v, perm=tuple(order))
        extent = dict(zip(names, v.shape, strict=True))
        shape = tuple(extent.get(a, 1) for a in spec.output)
        factors.append(b.emit("reshape", moved, shape=shape))
    total = factors[0]
    for f in factors[1:]:
        total = b.emit("mul", total, f)
    return fit(b, total, node.output.type)
