"""The verifier of plans: buffers, their places and lifetimes, and every kernel (`verify_kernel`).

A plan whose arena buffers have no offsets yet (before the memory pass) is held to everything else.
"""

from __future__ import annotations

import re

from nncompiler.ir.body import reads_and_writes
from nncompiler.ir.index_bounds import is_part
from nncompiler.ir.kernel import SPACES, Buffer, Kernel, Loop, Plan, Step
from nncompiler.ir.lifetimes import lifetimes, outermost_loops
from nncompiler.ir.model import ALIGNMENT, HEADER_BYTES
from nncompiler.ir.text.plan import plan_lines
from nncompiler.ir.text.scan import NAME
from nncompiler.ir.types import I32
from nncompiler.ir.verify import Diagnostic, report, type_problem
from nncompiler.ir.verify_kernel import verify_kernel
from nncompiler.ir.verify_workers import verify_workers

ROLES = ("input", "target", "output")


def verify_plan(plan: Plan) -> list[Diagnostic]:
    """Every problem of a plan; an empty list when it is well-formed."""
    verifier = _Verifier(plan)
    verifier.interface()
    verifier.buffers()
    if not verifier.found:
        verifier.find_roots()
        verifier.overlaps()
        verifier.steps(plan.steps, {})
    if not verifier.found:
        verifier.order()
        verifier.states()
    return verifier.found or verify_workers(plan)


def check_plan(plan: Plan) -> None:
    """`UserError` NN0321 with the text and its problems unless the plan is well-formed."""
    if found := verify_plan(plan):
        report("NN0321", f"plan '@{plan.name}'", plan_lines(plan), found)


