"""Partial results of folds: two joined, and lanes combined by halves in a fixed order."""

from __future__ import annotations

from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.value import Value
from nncompiler.codegen.nests.pieces import Piece
from nncompiler.ir.combine import Combine
from nncompiler.ir.scalar import Ref


def combined(
    e: Emitter, combine: Combine, left: list[Value], right: list[Value]
) -> list[Value]:
    """The partial results `left` and `right` as one."""
    names = [(f"left.{i}", f"right.{i}") for i in range(combine.width)]
    with e.scope({}):
        for (l_name, r_name), l_value, r_value in zip(names, left, right, strict=True):
            e.locals |= {l_name: l_value, r_name: r_value}
        result = combine.result(
            tuple(Ref(n, v.dtype) for (n, _), v in zip(names, left, strict=True)),
            tuple(Ref(n, v.dtype) for (_, n), v in zip(names, right, strict=True)),
        )
        return e.values(result)


def gathered(
    e: Emitter, combine: Combine, cut: tuple[Piece, ...], partial: list[Value]
) -> list[Value]:
    """One scalar tuple from the pieces' vectors: each is halved to the width of the next and
    joined to it.
    """
    width = combine.width
    total = partial[:width]
    for n, piece in enumerate(cut[1:], 1):
        total = _halved(e, combine, total, piece.lanes)
        total = combined(e, combine, total, partial[n * width : (n + 1) * width])
    return _halved(e, combine, total, 1)


def _halved(e: Emitter, combine: Combine, values: list[Value], lanes: int) -> list[Value]:
    while (count := values[0].lanes) > max(lanes, 2):
        low = [e.w.shuffle(v, None, range(count // 2)) for v in values]
        high = [e.w.shuffle(v, None, range(count // 2, count)) for v in values]
        values = combined(e, combine, low, high)
    if values[0].lanes > lanes:
        # The last step stays a vector operation: LLVM makes branches of scalar selects.
        turned = [e.w.shuffle(v, None, (1, 0)) for v in values]
        values = [e.w.lane(v, 0) for v in combined(e, combine, values, turned)]
    return values
