"""LLVM text of what an entry point asks of integers that are used as indices."""

from __future__ import annotations

from contextlib import ExitStack

from nncompiler.codegen.module import abi
from nncompiler.codegen.module.text import FunctionText
from nncompiler.ir.index_bounds import whole
from nncompiler.ir.kernel import Check
from nncompiler.ir.types import TensorType


def refuse_outside(f: FunctionText, pointer: str, type: TensorType, check: Check) -> None:
    """Return a code where an element is outside: loops over rows that lie together in memory."""
    part, row, rest = check.part or whole(type.shape), 1, type.rank
    while rest and row == type.strides[rest - 1] and part[rest - 1].step == 1:
        rest -= 1
        row *= len(part[rest])
    start = sum(r.start * s for r, s in zip(part, type.strides, strict=True))
    with ExitStack() as loops:
        at = f.offset(pointer, 4 * start)
        for r, stride in zip(part[:rest], type.strides, strict=False):
            counter = loops.enter_context(f.loop(len(r), False))
            moved = f.assign(f"mul i64 {counter}, {4 * r.step * stride}")
            at = f.assign(f"getelementptr i8, ptr {at}, i64 {moved}")
        given = f"ptr {at}, i64 {row}, i32 {check.extent}"
        good = f.assign(f"call i1 @nn.in_range({given})")
        f.refuse(f.assign(f"xor i1 {good}, true"), abi.INDEX_RANGE)
