"""Cycles of one step of a register tile's sums, as far as a `Machine` says them; and the sizes of
tiles that fit its registers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product as combined

from nncompiler.ir.machine import Machine
from nncompiler.passes.tiling.reads import LINE

#: Rows and vectors of a tile at most.
WIDEST = 16
#: The part of loads that do not wait for another one at the same bank; and scalars of rows that
#: are loaded in a cycle then.
_BANKS, _SCALARS = 0.8, 1.6
#: Cycles of a step beside the arithmetic for a vector of columns and for a row, more where vectors
#: are long, of whole lines. Rows of the epilogue lie apart, vectors of one follow each other.
_VECTOR, _ROW, _ROW_LONG = 0.25, 0.1, 0.2


def limit(machine: Machine) -> int:
    """Registers of a tile: LLVM spills when none is left over."""
    return machine.registers - (1 if machine.registers <= 16 else 3)


def flow(machine: Machine, rows: int, vectors: int) -> float:
    """Cycles of a step of a tile without anything that gets in its way."""
    loads = rows / _SCALARS + vectors / (machine.loads * _BANKS)
    return max(rows * vectors / machine.multiply_adds, loads, machine.latency)


def pressure(machine: Machine, rows: int, vectors: int) -> float:
    """What a step's loads cost beside the arithmetic: vectors come from a larger panel than the
    rows' scalars.
    """
    row = _ROW_LONG if machine.vector_bytes >= LINE else _ROW
    return row * rows + _VECTOR * vectors


@cache
def least_step(machine: Machine, rows: int, vectors: int) -> float:
    """The least cycles of a step for each of a tile's vectors, up to these sizes."""
    tiles = fitting(registers, limit(machine), rows, vectors)
    return min([(flow(machine, r, v) + pressure(machine, r, v)) / (r * v) for r, v in tiles])


def registers(rows: int, vectors: int) -> int:
    """Accumulators and operands; a vector that only one row needs is an operand in memory."""
    return rows * vectors + (vectors if rows > 1 else 0) + 1


def sums(rows: int, columns: int) -> int:
    """The same where lanes are partial sums."""
    return rows * columns + min(rows, columns)


@cache
def fitting(
    needed: Callable[[int, int], int], most: int, rows: int, across: int
) -> tuple[tuple[int, int], ...]:
    """Tile sizes up to these whose accumulators and operands fit, small ones first."""
    sizes = combined(range(1, rows + 1), range(1, across + 1))
    return tuple([(r, c) for r, c in sizes if needed(r, c) <= most])


def over_tiles(
    m: int, rows: int, n: int, across: int, step: Callable[[int, int], float]
) -> float:
    """The cycles of one step summed over all tiles: rows divided evenly, columns with a rest."""
    total = 0.0
    less, more = divmod(m, -(-m // rows))
    for r, count_r in ((less + 1, more), (less, -(-m // rows) - more)):
        for c, count_c in ((across, n // across), (n % across, int(n % across > 0))):
            if count_r and count_c:
                total += count_r * count_c * step(r, c)
    return total
