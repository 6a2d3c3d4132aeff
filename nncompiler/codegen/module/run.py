"""LLVM text that runs the kernels of a plan, at addresses known at compile time.

Without a crew it runs every kernel where it is. With one it is the program that every worker of a
step runs: split kernels are told who they are, the others are left to worker 0, and all meet at
the barriers and at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from nncompiler.codegen.module.text import FunctionText
from nncompiler.codegen.module.workers import SELF_BYTES, WORKER, WORKERS
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Buffer
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel of a plan: the function, the buffer whose address each parameter takes, and the
    counters behind; whether workers share it, in how many `parts` if they take them as they go,
    and whether they meet before it. Where the counter `alternate` is odd, they take their parts
    in the opposite order."""

    function: str
    name: str
    nodes: tuple[str, ...]
    buffers: tuple[str, ...]
    counters: tuple[str, ...] = ()
    split: bool = False
    parts: int = 0
    barrier: bool = False
    alternate: str | None = None

    @property
    def parameters(self) -> list[str]:
        """Their types in LLVM."""
        return ["ptr"] * len(self.buffers) + ["i64"] * (len(self.counters) + 2 * self.split)


@dataclass(frozen=True, slots=True)
class Repeat:
    """A loop over calls: `counter` runs from 0 to extent - 1, or down with `reverse`; whether
    workers share its rounds, and whether they meet before it."""

    counter: str
    extent: int
    reverse: bool
    calls: tuple[Call | Repeat, ...]
    split: bool = False
    barrier: bool = False


def flat(calls: Iterable[Call | Repeat]) -> Iterator[Call]:
    """Every call once, in the order in which it first runs."""
    for call in calls:
        if isinstance(call, Repeat):
            yield from flat(call.calls)
        else:
            yield call


