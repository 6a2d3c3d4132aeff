"""LLVM text under construction: lines, names, blocks, and loops with carried values.

`Blocks` appends to one function body and tracks the current block, so that structured loops can
write their phis. What has no effect is written once, in front of all loops that it does not depend
on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from nncompiler.codegen.instructions.value import Value
from nncompiler.record import dataclass, field

_NAME = re.compile(r"%\w+")
_MULTIPLE = re.compile(r"mul (?:nuw )?nsw i64 (%\w+), (-?\d+)")

Counter = int | str
Body = Callable[[Counter, list[Value]], list[Value]]


@dataclass(slots=True)
class _Region:
    """A loop, or what runs on a condition only, while it is being written: the lines in front of
    it, the values of instructions that stand in it, and whether there are loops in it.
    """

    conditional: bool = False
    outer: bool = False
    front: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)


class Blocks:
    """Appends to the body of one function."""

    def __init__(self) -> None:
        self._lines: list[str | list[str]] = []
        self.declarations: set[str] = set()
        self.allocations: list[str] = []
        self.block = "entry"
        self._count = 0
        self._regions = [_Region()]
        self._depth: dict[str, int] = {}
        #: All values of the regions that are open, by their instructions.
        self._known: dict[str, str] = {}
        self._declared: set[str] = set()

    def fresh(self, stem: str = "v") -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def text(self) -> str:
        """All lines so far."""
        lines = self.allocations.copy()
        for line in self._lines:
            lines += [line] if isinstance(line, str) else line
        return "\n".join(lines)

    def line(self, text: str) -> None:
        self._lines.append(f"  {text}")

    def assign(self, instruction: str, fixed: bool = False) -> str:
        """The name of the value of `instruction`, which is written unless it is there already;
        one that might give something else elsewhere is `fixed`: a load of what is written, a phi.
        """
        if fixed:
            return self._define(instruction, len(self._regions) - 1)
        name = self._known.get(instruction)
        if name is None:
            home = self._home(instruction)
            name = self._known[instruction] = self._define(instruction, home)
            self._regions[home].values[instruction] = name
        return name

    def depth(self, name: str) -> int:
        """How many loops and conditions are around what gives a name its value."""
        return self._depth.get(name, 0)

    def _home(self, instruction: str) -> int:
        """The region in which to compute: the outermost one that has all operands, but no
        condition is left, or else what is needed on it alone would run always.
        """
        home, last, depths = 0, len(self._regions) - 1, self._depth
        for name in _NAME.findall(instruction):
            depth = depths.get(name, 0)
            if depth >= last:
                return last
            if depth > home:
                home = depth
        while home < last and self._regions[home + 1].conditional:
            home += 1
        return home

    def _define(self, instruction: str, home: int) -> str:
        self._count += 1
        name = f"%v{self._count}"
        self._depth[name] = home
        line = f"  {name} = {instruction}"
        if home == len(self._regions) - 1:
            self._lines.append(line)
        else:
            self._regions[home + 1].front.append(line)
        return name

    @contextmanager
    def _region(self, conditional: bool = False) -> Iterator[_Region]:
        """What is written in here runs in a region of its own."""
        region = _Region(conditional)
        self._regions.append(region)
        yield region
        self._regions.pop()
        for instruction in region.values:
            del self._known[instruction]

    def times(self, number: Counter, factor: int) -> Counter:
        """The product of numbers that are not negative."""
        if isinstance(number, int):
            return number * factor
        return self.assign(f"mul nuw nsw i64 {number}, {factor}")

    def scratch(self, size: int) -> str:
        """The address of `size` bytes of stack, aligned for any vector."""
        name = f"%{self.fresh('scratch')}"
        self.allocations.append(f"  {name} = alloca [{size} x i8], align 64")
        return name

    def intrinsic(
        self, name: str, result: str, args: Sequence[tuple[str, str]], fixed: bool = False
    ) -> str:
        """Call an LLVM intrinsic with (type, text) arguments; ``void`` returns an empty name."""
        if name not in self._declared:
            self._declared.add(name)
            types = ", ".join([t for t, _ in args])
            self.declarations.add(f"declare {result} @{name}({types})")
        call = f"call {result} @{name}({', '.join([f'{t} {x}' for t, x in args])})"
        if result == "void":
            self.line(call)
            return ""
        return self.assign(call, fixed)

    def loop(
        self, start: int, stop: int, step: int, carried: Sequence[Value], body: Body
    ) -> list[Value]:
        """Run ``body(counter, carried)`` for start, start + step, ... below stop; one iteration is
        straight-line.
        """
        trips = max(0, -(-(stop - start) // step))
        if trips <= 1:
            return body(start, list(carried)) if trips else list(carried)
        return self._repeat(str(start), str(start + trips * step), step, carried, body)

    def span(
        self, start: Counter, stop: Counter, carried: Sequence[Value], body: Body, step: int = 1
    ) -> list[Value]:
        """`loop` between bounds that may be known at run time only; `start` is not negative, and
        the last step may reach beyond `stop`.
        """
        return self.unless_empty(
            [(start, stop)], carried, lambda c: self.some(start, stop, c, body, step)
        )

    def unless_empty(
        self,
        spans: Sequence[tuple[Counter, Counter]],
        carried: Sequence[Value],
        body: Callable[[list[Value]], list[Value]],
    ) -> list[Value]:
        """``body(carried)`` where no span is empty, else what is carried."""
        if any(a >= b for a, b in spans if isinstance(a, int) and isinstance(b, int)):
            return list(carried)
        tests = [
            self.assign(f"icmp slt i64 {a}, {b}")
            for a, b in spans
            if not (isinstance(a, int) and isinstance(b, int))
        ]
        if not tests:
            return body(list(carried))
        full = tests[0]
        for test in tests[1:]:
            full = self.assign(f"and i1 {full}, {test}")
        some, after, before = self.fresh("some"), self.fresh("after"), self.block
        with self._region() as region:
            self._lines.append(region.front)
            self.line(f"br i1 {full}, label %{some}, label %{after}")
            self.enter(some)
            results = body(list(carried))
            last = self.block
            self.line(f"br label %{after}")
        self.enter(after)
        found = []
        for old, new in zip(carried, results, strict=True):
            incoming = f"[ {old.text}, %{before} ], [ {new.text}, %{last} ]"
            joined = self.assign(f"phi {old.type} {incoming}", fixed=True)
            found.append(Value(joined, old.dtype, old.lanes))
        return found

    def some(
        self, start: Counter, stop: Counter, carried: Sequence[Value], body: Body, step: int = 1
    ) -> list[Value]:
        """`span` where it is not empty."""
        if isinstance(start, int) and isinstance(stop, int):
            return self.loop(start, stop, step, carried, body)
        return self._repeat(str(start), str(stop), step, carried, body)

    def _repeat(
        self, start: str, stop: str, step: int, carried: Sequence[Value], body: Body
    ) -> list[Value]:
        """Blocks that run at least once."""
        head, after, before = self.fresh("head"), self.fresh("after"), self.block
        for around in self._regions:
            around.outer = True
        with self._region() as region:
            self._lines.append(region.front)
            self.line(f"br label %{head}")
            self.enter(head)
            hole = len(self._lines)
            self._lines += [""] * (1 + len(carried))
            counter = self._named("i")
            phis = [Value(self._named("phi"), c.dtype, c.lanes) for c in carried]
            results = body(counter, phis)
            following = self.assign(f"add nuw nsw i64 {counter}, {step}")
            back = f"%{self.block}"
            sums = [] if region.outer else self._sums(region, hole, counter, start, step)
            more = self.assign(f"icmp ult i64 {following}, {stop}")
            self.line(f"br i1 {more}, label %{head}, label %{after}")
        counters = f"[ {start}, %{before} ], [ {following}, {back} ]"
        self._lines[hole] = f"  {counter} = phi i64 {counters}"
        for i, (phi, first, last) in enumerate(zip(phis, carried, results, strict=True), hole + 1):
            incoming = f"[ {first.text}, %{before} ], [ {last.text}, {back} ]"
            self._lines[i] = f"  {phi.text} = phi {phi.type} {incoming}"
        self._lines[hole:hole] = [
            f"  {name} = phi i64 [ {first}, %{before} ], [ {last}, {back} ]"
            for name, first, last in sums
        ]
        self.enter(after)
        for x in results:  # values of a loop that ran belong to the region around it
            self._depth[x.text] = min(self.depth(x.text), len(self._regions) - 1)
        return results

    def _sums(
        self, region: _Region, body: int, counter: str, start: str, step: int
    ) -> list[tuple[str, str, str]]:
        """Multiples of the counter of an innermost loop become sums that the loop carries: their
        names, first values and following ones. In outer loops these would only take registers.
        """
        found = []
        for instruction, name in region.values.items():
            match = _MULTIPLE.fullmatch(instruction)
            if match is None or match[1] != counter:
                continue
            line = f"  {name} = {instruction}"
            if line not in self._lines[body:]:
                continue
            self._lines.remove(line)
            factor = int(match[2])
            if start.startswith("%"):
                first = f"{name}.first"
                region.front.append(f"  {first} = mul i64 {start}, {factor}")
            else:
                first = str(int(start) * factor)
            self.line(f"{name}.next = add i64 {name}, {step * factor}")
            found.append((name, first, f"{name}.next"))
        return found

    def _named(self, stem: str) -> str:
        """A fresh name for a value of the current region."""
        name = f"%{self.fresh(stem)}"
        self._depth[name] = len(self._regions) - 1
        return name

    def when(self, at: Counter, start: Counter, stop: Counter, body: Body) -> None:
        """Run ``body`` if start <= at < stop; nothing is asked where that is known."""
        inside = "true"
        for word, bound in (("sge", start), ("slt", stop)):
            test = self.assign(f"icmp {word} i64 {at}, {bound}")
            inside = self.assign(f"and i1 {inside}, {test}")
        then, after = self.fresh("then"), self.fresh("after")
        self.line(f"br i1 {inside}, label %{then}, label %{after}")
        with self._region(conditional=True):
            self.enter(then)
            body(at, [])
            self.line(f"br label %{after}")
        self.enter(after)

    def enter(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self.block = label
