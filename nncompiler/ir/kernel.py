"""The Plan level: kernels as loop nests in plain data, buffers with offsets, and the order they
run in.

A kernel is a tree of four statements. Every `Load` and `Store` names a buffer by its logical
indices; strides and offsets belong to the `Buffer`. Axis names are unique within a kernel except
that sibling loops may share one.

    for i < 64 {                                  For(axes=(i,))
      m = max j < 10 { z[i,j] }                   Fold(("m",), "max", ...)
      e = exp(z[i,0] - m)                         Let("e", ...)
      out[i] = e                                  Store("out", (i,), e)
    }

Meaning: iterations of a `For` are independent, so they may run in any order or at once, unless it
is `ordered`. A `Fold` runs its body for every point of its axes and combines the `values`; its
results are locals of the enclosing scope. A `Fold` body may store (each point its own element),
so one pass can both reduce and write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from nncompiler.errors import CompilerBug, Span
from nncompiler.ir.scalar import Affine, Const, Expr, Index
from nncompiler.ir.types import TensorType
from nncompiler.record import dataclass, field


@dataclass(frozen=True, slots=True)
class Axis:
    name: str
    extent: int


@dataclass(frozen=True, slots=True)
class Let:
    """Bind a local; visible in the rest of its scope and the scopes inside."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Store:
    buffer: str
    index: tuple[Index, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class For:
    """``for axes { body }``. What the body stores at a point where one of the forms `within` is
    negative is zero, or nobody reads it: zeros may be stored there, and nothing computed."""

    axes: tuple[Axis, ...]
    body: tuple[Stmt, ...]
    ordered: bool = False
    within: tuple[Affine, ...] = ()


@dataclass(frozen=True, slots=True)
class Fold:
    """``names = combine axes { body; values }``; `init` replaces the combine's identity where
    given. A term at which one of the forms `within` is negative may be left out: it is zero, or
    nobody asks for it, or there is another one that is equal and a maximum needs one of them."""

    names: tuple[str, ...]
    combine: str
    axes: tuple[Axis, ...]
    values: tuple[Expr, ...]
    body: tuple[Stmt, ...] = ()
    init: tuple[Const, ...] | None = None
    within: tuple[Affine, ...] = ()


Stmt: TypeAlias = Let | Store | For | Fold


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a nest is run. `loops`: the axes in `vector` run over SIMD lanes (at most one on each
    path of nesting). So many steps as `unroll` says of loops over `register` stand side by side:
    each statement inside runs for all of them before the next one does.

    `contract`: the kernel is one sum of products under a `For`; `vector` and `register` are the
    axes of the register tile of `tile` = (rows, columns); `order` lists the parallel axes, then
    the reduction axes, both from the outside in. When `vector` is a reduction axis, lanes are
    partial sums added up at the end, and columns the last axis of one factor alone in front of all
    sums. A second name in `vector`, that of the register axis, says that sums are turned: the
    epilogue's lanes run along it. A reduction axis before parallel ones runs around their tiles,
    whose accumulators then wait in memory. With `pack`, the factor that varies along the columns
    is copied for so many columns at a time, turned to lines along a reduced vector axis; if
    `order` names the columns twice, these blocks run at the first place and their tiles at the
    second. With `unroll`, whole tiles take so many steps of the innermost reduction axis at once.

    `turn`: the kernel is one copy, contiguous along `register` where it reads and along
    `vector` where it writes.

    `parallel`: the outermost loops whose steps the workers of a step share out among them, from
    the outside in; without any, worker 0 runs the kernel alone. With `parts`, the steps fall into
    so many parts of equal size, which workers take as they go, each its own first; without, each
    worker has one part. With `alternate`, the counter of a plan loop around the kernel, whoever
    runs some steps of the outermost of these loops does so backwards in every second round; and
    with `backwards`, the reduction axis, sums are added up from their last term to the first then.
    """

    strategy: str = "loops"
    vector: tuple[str, ...] = ()
    register: str | None = None
    tile: tuple[int, int] | None = None
    order: tuple[str, ...] = ()
    pack: int = 0
    unroll: int = 1
    parallel: tuple[str, ...] = ()
    parts: int = 0
    alternate: str | None = None
    backwards: str | None = None


@dataclass(frozen=True, slots=True)
class Kernel:
    """One function of the generated code. `nodes` are the graph values it implements, `spans`
    their sources. With `barrier`, all workers meet before it."""

    name: str
    body: tuple[Stmt, ...]
    schedule: Schedule = Schedule()
    nodes: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    barrier: bool = False


#: Where a buffer's bytes are. `arena`: at `offset` of the arena. `state`: at `offset` of the
#: state. `argument`: the caller's pointer. `view`: the bytes of another buffer (`base`) under
#: another shape. `constant`: read-only data.
SPACES = ("arena", "state", "argument", "view", "constant")


@dataclass(frozen=True, slots=True)
class Buffer:
    """`live` is the first and last step (inclusive) at which the bytes must be kept; None outside
    the arena.

    `in_place_of` names the buffer whose offset this one takes over; `data` are the bytes of a
    constant.
    """

    name: str
    type: TensorType
    space: str
    offset: int | None = None
    strides: tuple[int, ...] | None = None
    live: tuple[int, int] | None = None
    base: str | None = None
    in_place_of: str | None = None
    data: bytes | None = field(default=None, repr=False)

    @property
    def layout(self) -> tuple[int, ...]:
        """Strides in elements; row-major unless said otherwise."""
        return self.strides if self.strides is not None else self.type.strides

    @property
    def nbytes(self) -> int:
        """Bytes from the first to behind the last element, as laid out."""
        if self.type.size == 0:
            return 0
        last = sum((n - 1) * s for n, s in zip(self.type.shape, self.layout, strict=True))
        return (last + 1) * self.type.dtype.bytes


@dataclass(frozen=True, slots=True)
class Loop:
    """Plan steps repeated `extent` times with a counter (what `scan` becomes).

    `recompute` says that the steps begin with computing again what a loop before did not keep.
    The workers of a step share out the rounds of a `parallel` loop; with `barrier`, all of them
    meet before it.
    """

    counter: str
    extent: int
    body: tuple[Step, ...]
    reverse: bool = False
    recompute: bool = False
    parallel: bool = False
    barrier: bool = False


Step: TypeAlias = Kernel | Loop


@dataclass(frozen=True, slots=True)
class Argument:
    """A pointer of the entry point: an `input` or `target` (read) or an `output` (written), in
    ABI order."""

    buffer: str
    role: str


@dataclass(frozen=True, slots=True)
class Check:
    """Every element of an i32 argument, or of a part of it (positions along each dimension), must
    lie in ``0 <= x < extent``; tested before anything is written."""

    buffer: str
    extent: int
    part: tuple[range, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One function, ready for code generation: steps in order, buffers placed. `bound` is the
    live-byte bound."""

    name: str
    arguments: tuple[Argument, ...]
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    arena_bytes: int = 0
    bound: int = 0
    state_bytes: int = 0
    checks: tuple[Check, ...] = ()

    def buffer(self, name: str) -> Buffer:
        for b in self.buffers:
            if b.name == name:
                return b
        raise CompilerBug("NN0392", f"plan '{self.name}' has no buffer '{name}'")

    def table(self) -> dict[str, Buffer]:
        return {b.name: b for b in self.buffers}

    def root(self, name: str) -> Buffer:
        """The buffer that owns the bytes `name` stands for (views looked through)."""
        found = self.buffer(name)
        while found.space == "view" and found.base is not None:
            found = self.buffer(found.base)
        return found

    def kernels(self) -> Iterator[Kernel]:
        yield from kernels_of(self.steps)

    def loops(self) -> Iterator[Loop]:
        """Every loop, those around others first."""
        yield from _loops(self.steps)


def kernels_of(steps: Iterable[Step]) -> Iterator[Kernel]:
    """Every kernel, those in loops as well, in order."""
    for step in steps:
        match step:
            case Kernel():
                yield step
            case Loop(body=body):
                yield from kernels_of(body)


def _loops(steps: tuple[Step, ...]) -> Iterator[Loop]:
    for step in steps:
        if isinstance(step, Loop):
            yield step
            yield from _loops(step.body)
