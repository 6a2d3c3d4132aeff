"""Buffers with other strides: what a plan needs when elements move to other places in memory.

Views follow their base where they can; what cannot move (inputs, parameters) is copied, and its
readers read the copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from nncompiler.ir.kernel import Axis, Buffer, For, Kernel, Store
from nncompiler.ir.scalar import Affine, Load
from nncompiler.record import replace

Buffers: TypeAlias = Mapping[str, Buffer]

#: What the names of copies end with.
PACKED = ".packed"


def viewed(name: str, table: Buffers) -> bool:
    return any(b.base == name for b in table.values())


def follow(view: Buffer, table: dict[str, Buffer]) -> bool:
    """Give a view the strides that its base's imply; False where there are none."""
    assert view.base is not None
    base = table[view.base]
    if base.strides is None:
        return True
    strides = reshaped(base.type.shape, base.strides, view.type.shape)
    if strides is None:
        return False
    table[view.name] = replace(view, strides=strides)
    return True


def reshaped(
    shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The strides under which the elements of a tensor, read in row-major order as `new`, stay
    where they are.
    """
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    found: list[int] = []
    size, stride = 1, 0
    for n in reversed(new):
        if n == 1:
            found.insert(0, 0)
            continue
        if size == 1:
            if not old:
                return None
            size, stride = old.pop()
        while size % n:  # needs more dimensions, which must lie one within the other
            if not old or old[-1][1] != size * stride:
                return None
            more, _ = old.pop()
            size *= more
        found.insert(0, stride)
        size, stride = size // n, stride * n
    return tuple(found) if size == 1 and not old else None


def copy_of(name: str, source: Buffer, target: Buffer) -> Kernel:
    axes = tuple(Axis(f"x{d}", n) for d, n in enumerate(source.type.shape))
    index = tuple(Affine.axis(a.name) if a.extent > 1 else Affine() for a in axes)
    store = Store(target.name, index, Load(source.name, index, source.type.dtype))
    loops = tuple(a for a in axes if a.extent > 1)
    return Kernel(name, (For(loops, (store,)),), nodes=(source.name,))
