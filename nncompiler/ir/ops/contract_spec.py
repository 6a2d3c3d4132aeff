"""Index notation of `contract`: ``i j k: i k, k j -> i j``; affine: ``h=5 r: 2*h+r-1, r -> h``.

Axes come first, those of the result in its order, then those that are summed over. Each operand's
dimensions follow, parted by spaces, operands by commas; a dimension is an axis or an affine form
without spaces. Extents are those of the operand dimensions in which an axis stands alone; an axis
that never does states its extent: ``h=28``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from nncompiler.ir.op import expect
from nncompiler.ir.scalar import Affine
from nncompiler.record import dataclass

Maps = tuple[tuple[Affine, ...], ...]


@dataclass(frozen=True, slots=True)
class ContractSpec:
    """`axes`: the result's, then the summed; `sizes`: stated extents (0: inferred), per axis."""

    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    operands: Maps
    output: tuple[str, ...]

    @property
    def reduction(self) -> tuple[str, ...]:
        return self.axes[len(self.output) :]

    @property
    def stated(self) -> dict[str, int]:
        """The stated extents by axis."""
        return {a: n for a, n in zip(self.axes, self.sizes, strict=True) if n}

    @property
    def is_bare(self) -> bool:
        """Every operand dimension is an axis alone."""
        return all(form.single is not None for dims in self.operands for form in dims)

    def extents(self, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
        """The extent of every axis on operands of these shapes; `UserError` NN0310 if unequal."""
        if [len(s) for s in shapes] != [len(dims) for dims in self.operands]:
            expect(
                False,
                f"'contract' expected operands of rank {[len(d) for d in self.operands]} for "
                f"'{self}', but found {' and '.join(str(list(s)) for s in shapes)}",
            )
        found = self.stated
        for dims, shape in zip(self.operands, shapes, strict=True):
            for form, n in zip(dims, shape, strict=True):
                if form.single is not None and found.setdefault(form.single, n) != n:
                    expect(
                        False,
                        f"'contract' expected one extent for axis {form.single} of '{self}', "
                        f"but found {found[form.single]} and {n}",
                    )
        for axis in self.axes:
            if axis not in found:
                expect(
                    False,
                    f"axis {axis} of '{self}' stands alone nowhere, so state its extent: {axis}=N",
                )
        return found

    def __str__(self) -> str:
        axes = " ".join(f"{a}={n}" if n else a for a, n in zip(self.axes, self.sizes, strict=True))
        operands = ", ".join(" ".join(map(str, dims)) for dims in self.operands)
        return f"{axes}: {operands} -> {' '.join(self.output)}".replace(":  ", ": ").strip()


def make_spec(
    operands: Maps, output: Sequence[str], sizes: Mapping[str, int] | None = None
) -> ContractSpec:
    """A spec with its axes in canonical order: the result's, then others as they first occur."""
    named = [a for dims in operands for form in dims for a in form.axes]
    axes = tuple(dict.fromkeys((*output, *named)))
    stated = {a: n for a, n in (sizes or {}).items() if not _alone(a, operands)}
    return ContractSpec(axes, tuple(stated.get(a, 0) for a in axes), operands, tuple(output))


def _alone(axis: str, operands: Maps) -> bool:
    return any(form.single == axis for dims in operands for form in dims)


@lru_cache(maxsize=4096)
def parse_spec(text: str) -> ContractSpec:
    """The inverse of ``str(ContractSpec)``; `UserError` NN0310 if the text is no contraction."""
    found = re.fullmatch(r"([^:]*):(.*)->(.*)", text)
    expect(
        found is not None,
        f"expected a contraction such as 'i j k: i k, k j -> i j', but found '{text}'",
    )
    assert found is not None
    names, sizes = [], []
    for word in found[1].split():
        name, _, size = word.partition("=")
        expect(
            re.fullmatch(r"[A-Za-z_]\w*", name) is not None and (not size or size.isdigit()),
            f"expected an axis or axis=extent in '{text}', but found '{word}'",
        )
        names.append(name)
        sizes.append(int(size or 0))
    operands = tuple(tuple(parse_affine(w) for w in part.split()) for part in found[2].split(","))
    output = tuple(found[3].split())
    used = {a for dims in operands for form in dims for a in form.axes}
    expect(
        len(set(names)) == len(names) and used == set(names),
        f"expected every axis of '{text}' to be listed once and to occur in an operand",
    )
    expect(
        tuple(names[: len(output)]) == output,
        f"expected the axes of '{text}' to begin with those of the result, '{' '.join(output)}'",
    )
    return ContractSpec(tuple(names), tuple(sizes), operands, output)


def parse_affine(text: str) -> Affine:
    """An affine form without spaces, such as ``2*h+r-1``."""
    total, end = Affine(), 0
    for m in re.finditer(r"([+-]?)(?:(\d+)\*)?(?:([A-Za-z_]\w*)|(\d+))", text):
        joined = m.start() == end and bool(m[1] or end == 0) and not (m[2] and m[4])
        expect(joined, f"expected an affine index, but found '{text}'")
        k = int(m[2] or 1) * (-1 if m[1] == "-" else 1)
        total = total + (Affine.axis(m[3]) * k if m[3] else int(m[4]) * k)
        end = m.end()
    expect(end == len(text) and bool(text), f"expected an affine index, but found '{text}'")
    return total
