"""Which kernels of a plan the bytes of each buffer must survive; kernels are counted in the order
in which they first run.

    kernel k0: %1 = …                 %1   k0..k3   every step of the loop reads it
    loop t < 64 {                     %2   k1..k2   a step writes it, then reads it: it is local
      kernel k1: %2 = … %1            %3   k2..k3   %3[t] of every step is there in the end
      kernel k2: %3[t] = … %2
    }                                 so %3 lives from k1: k1 of the next step must not touch it
    kernel k3: y = … %3
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nncompiler.ir.body import accesses
from nncompiler.ir.fingerprint import alike, signature
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Step, Stmt, Store
from nncompiler.ir.scalar import Affine
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Lifetime:
    """First and last kernel, inclusive. `home` are the loops, outermost first, of which each step
    has a value of its own there."""

    first: int
    last: int
    home: tuple[Loop, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """What one kernel does with the bytes of one buffer. `writes_first`: nothing that an earlier
    kernel left there is read before the kernel stores; `axes` occur in its indices."""

    kernel: int
    loops: tuple[Loop, ...]
    writes_first: bool
    axes: frozenset[str]


def lifetimes(steps: Sequence[Step], roots: Mapping[str, str]) -> dict[str, Lifetime]:
    """The lifetime of every buffer that the kernels touch; `roots` says whose bytes each buffer
    stands for."""
    kernels = list(placed(steps))
    spans: dict[int, tuple[int, int]] = {}
    for k, (_, loops) in enumerate(kernels):
        for loop in loops:
            spans[id(loop)] = (spans.get(id(loop), (k, k))[0], k)
    uses: dict[str, list[Use]] = {}
    for k, (kernel, loops) in enumerate(kernels):
        for name, (first, axes) in _touched(kernel, roots).items():
            uses.setdefault(name, []).append(Use(k, loops, first, frozenset(axes)))
    return {name: _lifetime(found, spans) for name, found in uses.items()}


def placed(
    steps: Sequence[Step], loops: tuple[Loop, ...] = ()
) -> Iterator[tuple[Kernel, tuple[Loop, ...]]]:
    """Every kernel in order, with the loops around it."""
    for step in steps:
        match step:
            case Kernel():
                yield step, loops
            case Loop(body=body):
                yield from placed(body, (*loops, step))


def outermost_loops(steps: Sequence[Step]) -> Iterator[tuple[Loop, int, int]]:
    """The loops that no loop is around, each with its first and last kernel."""
    count = 0
    for step in steps:
        inside = len(list(placed((step,))))
        if isinstance(step, Loop) and inside:
            yield step, count, count + inside - 1
        count += inside


def roots_of(buffers: Mapping[str, Buffer]) -> dict[str, str]:
    """For every buffer the one that owns its bytes (views looked through)."""
    found = {}
    for name, b in buffers.items():
        root = b
        while root.space == "view" and root.base is not None:
            root = buffers[root.base]
        found[name] = root.name
    return found


def _touched(kernel: Kernel, roots: Mapping[str, str]) -> dict[str, tuple[bool, set[str]]]:
    """Per buffer: whether its first access in the text is a store, and the axes of its indices."""
    found: dict[str, tuple[bool, set[str]]] = {}
    first: dict[str, int] = {}
    names = signature(kernel.body).buffers
    for name, (at, stores, own) in zip(names, _accessed(kernel.body), strict=True):
        root = roots[name]
        earlier, axes = found.get(root, (stores, set[str]()))
        found[root] = (stores if at <= first.setdefault(root, at) else earlier, axes)
        first[root] = min(first[root], at)
        axes.update(own)
    return found


@alike
def _accessed(body: tuple[Stmt, ...]) -> tuple[tuple[int, bool, frozenset[str]], ...]:
    """Of the buffers in the order of the signature: the number of the first access, whether it is
    a store, and the axes of all indices.

    A store at a computed place does not count: another step may store elsewhere.
    """
    found: dict[str, tuple[int, bool, set[str]]] = {}
    for n, x in enumerate(accesses(body)):
        stores = isinstance(x, Store) and all(isinstance(i, Affine) for i in x.index)
        _, _, axes = found.setdefault(x.buffer, (n, stores, set()))
        axes.update([a for i in x.index if isinstance(i, Affine) for a, _ in i.terms])
    ordered = [found[name] for name in signature(body).buffers]
    return tuple([(n, stores, frozenset(axes)) for n, stores, axes in ordered])


def _lifetime(uses: Sequence[Use], spans: Mapping[int, tuple[int, int]]) -> Lifetime:
    common = uses[0].loops
    for use in uses:
        same = [a is b for a, b in zip(common, use.loops, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    home: tuple[Loop, ...] = ()
    for loop in common:
        if not uses[0].writes_first or any(loop.counter in u.axes for u in uses):
            break
        home = (*home, loop)
    inside = len(home)
    ends = [
        spans[id(u.loops[inside])] if len(u.loops) > inside else (u.kernel, u.kernel)
        for u in uses
    ]
    return Lifetime(min(a for a, _ in ends), max(b for _, b in ends), home)
