"""Which loop of a nest takes several steps side by side, so that its short loops over lanes do not
wait for each other.

    for i < 64 {                                  for i < 64, four at a time {
      m = max j < 64 { x[i,j] }                     m = max j < 64 { ... }, of all four
      s = sum j < 64 { exp(x[i,j] - m) }            s = sum j < 64 { ... }, of all four
      for j < 64 { y[i,j] = ... / s }               for j < 64 { ... }, of all four
    }                                             }

A loop needs what the one before it made of a row, and there are too few vectors in a row to keep a
core busy meanwhile. Where there are more, the next row begins early enough by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.ir.kernel import Fold, For, Let, Stmt, Store

#: Steps side by side: two take 63 us of a causal softmax that takes 79 one by one, four take 56.
TOGETHER = 4
#: Fewest loops for each step: with two, memory decides (the gradient of softmax takes the same by
#: two, and 15 % more by four).
LOOPS = 3
#: Fewest and most vectors of a loop, and elements: of 16 vectors (layer normalisation) two steps
#: take up to 10 % more on a core with AVX2, of 8 with 16 lanes four steps three times as long.
VECTORS, ELEMENTS = range(2, 9), 64


def side_by_side(
    body: Sequence[Stmt], vector: Sequence[str], order: Sequence[str], lanes: int
) -> tuple[str | None, int]:
    """The axis, and how many of its steps; None and 1 where one at a time does as well."""
    loops = [s for s in body if isinstance(s, For)]
    if len(loops) != 1 or loops[0].ordered or any(isinstance(s, Fold) for s in body):
        return None, 1
    (loop,) = loops
    place = {name: n for n, name in enumerate(order)}
    innermost = sorted(loop.axes, key=lambda a: place.get(a.name, 0))[-1]
    inside = [s for s in loop.body if isinstance(s, (For, Fold))]
    if len(inside) < LOOPS or not all(_is_short(s, vector, lanes) for s in inside):
        return None, 1
    fits = innermost.extent and innermost.extent % TOGETHER == 0
    return (innermost.name, TOGETHER) if fits else (None, 1)


def _is_short(s: For | Fold, vector: Sequence[str], lanes: int) -> bool:
    """Whether a loop runs over a few whole vectors, with no loop inside."""
    plain = all(isinstance(x, (Let, Store)) for x in s.body)
    if not plain or len(s.axes) != 1 or s.axes[0].name not in vector:
        return False
    n = s.axes[0].extent
    return n % lanes == 0 and n // lanes in VECTORS and n <= ELEMENTS