class _Verifier:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.table = plan, plan.table()
        self.found: list[Diagnostic] = []
        self.kernels = len(list(plan.kernels()))
        self.kernel_names: set[str] = set()
        self.roots: dict[str, Buffer] = {}
        self.readonly: set[str] = set()
        arena = [b for b in plan.buffers if b.space == "arena"]
        self.placed = any(b.offset is not None for b in arena)
        self.timed = any(b.live is not None for b in arena)

    def error(self, anchor: object, message: str) -> None:
        self.found.append(Diagnostic(message, anchor))

    # --- arguments and checks ---

    def interface(self) -> None:
        plan, seen = self.plan, set()
        for argument in plan.arguments:
            buffer = self.table.get(argument.buffer)
            if buffer is None or buffer.space != "argument":
                self.error(plan.arguments, f"no argument buffer is called '{argument.buffer}'")
            if argument.role not in ROLES:
                self.error(plan.arguments, f"no role of arguments is called '{argument.role}'")
            if argument.buffer in seen:
                self.error(plan.arguments, f"argument '{argument.buffer}' is given twice")
            seen.add(argument.buffer)
        for buffer in plan.buffers:
            if buffer.space == "argument" and buffer.name not in seen:
                self.error(buffer, f"'{buffer.name}' is not among the arguments")
        for check in plan.checks:
            buffer = self.table.get(check.buffer)
            if buffer is None or buffer.space != "argument" or buffer.type.dtype != I32:
                self.error(check, f"expected an i32 argument, but found '{check.buffer}'")
            elif check.part and not is_part(check.part, buffer.type.shape):
                self.error(check, f"'{check.buffer}' has no such part: it is {buffer.type}")

    # --- buffers ---

    def buffers(self) -> None:
        seen: set[str] = set()
        for buffer in self.plan.buffers:
            if not re.fullmatch(NAME, buffer.name):
                self.error(buffer, f"'{buffer.name}' is not a name")
            if buffer.name in seen:
                self.error(buffer, f"buffer '{buffer.name}' is defined twice")
            seen.add(buffer.name)
            if (message := self._layout(buffer) or self._place(buffer)) is not None:
                self.error(buffer, message)

    def _layout(self, b: Buffer) -> str | None:
        if b.space not in SPACES:
            return f"no space is called '{b.space}'"
        if message := type_problem(b.type):
            return message
        if b.strides is not None and len(b.strides) != b.type.rank:
            return f"expected {b.type.rank} strides, but found {len(b.strides)}"
        if b.strides is not None and any(s < 0 for s in b.strides):
            return "expected strides of at least 0"
        if (b.data is not None) != (b.space == "constant"):
            return f"a buffer in space '{b.space}' {'has no' if b.data else 'needs'} data"
        if (b.base is not None) != (b.space == "view"):
            return f"a buffer in space '{b.space}' {'has no' if b.base else 'needs a'} base"
        if b.space == "constant" and len(b.data or b"") != b.nbytes:
            return f"expected {b.nbytes} bytes of data, but found {len(b.data or b'')}"
        if b.space != "arena" and (b.live is not None or b.in_place_of is not None):
            return "only arena buffers have a lifetime or take the place of another"
        return None

    def _place(self, b: Buffer) -> str | None:
        match b.space:
            case "arena":
                return self._arena(b)
            case "state":
                start = b.offset
                if start is None or start < 0:
                    return "a state buffer needs an offset"
                if start % (b.type.dtype.bytes if start < HEADER_BYTES else ALIGNMENT):
                    return f"offset {start} is not aligned"
                return self._inside(start, b.nbytes, self.plan.state_bytes, "state")
            case "view":
                return self._view(b)
            case _:
                return None if b.offset is None else f"a buffer in space '{b.space}' has no offset"

    def _inside(self, start: int, size: int, limit: int, what: str) -> str | None:
        if start + size <= limit:
            return None
        return f"ends at byte {start + size}, but the {what} has {limit} bytes"

    def _arena(self, b: Buffer) -> str | None:
        if self.timed and b.live is None:
            return "this arena buffer has no lifetime, but others have"
        if b.live and not 0 <= b.live[0] <= b.live[1] < max(1, self.kernels):
            return f"no kernels k{b.live[0]}..k{b.live[1]}: there are {self.kernels}"
        if message := self._in_place(b):
            return message
        if not self.placed:
            return None
        if b.offset is None or b.offset < 0:
            return "this arena buffer has no offset, but others have"
        if b.offset % ALIGNMENT:
            return f"offset {b.offset} is not a multiple of {ALIGNMENT}"
        return self._inside(b.offset, b.nbytes, self.plan.arena_bytes, "arena")

    def _in_place(self, b: Buffer) -> str | None:
        if b.in_place_of is None:
            return None
        other = self.table.get(b.in_place_of)
        if other is None or other.space != "arena" or other is b:
            return f"no other arena buffer is called '{b.in_place_of}'"
        if other.offset != b.offset:
            return f"expected the offset of '{other.name}', {other.offset}, but found {b.offset}"
        if other.nbytes < b.nbytes:
            return f"'{other.name}' has {other.nbytes} bytes, fewer than the {b.nbytes} needed"
        if b.live and other.live and other.live[1] > b.live[0] and not self._stepwise(b, other):
            return f"'{other.name}' is still live after kernel k{b.live[0]}"
        return None

    def _stepwise(self, b: Buffer, other: Buffer) -> bool:
        """Whether `b` begins and `other` ends with one and the same loop."""
        spans = ((first, last) for _, first, last in outermost_loops(self.plan.steps))
        return bool(b.live and other.live and (b.live[0], other.live[1]) in spans)

    def find_roots(self) -> None:
        """Whose bytes every buffer stands for, and which of them may not be written."""
        inputs = {a.buffer for a in self.plan.arguments if a.role != "output"}
        for b in self.plan.buffers:
            root = b
            while root.space == "view":
                root = self.table[root.base or ""]
            self.roots[b.name] = root
            if root.space == "constant" or root.name in inputs:
                self.readonly.add(b.name)

    def _view(self, b: Buffer) -> str | None:
        seen, root = {b.name}, b
        while root.space == "view":
            found = self.table.get(root.base or "")
            if found is None:
                return f"no buffer is called '{root.base}'"
            if found.name in seen:
                return f"'{b.name}' is a view of itself"
            seen.add(found.name)
            root = found
        base = self.table[b.base or ""]
        start = b.offset or 0
        if start < 0 or start % b.type.dtype.bytes:
            return f"offset {start} is not aligned"
        return self._inside(start, b.nbytes, base.nbytes, f"base '{base.name}'")

    def overlaps(self) -> None:
        """No two live arena buffers share bytes, but where one takes the other's place."""
        if not (self.placed and self.timed):
            return
        arena = [b for b in self.plan.buffers if b.space == "arena" and b.nbytes]
        active: list[Buffer] = []
        for b in sorted(arena, key=_first_kernel):
            active = [a for a in active if _last_kernel(a) >= _first_kernel(b)]
            for a in active:
                start = max(a.offset or 0, b.offset or 0)
                end = min((a.offset or 0) + a.nbytes, (b.offset or 0) + b.nbytes)
                if start < end and not (self._replaces(b, a) or self._replaces(a, b)):
                    self.error(b, f"shares bytes {start}..{end - 1} with '{a.name}', also live")
            active.append(b)

    def states(self) -> None:
        """State that a kernel writes shares no bytes with other state; equal constants of a frozen
        model, which nobody writes, may."""
        kernels = self.plan.kernels()
        written = {n for k in kernels for n in self._roots(reads_and_writes(k)[1], "state")}
        state = [b for b in self.plan.buffers if b.space == "state" and b.nbytes]
        active: list[Buffer] = []
        for b in sorted(state, key=lambda b: b.offset or 0):
            active = [a for a in active if (a.offset or 0) + a.nbytes > (b.offset or 0)]
            for a in active:
                if a.name in written or b.name in written:
                    self.error(b, f"shares bytes with '{a.name}', and a kernel writes one of them")
            active.append(b)

    def _replaces(self, b: Buffer, a: Buffer) -> bool:
        """Does `b`, in one or more steps, take the place of `a`?"""
        seen: set[str] = set()
        while b.in_place_of is not None and b.name not in seen:
            seen.add(b.name)
            b = self.table[b.in_place_of]
            if b is a:
                return True
        return False

    # --- steps ---

    def steps(self, steps: tuple[Step, ...], counters: dict[str, int]) -> None:
        for step in steps:
            match step:
                case Loop(counter, extent, body):
                    if counter in counters:
                        self.error(step, f"counter '{counter}' is used by a loop around this one")
                    if isinstance(extent, bool) or not isinstance(extent, int) or extent < 0:
                        self.error(step, f"expected an extent of at least 0, but found {extent!r}")
                    else:
                        self.steps(body, {**counters, counter: extent})
                case Kernel():
                    if step.name in self.kernel_names:
                        self.error(step, f"kernel '{step.name}' is defined twice")
                    self.kernel_names.add(step.name)
                    self.found += verify_kernel(step, self.table, self.readonly, counters)

    def order(self) -> None:
        """Arena buffers are written before they are read, and kept while somebody needs them."""
        written: set[str] = set()
        anchors = list(self.plan.kernels())
        for kernel in anchors:
            reads, writes = (self._roots(n) for n in reads_and_writes(kernel))
            written |= writes
            for name in sorted(reads - written):
                self.error(kernel, f"reads '{name}' before any kernel writes it")
        roots = {name: root.name for name, root in self.roots.items()}
        for name, needed in lifetimes(self.plan.steps, roots).items():
            live = self.table[name].live
            if live and not live[0] <= needed.first <= needed.last <= live[1]:
                missed = needed.first if needed.first < live[0] else needed.last
                wanted = f"'{name}' is needed in k{needed.first}..k{needed.last}"
                self.error(anchors[missed], f"{wanted}, but lives k{live[0]}..k{live[1]}")

    def _roots(self, names: frozenset[str], space: str = "arena") -> set[str]:
        return {r.name for n in names if (r := self.roots[n]).space == space}


def _first_kernel(b: Buffer) -> int:
    return b.live[0] if b.live else 0


def _last_kernel(b: Buffer) -> int:
    return b.live[1] if b.live else 0