class Constants:
    """Read-only data as private globals, each once."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def add(self, data: bytes) -> str:
        """The global that holds `data`."""
        name = f"@c_{hashlib.sha256(data).hexdigest()[:16]}"
        if name not in self.texts:
            body = data.hex("\\")
            value = f'c"\\{body}"' if data else "zeroinitializer"
            self.texts[name] = (
                f"{name} = private unnamed_addr constant [{len(data)} x i8] {value}, align 64"
            )
        return name


@dataclass(frozen=True, slots=True)
class Run:
    """Where the calls are written: `arguments` are the values of the plan's arguments by buffer.

    With `crew`, the function has the values `%pool`, `%worker` and `%workers`. With `timed`, the
    time after each kernel is stamped, by worker 0 (see `ticks`).
    """

    f: FunctionText
    buffers: Mapping[str, Buffer]
    arguments: Mapping[str, str]
    constants: Constants
    crew: bool = False
    timed: bool = False

    def run(self, calls: tuple[Call | Repeat, ...]) -> None:
        """Call every kernel, in order."""
        slots = {call.name: n for n, call in enumerate(flat(calls), 1)}
        if self.crew:
            self._introduce()
        if self.timed:
            with self._alone():
                self.f.line("call void @nn.stamp()")
        self._steps(calls, {}, slots)
        if self.crew:
            self._meet()

    def _alone(self) -> AbstractContextManager[None]:
        if not self.crew:
            return nullcontext()
        number = self.f.assign("load i64, ptr %me, align 8")
        return self.f.when(self.f.assign(f"icmp eq i64 {number}, 0"))

    def _introduce(self) -> None:
        """Put what a worker tells of itself, and its part of a kernel, into memory: in registers
        they would be moved around at every call, which takes code, and LLVM's time."""
        f = self.f
        f.line(f"%me = alloca [{SELF_BYTES} x i8], align 8")
        told = f"i64 {WORKER}", f"i64 {WORKERS}", "ptr %pool", "i64 -1"
        for n, value in enumerate(told):
            f.line(f"store {value}, ptr {f.offset('%me', 8 * n)}, align 8")
        behind = f.assign(f"add i64 {WORKER}, 1")
        own = f.assign(f"or i64 {WORKER}, {f.assign(f'shl i64 {behind}, 32')}")
        f.line("%own = alloca i64, align 8")
        f.line(f"store i64 {own}, ptr %own, align 8")

    def _meet(self) -> None:
        self.f.line("call void @nn.meet(ptr %me)")
        self.f.forget()
        if self.timed:
            with self._alone():
                self.f.line("call void @nn.met()")

    def _steps(
        self,
        calls: Iterable[Call | Repeat],
        counters: Mapping[str, str],
        slots: Mapping[str, int],
        shared: bool = False,
    ) -> None:
        """Within a `shared` loop, every worker runs all calls of its rounds."""
        for call in calls:
            if isinstance(call, Call):
                self._call(call, counters, slots, shared)
                continue
            if call.barrier and self.crew:
                self._meet()
            with self._rounds(call) as value:
                inner = {**counters, call.counter: value}
                self._steps(call.calls, inner, slots, shared or call.split)

    @contextmanager
    def _rounds(self, loop: Repeat) -> Iterator[str]:
        """What is written inside runs for every round of a loop that is this worker's; gives the
        counter.
        """
        f = self.f
        if not (loop.split and self.crew):
            with f.loop(loop.extent, loop.reverse) as value:
                yield value
            return
        with self._claimed(loop.extent) as got:
            first = f.assign(f"and i64 {got}, {0xFFFFFFFF}")
            behind = f.assign(f"lshr i64 {got}, 32")
            with f.span(first, behind) as value:
                yield value

    def _claimed(self, parts: int | str) -> AbstractContextManager[str]:
        """What is written inside runs for the parts that this worker takes, as often as it takes
        some.
        """
        return self.f.until_negative(f"call i64 @nn.claim(ptr %me, i64 {parts})")

    def _call(
        self, call: Call, counters: Mapping[str, str], slots: Mapping[str, int], shared: bool
    ) -> None:
        f = self.f
        f.line(f"; {call.name}")
        if call.barrier and self.crew:
            self._meet()
        with self._parts(call, counters, shared) as part:
            values = [f"ptr {self._address(name)}" for name in call.buffers]
            values += [f"i64 {counters[c]}" for c in call.counters]
            values += [f"i64 {n}" for n in part]
            f.line(f"call void @{call.function}({', '.join(values)})")
        if self.timed:
            with self._alone():
                f.line(f"call void @nn.tick(i64 {slots[call.name]})")

    @contextmanager
    def _parts(
        self, call: Call, counters: Mapping[str, str], shared: bool
    ) -> Iterator[tuple[object, ...]]:
        """What is written inside runs for this worker's parts of a kernel: it is given them, and
        the number of all.
        """
        if not call.split:
            with nullcontext() if shared else self._alone():
                yield ()
        elif not self.crew:
            yield 1 << 32, 1
        elif not call.parts:
            f = self.f
            yield f.assign("load i64, ptr %own, align 8"), WORKERS
        else:
            with self._claimed(self._ordered(call, counters)) as got:
                yield got, call.parts

    def _ordered(self, call: Call, counters: Mapping[str, str]) -> int | str:
        """The number of parts, negative where they are taken in the opposite order."""
        if call.alternate is None:
            return call.parts
        odd = self.f.assign(f"trunc i64 {counters[call.alternate]} to i1")
        return self.f.assign(f"select i1 {odd}, i64 {-call.parts}, i64 {call.parts}")

    def _address(self, name: str) -> str:
        f, shift = self.f, 0
        buffer = self.buffers[name]
        while buffer.space == "view" and buffer.base is not None:
            shift += buffer.offset or 0
            buffer = self.buffers[buffer.base]
        if buffer.space in ("arena", "state") and buffer.offset is not None:
            return f.offset(f"%{buffer.space}", buffer.offset + shift)
        if buffer.name in self.arguments:
            return f.offset(self.arguments[buffer.name], shift)
        if buffer.data is not None:
            return f.offset(self.constants.add(buffer.data), shift)
        raise CompilerBug("NN0580", f"buffer '{name}' has no place in memory")
