"""NumPy's ``matmul`` as a contraction, for the language's ``@``."""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.ir.graph import Builder, Value
from nncompiler.ir.op import expect
from nncompiler.ir.ops.contract_spec import ContractSpec, make_spec
from nncompiler.ir.scalar import Affine


def emit_matmul(b: Builder, x: Value, y: Value) -> Value:
    """NumPy's ``matmul``: vectors, matrices, and leading batch dimensions that broadcast."""
    found = f"but found {x.type} @ {y.type}"
    expect(min(x.type.rank, y.type.rank) > 0, f"'@' expected operands of rank 1 or more, {found}")
    inner = (x.shape[-1], y.shape[-2] if y.type.rank > 1 else y.shape[0])
    expect(inner[0] == inner[1], f"'@' expected equal inner extents, {found}")
    lead = max(x.type.rank, y.type.rank) - 2
    full = [(1,) * (lead + 2 - max(v.type.rank, 2)) + v.shape[:-2] for v in (x, y)]
    expect(
        all(m == n or 1 in (m, n) for m, n in zip(*full, strict=True)),
        f"'@' expected batch dimensions that broadcast, {found}",
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


def matmul_of_batches(
    a_batch: Sequence[str], b_batch: Sequence[str], a_rank: int, b_rank: int
) -> ContractSpec:
    """A matmul whose operands keep only the batch axes named (in order)."""
    rows, columns = ["i"] if a_rank > 1 else [], ["j"] if b_rank > 1 else []
    batch = sorted({*a_batch, *b_batch}, key=lambda name: int(name[1:]))
    maps = ([*a_batch, *rows, "k"], [*b_batch, "k", *columns])
    operands = tuple(tuple(Affine.axis(a) for a in m) for m in maps)
    return make_spec(operands, [*batch, *rows, *columns])
