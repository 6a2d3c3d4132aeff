"""Affine forms in the axes of loops: where an index or a count of a nest is."""

from __future__ import annotations

from collections.abc import Mapping

from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Affine:
    """``2*h + r - 1``: a linear form in loop axes. `terms` are (axis, coefficient), sorted by
    axis, none zero."""

    terms: tuple[tuple[str, int], ...] = ()
    const: int = 0

    @staticmethod
    def axis(name: str) -> Affine:
        return Affine(((name, 1),))

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.const + other)
        sums = dict(self.terms)
        for name, k in other.terms:
            sums[name] = sums.get(name, 0) + k
        return Affine(
            tuple(sorted((n, k) for n, k in sums.items() if k)), self.const + other.const
        )

    def __mul__(self, k: int) -> Affine:
        return Affine(tuple((n, c * k) for n, c in self.terms) if k else (), self.const * k)

    def coefficient(self, axis: str) -> int:
        for name, k in self.terms:
            if name == axis:
                return k
        return 0

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple([name for name, _ in self.terms])

    @property
    def single(self) -> str | None:
        """The axis when this is exactly that axis, else None."""
        return (
            self.terms[0][0]
            if len(self.terms) == 1 and self.terms[0][1] == 1 and not self.const
            else None
        )

    def rename(self, names: Mapping[str, str]) -> Affine:
        return Affine(tuple(sorted((names.get(n, n), k) for n, k in self.terms)), self.const)

    def substitute(self, values: Mapping[str, Affine]) -> Affine:
        if not any(name in values for name, _ in self.terms):
            return self
        sums, const = dict[str, int](), self.const
        for name, k in self.terms:
            form = values.get(name) or Affine.axis(name)
            const += form.const * k
            for n, c in form.terms:
                sums[n] = sums.get(n, 0) + c * k
        return Affine(tuple(sorted([(n, k) for n, k in sums.items() if k])), const)

    def evaluate(self, at: Mapping[str, int]) -> int:
        return sum(at[n] * k for n, k in self.terms) + self.const

    def bounds(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """Smallest and largest value over ``0 <= axis < extent``."""
        low = high = self.const
        for n, k in self.terms:
            if k < 0:
                low += k * (extents[n] - 1)
            else:
                high += k * (extents[n] - 1)
        return low, high

    def __str__(self) -> str:
        parts = [
            ("-" if k < 0 else "+") + (n if abs(k) == 1 else f"{abs(k)}*{n}")
            for n, k in self.terms
        ]
        if self.const or not parts:
            parts.append(f"{self.const:+d}")
        text = "".join(parts)
        return text[1:] if text[0] == "+" else text
