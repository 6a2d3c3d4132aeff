"""A program as LLVM modules: its entry points, helpers, and one module for each distinct kernel.

Kernels whose text is the same but for their name are one function, named by a hash of that text,
so that objects can be kept and shared between models. Entry points check pointers and indices and
then call kernels at addresses known at compile time. Nothing is allocated, nothing outside is
called.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nncompiler.codegen import abi
from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.module_fit import fit_function
from nncompiler.codegen.module_text import HELPER_DECLARATIONS, HELPERS, FunctionText
from nncompiler.codegen.target import TRIPLE, Target
from nncompiler.codegen.ticks import DECLARATIONS as TICK_DECLARATIONS
from nncompiler.codegen.ticks import table_text
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Step
from nncompiler.ir.model import HEADER_BYTES, HEADER_OFFSETS, EntryPoint, Program
from nncompiler.ir.types import F32, I32

_PLACEHOLDER = "kernel"


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel of a plan: the function, the buffer whose address each parameter takes, and the
    counters behind."""

    function: str
    name: str
    nodes: tuple[str, ...]
    buffers: tuple[str, ...]
    counters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """A loop over calls: `counter` runs from 0 to extent - 1, or down with `reverse`."""

    counter: str
    extent: int
    reverse: bool
    calls: tuple[Call | Repeat, ...]


def flat(calls: Iterable[Call | Repeat]) -> Iterator[Call]:
    """Every call once, in the order in which it first runs."""
    for call in calls:
        if isinstance(call, Repeat):
            yield from flat(call.calls)
        else:
            yield call


@dataclass(frozen=True, slots=True)
class Modules:
    """LLVM text: the entry points, what they share, and one module for each kernel by name.

    `calls` are the kernels of each entry point, in order, by (function, suffix).
    """

    entries: str
    helpers: str
    kernels: Mapping[str, str]
    calls: Mapping[tuple[str, str], tuple[Call | Repeat, ...]]

    @property
    def parts(self) -> dict[str, str]:
        """Every module by name: ``entries``, ``helpers``, then the kernels."""
        return {"entries": self.entries, "helpers": self.helpers, **self.kernels}


def lower(
    program: Program, target: Target, weights: bytes | None = None, timed: bool = False
) -> Modules:
    """The modules of `program`; `weights` is an image of the parameters that `init` copies.

    With `timed`, every kernel's time is added up in a table (see `ticks`).
    """
    kernels: dict[str, str] = {}
    calls = {}
    for entry in program.entries:
        key = (entry.function, entry.suffix)
        if key in calls:
            raise CompilerBug("NN0580", f"two entry points '{entry.function}_{entry.suffix}'")
        calls[key] = _calls(entry.plan.steps, entry.plan.table(), target, kernels)
    entries = _EntryModule(program, target, calls, weights, timed).text()
    parts = [HELPERS.replace("ATTRIBUTES", target.attributes)]
    if timed:
        most = max((len(list(flat(found))) for found in calls.values()), default=0)
        parts.append(table_text(abi.symbol(program, "ticks"), most, target.attributes))
    helpers = module_text(parts)
    return Modules(entries, helpers, kernels, calls)


def _calls(
    steps: Sequence[Step], buffers: Mapping[str, Buffer], target: Target, kernels: dict[str, str]
) -> tuple[Call | Repeat, ...]:
    found: list[Call | Repeat] = []
    for step in steps:
        match step:
            case Loop(counter, extent, body, reverse):
                inner = _calls(body, buffers, target, kernels)
                found.append(Repeat(counter, extent, reverse, inner))
            case Kernel():
                found.append(_kernel_call(step, buffers, target, kernels))
    return tuple(found)


def _kernel_call(
    kernel: Kernel, buffers: Mapping[str, Buffer], target: Target, kernels: dict[str, str]
) -> Call:
    code = emit_kernel(kernel, buffers, target, _PLACEHOLDER)
    digest = hashlib.sha256(f"{target}\n{code.text}".encode()).hexdigest()
    name = f"k_{digest[:16]}"
    if name not in kernels:
        head = f"define internal void @{_PLACEHOLDER}("
        if code.text.count(head) != 1:
            raise CompilerBug("NN0580", f"kernel '{kernel.name}' is not one function")
        text = code.text.replace(head, f"define hidden void @{name}(")
        kernels[name] = module_text([*sorted(code.declarations), text])
    pointers = tuple(group[0] for group in code.pointers)
    return Call(name, kernel.name, kernel.nodes, pointers, code.counters)


