"""One kernel as one LLVM function, whatever its strategy.

The text depends on the structure of the kernel and the layout of its buffers, not on any name, so
that equal kernels have equal text. Distinct pointers are `noalias`: buffers whose bytes overlap
(views, in-place partners) share one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias

from nncompiler.codegen.contractions.contract import emit_contraction
from nncompiler.codegen.instructions.address import At, Place
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.share import PARTS, RANGE
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.codegen.math.expand import Expansion
from nncompiler.codegen.nests.loops import Nest
from nncompiler.codegen.nests.turn import emit_turn
from nncompiler.codegen.target import Target
from nncompiler.errors import CompilerBug
from nncompiler.ir.body import expressions, statements
from nncompiler.ir.fingerprint import alike, fingerprint, signature
from nncompiler.ir.kernel import Buffer, Fold, For, Kernel, Stmt, Store
from nncompiler.ir.scalar import Affine, Expr, Iota, Load, children
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class KernelCode:
    """``define internal void @SYMBOL(ptr, ..., i64, ...)``.

    `pointers[n]` are the buffers that parameter n serves; it takes the address of the first. The
    `counters` of plan loops around the kernel follow as i64, and, of a kernel that is `split`, the
    parts to run: the first | the one behind the last << 32, and the number of all.
    """

    text: str
    pointers: tuple[tuple[str, ...], ...]
    declarations: frozenset[str]
    counters: tuple[str, ...] = ()
    split: bool = False


@dataclass(frozen=True, slots=True)
class _Extent:
    """The bytes of one buffer: `owner` tells memory blocks apart, offsets count inside one."""

    name: str
    owner: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Uses:
    """What bodies have in common that are the same but for names: the buffers in order of first
    use and those written, by their numbers in `signature`; axes that no loop inside binds.
    """

    order: tuple[int, ...]
    written: frozenset[int]
    counters: tuple[str, ...]


#: What was emitted so far: text and declarations by all that decides them.
Emitted: TypeAlias = "dict[Hashable, tuple[str, frozenset[str]]]"


def emit_kernel(
    kernel: Kernel,
    buffers: Mapping[str, Buffer],
    target: Target,
    symbol: str,
    known: Emitted | None = None,
) -> KernelCode:
    """The function `symbol` that runs `kernel`; taken from `known` where an equal one was emitted
    for the same target and symbol."""
    uses, names = _uses(kernel.body), signature(kernel.body).buffers
    used = [names[n] for n in uses.order]
    written = {names[n] for n in uses.written}
    groups = _share([_extent(name, buffers) for name in used])
    places: dict[str, Place] = {}
    parameters = []
    for n, group in enumerate(groups):
        read_only = not any(e.name in written for e in group)
        for e in group:
            b, shift = buffers[e.name], e.start - group[0].start
            size = b.nbytes
            places[e.name] = Place(f"%p{n}", shift, b.type.dtype, b.layout, read_only, size)
        parameters.append(f"{_attributes(group, buffers, read_only)} %p{n}")
    counters = uses.counters
    parameters += [f"i64 noundef %c{n}" for n in range(len(counters))]
    schedule = kernel.schedule
    if schedule.parallel:
        parameters += [f"i64 noundef {n}" for n in (RANGE, PARTS)]
    layout = (tuple(parameters), tuple([places[name] for name in used]))
    key = (fingerprint(kernel, buffers), schedule, layout)
    known = {} if known is None else known
    if key not in known:
        head = f"define internal void @{symbol}({', '.join(parameters)}) {target.attributes} {{"
        body, declarations = _emit_body(kernel, target, places, counters)
        known[key] = f"{head}\nentry:\n{body}\n  ret void\n}}\n", declarations
    text, declarations = known[key]
    pointers = tuple(tuple(e.name for e in g) for g in groups)
    return KernelCode(text, pointers, declarations, counters, bool(schedule.parallel))


def _emit_body(
    kernel: Kernel, target: Target, places: Mapping[str, Place], counters: Sequence[str]
) -> tuple[str, frozenset[str]]:
    """The instructions of a kernel, and what they call."""
    writer, schedule = Writer(), kernel.schedule
    emitter = Emitter(writer, target, places, Expansion(target.fma))
    emitter.axes = {name: At(f"%c{n}") for n, name in enumerate(counters)}
    match schedule.strategy:
        case "loops":
            Nest(emitter, schedule).run(kernel.body, frozenset(schedule.parallel))
        case "contract":
            emit_contraction(kernel, emitter)
        case "turn":
            emit_turn(kernel, emitter)
        case other:
            raise CompilerBug("NN0593", f"no strategy '{other}'")
    return writer.text(), frozenset(writer.declarations)


@alike
def _uses(body: tuple[Stmt, ...]) -> _Uses:
    number = {name: n for n, name in enumerate(signature(body).buffers)}
    parts = _parts(body)
    written = [s.buffer for s in statements(body) if isinstance(s, Store)]
    used = dict.fromkeys([e.buffer for e in parts if isinstance(e, Load)] + written)
    return _Uses(
        tuple([number[name] for name in used]),
        frozenset([number[name] for name in written]),
        _counters(body, parts),
    )


def _parts(body: tuple[Stmt, ...]) -> list[Expr]:
    """All expressions of a body in a fixed order; those that are shared occur once."""
    seen: set[int] = set()
    todo: list[Expr] = [e for s in statements(body) for e in expressions(s)]
    found = []
    while todo:
        e = todo.pop()
        if id(e) not in seen:
            seen.add(id(e))
            todo += children(e)
            found.append(e)
    return found


def _counters(body: tuple[Stmt, ...], parts: list[Expr]) -> tuple[str, ...]:
    """The axes no loop of the body binds, in order of appearance."""
    indices = [i for s in statements(body) if isinstance(s, Store) for i in s.index]
    for e in parts:
        if isinstance(e, Load):
            indices += e.index
        elif isinstance(e, Iota):
            indices.append(e.index)
    indices += [f for s in statements(body) if isinstance(s, (For, Fold)) for f in s.within]
    named = [a for i in indices if isinstance(i, Affine) for a in i.axes]
    bound = {a.name for s in statements(body) if isinstance(s, (For, Fold)) for a in s.axes}
    return tuple(dict.fromkeys(a for a in named if a not in bound))


def _extent(name: str, buffers: Mapping[str, Buffer]) -> _Extent:
    """Where a buffer's bytes are, views looked through; a block of its own without an offset."""
    buffer = found = buffers[name]
    shift = 0
    while found.space == "view" and found.base is not None:
        shift += found.offset or 0
        found = buffers[found.base]
    if found.space in ("arena", "state") and found.offset is not None:
        start = found.offset + shift
        return _Extent(name, found.space, start, start + buffer.nbytes)
    return _Extent(name, f"{found.space} {found.name}", shift, shift + buffer.nbytes)


def _share(extents: list[_Extent]) -> list[list[_Extent]]:
    """Groups of overlapping buffers, each in order of address, the groups in order of first use.
    """
    order = {e.name: n for n, e in enumerate(extents)}
    groups: list[list[_Extent]] = []
    for e in sorted(extents, key=lambda e: (e.owner, e.start, order[e.name])):
        last = groups[-1] if groups else []
        if (
            last
            and last[0].owner == e.owner
            and (e.start < max(x.stop for x in last) or e.start == last[0].start)
        ):
            last.append(e)
        else:
            groups.append([e])
    return sorted(groups, key=lambda g: min(order[e.name] for e in g))


def _attributes(group: list[_Extent], buffers: Mapping[str, Buffer], read_only: bool) -> str:
    first = group[0]
    size = max(e.stop for e in group) - first.start
    align = buffers[first.name].type.dtype.bytes
    if first.owner in ("arena", "state"):
        align = math.gcd(first.start, 64) or 64
    words = ["ptr noalias noundef nonnull", f"align {align}"]
    words += [f"dereferenceable({size})"] if size else []
    return " ".join(words + (["readonly"] if read_only else []))
