"""The gradient of `contract`: `contract` again, its index maps permuted, or solved if affine."""

from __future__ import annotations

from nncompiler.errors import Limitation
from nncompiler.ir.graph import Builder, Value
from nncompiler.ir.ops.contract_phases import Terms, find_strided, phase_gradient
from nncompiler.ir.ops.contract_spec import ContractSpec, make_spec
from nncompiler.ir.scalar import Affine

Map = tuple[Affine, ...]


def operand_gradient(b: Builder, terms: Terms, k: int, d: Value) -> Value:
    """The cotangent of operand `k`, given that of the result: `d` contracted with the others."""
    spec, target = terms.spec, terms.operands[k]
    strided = find_strided(spec, k)
    if strided is not None:
        return phase_gradient(b, terms, k, d, strided, operand_gradient)
    others = [v for j, v in enumerate(terms.operands) if j != k]
    maps = [m for j, m in enumerate(spec.operands) if j != k]
    maps.append(tuple(Affine.axis(a) for a in spec.output))
    names, solved, d = _invert(b, spec, k, target, d, maps)
    maps = [tuple(form.substitute(solved) for form in m) for m in maps]
    known = {a for m in maps for form in m for a in form.axes}
    sizes = dict(zip(names, target.shape, strict=True))
    # an axis only this operand has was summed there: its gradient is the same all along it
    output = [a for a in names if a in known]
    sizes.update((a, n) for a, n in terms.extents.items() if a not in sizes)
    grown = make_spec(tuple(maps[-1:] + maps[:-1]), output, sizes)
    found = b.emit("contract", d, *others, spec=str(grown))
    if len(output) < len(names):
        shape = tuple(sizes[a] if a in known else 1 for a in names)
        found = b.emit("broadcast", b.emit("reshape", found, shape=shape), shape=target.shape)
    return found


def _invert(
    b: Builder,
    spec: ContractSpec,
    k: int,
    target: Value,
    d: Value,
    maps: list[Map],
) -> tuple[list[str], dict[str, Affine], Value]:
    """Make each dimension of operand `k` an axis of its own.

    A dimension that is one axis alone is that axis. For a form such as ``2*h+r-1``, one axis that
    no other dimension of the operand has is solved for: with x for the dimension,
    h = (x - r + 1) / 2. A stride is taken out first by spreading the cotangent with zeros, so
    that the division is by 1. Gives the names of the dimensions, what to substitute for the
    axes solved for, and the cotangent after spreading. The last of `maps` is the cotangent's.
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
                f"the gradient of operand {k} of 'contract {{{spec}}}' cannot be formed: "
                f"no axis of '{form}' can be solved for",
            )
        stride = abs(form.coefficient(axis))
        others = Affine(tuple((a, c) for a, c in form.terms if a != axis), form.const)
        if stride > 1:
            # where x alone will index the cotangent, that is as long as the operand
            whole = target.shape[j] if others == Affine() else 0
            d = _spread(b, d, spec.output.index(axis), stride, whole)
        fresh = next(name for n in range(len(taken) + 1) if (name := f"x{n}") not in taken)
        taken.add(fresh)
        names.append(fresh)
        sign = 1 if form.coefficient(axis) > 0 else -1
        solved[axis] = (Affine.axis(fresh) + others * -1) * sign
    return names, solved, d


def _spread(b: Builder, d: Value, dimension: int, stride: int, whole: int) -> Value:
    """`d` with ``stride - 1`` zeros between neighbours along `dimension`, and then to `whole`."""
    dims = range(d.type.rank)
    behind = max(whole - (d.shape[dimension] - 1) * stride - 1, 0)
    interior = tuple(stride - 1 if i == dimension else 0 for i in dims)
    high = tuple(behind if i == dimension else 0 for i in dims)
    low = (0,) * d.type.rank
    return b.emit("pad", d, low=low, high=high, interior=interior, value=0.0)


def _pivot(
    form: Affine, rest: set[str], spec: ContractSpec, maps: list[Map]
) -> str | None:
    """An axis of `form` to solve for: in no other dimension, and alone in another map.

    The bounds of that map then guard it. One with a stride must be the cotangent's only, since
    that is what is spread.
    """
    terms = sorted(form.terms, key=lambda t: (t[0] not in spec.output, abs(t[1])))
    for axis, coefficient in terms:
        users = [m for m in maps if any(axis in f.axes for f in m)]
        alone = any(f.single == axis for m in users for f in m)
        if axis in rest or not alone:
            continue
        if abs(coefficient) == 1 or (axis in spec.output and len(users) == 1):
            return axis
    return None