def module_text(parts: Sequence[str]) -> str:
    return "\n".join([f'target triple = "{TRIPLE}"', *parts]) + "\n"


class _EntryModule:
    """Writes the module of the entry points."""

    def __init__(
        self,
        program: Program,
        target: Target,
        calls: Mapping[tuple[str, str], tuple[Call | Repeat, ...]],
        weights: bytes | None,
        timed: bool,
    ) -> None:
        self._program = program
        self._timed = timed
        self._slots: dict[str, int] = {}
        # straight-line calls: there is nothing to optimise, and trying takes long
        self._attributes = f"noinline optnone {target.attributes}"
        self._calls = calls
        self._weights = weights
        self._constants: dict[str, str] = {}

    def text(self) -> str:
        program = self._program
        functions = [self._sizes(), self._init(), self._load()]
        functions += [self._entry(entry) for entry in abi.public(program)]
        functions += [fit_function(program, fit, self._attributes) for fit in abi.fits(program)]
        types = {
            c.function: ["ptr"] * len(c.buffers) + ["i64"] * len(c.counters)
            for calls in self._calls.values()
            for c in flat(calls)
        }
        declarations = [
            f"declare hidden void @{name}({', '.join(t)}) nounwind"
            for name, t in sorted(types.items())
        ]
        parts = [*self._constants.values(), *declarations, HELPER_DECLARATIONS, *functions]
        if self._timed:
            parts.append(TICK_DECLARATIONS)
        return module_text(parts)

    def _sizes(self) -> str:
        state = self._program.state
        sizes = {
            "state_bytes": state.bytes,
            "infer_state_bytes": state.infer_bytes,
            "arena_bytes": abi.arena_bytes(self._program),
        }
        return "\n".join(
            f"define i64 @{abi.symbol(self._program, part)}() {self._attributes} {{\n"
            f"  ret i64 {size}\n}}"
            for part, size in sizes.items()
        )

    def _init(self) -> str:
        program = self._program
        f = FunctionText(abi.symbol(program, "init"), ["ptr %state", "i64 %seed"])
        f.require([("%state", 64)])
        f.line(f"call void @nn.zero(ptr %state, i64 {program.state.bytes})")
        f.line(f"store i64 %seed, ptr {f.offset('%state', HEADER_OFFSETS['seed'])}, align 8")
        rate, type = _float_literal(program)
        f.line(f"store {type} {rate}, ptr {f.offset('%state', HEADER_OFFSETS['rate'])}, align 8")
        for entry in program.entries:
            if entry.function == "init":
                if entry.plan.arena_bytes or entry.plan.arguments or entry.plan.checks:
                    raise CompilerBug("NN0580", "the plan of init needs more than the state")
                self._run(f, entry, {})
        if self._weights is not None:
            if len(self._weights) != program.state.infer_bytes - HEADER_BYTES:
                raise CompilerBug("NN0580", "the embedded weights are not those of this model")
            self._copy(f, self._constant(self._weights))
        return f.finish(self._attributes)

    def _load(self) -> str:
        program = self._program
        f = FunctionText(
            abi.symbol(program, "load"), ["ptr %state", "ptr %parameters", "i64 %bytes"]
        )
        f.require([("%state", 64), ("%parameters", 1)])
        size = program.state.infer_bytes - HEADER_BYTES
        f.refuse(f.assign(f"icmp ne i64 %bytes, {size}"), abi.WRONG_SIZE)
        self._copy(f, "%parameters")
        return f.finish(self._attributes)

    def _copy(self, f: FunctionText, source: str) -> None:
        size = self._program.state.infer_bytes - HEADER_BYTES
        to = f.offset("%state", HEADER_BYTES)
        f.line(f"call void @nn.copy(ptr {to}, ptr {source}, i64 {size})")

    def _entry(self, entry: EntryPoint) -> str:
        plan = entry.plan
        names = [f"%a{n}" for n in range(len(plan.arguments))]
        name = abi.symbol(self._program, entry.function, entry.suffix)
        f = FunctionText(name, [f"ptr {n}" for n in ("%state", "%arena", *names)])
        table = plan.table()
        values = dict(zip((a.buffer for a in plan.arguments), names, strict=True))
        aligned = [(n, table[buffer].type.dtype.bytes) for buffer, n in values.items()]
        arena = [("%arena", 64)] if plan.arena_bytes else []
        f.require([("%state", 64), *arena, *aligned])
        if entry.function == "infer" and abi.writes_state(plan):
            raise CompilerBug("NN0580", "the plan of infer writes the state")
        for check in plan.checks:
            if table[check.buffer].type.dtype != I32 or check.buffer not in values:
                raise CompilerBug("NN0580", f"'{check.buffer}' is not an i32 argument to check")
            count = table[check.buffer].type.size
            given = f"ptr {values[check.buffer]}, i64 {count}, i32 {check.extent}"
            good = f.assign(f"call i1 @nn.in_range({given})")
            f.refuse(f.assign(f"xor i1 {good}, true"), abi.INDEX_RANGE)
        self._run(f, entry, values)
        return f.finish(self._attributes)

    def _run(self, f: FunctionText, entry: EntryPoint, arguments: Mapping[str, str]) -> None:
        """Call every kernel of the plan, in order."""
        calls = self._calls[entry.function, entry.suffix]
        self._slots = {call.name: n for n, call in enumerate(flat(calls), 1)}
        if self._timed:
            f.line("call void @nn.stamp()")
        self._steps(f, calls, entry.plan.table(), arguments, {})

    def _steps(
        self,
        f: FunctionText,
        calls: Iterable[Call | Repeat],
        buffers: Mapping[str, Buffer],
        arguments: Mapping[str, str],
        counters: Mapping[str, str],
    ) -> None:
        for call in calls:
            if isinstance(call, Call):
                f.line(f"; {call.name}")
                pointers = [self._address(f, buffers, name, arguments) for name in call.buffers]
                values = [f"ptr {p}" for p in pointers] + [
                    f"i64 {counters[c]}" for c in call.counters
                ]
                f.line(f"call void @{call.function}({', '.join(values)})")
                if self._timed:
                    f.line(f"call void @nn.tick(i64 {self._slots[call.name]})")
            else:
                # addresses first: what a loop computes for itself would not reach the code behind
                # it
                for inner in flat(call.calls):
                    for name in inner.buffers:
                        self._address(f, buffers, name, arguments)
                with f.loop(call.extent, call.reverse) as value:
                    self._steps(
                        f, call.calls, buffers, arguments, {**counters, call.counter: value}
                    )

    def _address(
        self,
        f: FunctionText,
        buffers: Mapping[str, Buffer],
        name: str,
        arguments: Mapping[str, str],
    ) -> str:
        shift = 0
        buffer = buffers[name]
        while buffer.space == "view" and buffer.base is not None:
            shift += buffer.offset or 0
            buffer = buffers[buffer.base]
        if buffer.space in ("arena", "state") and buffer.offset is not None:
            return f.offset(f"%{buffer.space}", buffer.offset + shift)
        if buffer.name in arguments:
            return f.offset(arguments[buffer.name], shift)
        if buffer.data is not None:
            return f.offset(self._constant(buffer.data), shift)
        raise CompilerBug("NN0580", f"buffer '{name}' has no place in memory")

    def _constant(self, data: bytes) -> str:
        """The private global that holds `data`."""
        name = f"@c_{hashlib.sha256(data).hexdigest()[:16]}"
        if name not in self._constants:
            body = data.hex("\\")
            value = f'c"\\{body}"' if data else "zeroinitializer"
            self._constants[name] = (
                f"{name} = private unnamed_addr constant [{len(data)} x i8] {value}, align 64"
            )
        return name


def _float_literal(program: Program) -> tuple[str, str]:
    """The initial learning rate as LLVM text, and its type."""
    value = float(program.dtype.numpy.type(program.initial_rate))
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return f"0x{bits:016X}", "float" if program.dtype == F32 else "double"
