"""What bodies of kernels hold: statements, expressions, loads and stores, axes, locals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import (
    Fold,
    For,
    Kernel,
    Let,
    Step,
    Stmt,
    Store,
    kernels_of,
)
from nncompiler.ir.once import once
from nncompiler.ir.scalar import Affine, Expr, Load, walk
from nncompiler.ir.types import DType


def statements(body: Iterable[Stmt]) -> Iterator[Stmt]:
    """Every statement of a nest, outermost first, in order."""
    for s in body:
        yield s
        match s:
            case For(body=inner) | Fold(body=inner):
                yield from statements(inner)
            case _:
                pass


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions a statement holds itself (not those of the statements inside it)."""
    match s:
        case Let(value=value):
            return (value,)
        case Store(index=index, value=value):
            return (*(i for i in index if not isinstance(i, Affine)), value)
        case Fold(values=values):
            return values
        case For():
            return ()


@once
def accesses(body: tuple[Stmt, ...]) -> tuple[Load | Store, ...]:
    """Every load and store of a nest, in order of appearance."""
    found: list[Load | Store] = []
    for s in statements(body):
        for e in expressions(s):
            found += [x for x in walk(e) if isinstance(x, Load)]
        if isinstance(s, Store):
            found.append(s)
    return tuple(found)


def loads(kernel: Kernel) -> list[Load]:
    return [x for x in accesses(kernel.body) if isinstance(x, Load)]


def stores(kernel: Kernel) -> list[Store]:
    return [s for s in statements(kernel.body) if isinstance(s, Store)]


def reads_and_writes(kernel: Kernel) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the buffers a kernel loads from and stores to."""
    return _names(kernel.body)


@once
def _names(body: tuple[Stmt, ...]) -> tuple[frozenset[str], frozenset[str]]:
    found = accesses(body)
    reads = frozenset([x.buffer for x in found if isinstance(x, Load)])
    return reads, frozenset([x.buffer for x in found if isinstance(x, Store)])


def step_reads_and_writes(step: Step) -> tuple[frozenset[str], frozenset[str]]:
    """The same of a kernel or of everything inside a loop."""
    reads, writes = set[str](), set[str]()
    for kernel in kernels_of((step,)):
        r, w = reads_and_writes(kernel)
        reads |= r
        writes |= w
    return frozenset(reads), frozenset(writes)


def extents(kernel: Kernel) -> dict[str, int]:
    """The extent of every axis; `CompilerBug` when siblings disagree on one."""
    found: dict[str, int] = {}
    for s in statements(kernel.body):
        if isinstance(s, (For, Fold)):
            for axis in s.axes:
                if found.setdefault(axis.name, axis.extent) != axis.extent:
                    raise CompilerBug(
                        "NN0392", f"axis '{axis.name}' of kernel '{kernel.name}' has two extents"
                    )
    return found


def local_types(kernel: Kernel) -> dict[str, DType]:
    """The dtype of every local (of `Let` and `Fold`)."""
    found: dict[str, DType] = {}
    for s in statements(kernel.body):
        match s:
            case Let(name, value):
                found[name] = value.dtype
            case Fold(names=names, values=values):
                found.update(zip(names, (v.dtype for v in values), strict=True))
            case _:
                pass
    return found
