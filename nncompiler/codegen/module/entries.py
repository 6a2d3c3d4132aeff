"""The module of the entry points: they check pointers and indices, and then call kernels."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from nncompiler.codegen.module import abi, workers
from nncompiler.codegen.module.checks import refuse_outside
from nncompiler.codegen.module.fit import fit_function
from nncompiler.codegen.module.run import Call, Constants, Repeat, Run, flat
from nncompiler.codegen.module.text import HELPER_DECLARATIONS, FunctionText
from nncompiler.codegen.module.ticks import DECLARATIONS as TICK_DECLARATIONS
from nncompiler.codegen.module.workers import WORKER, WORKERS
from nncompiler.codegen.objects.bundles import module_text
from nncompiler.codegen.target import Target
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Plan
from nncompiler.ir.model import HEADER_BYTES, HEADER_OFFSETS, EntryPoint, Program
from nncompiler.ir.types import F32, I32


class EntryModule:
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
        # straight-line calls: there is nothing to optimise, and trying takes long
        self._attributes = f"noinline optnone {target.attributes}"
        self._calls = calls
        self._weights = weights
        self._constants = Constants()

    def text(self) -> str:
        program = self._program
        functions = [self._sizes(), self._init(), self._load()]
        functions += [self._entry(entry) for entry in abi.public(program)]
        fits = abi.fits(program)
        functions += [fit_function(program, fit, self._attributes) for fit in fits]
        shared = [e for e in abi.public(program) if abi.is_parallel(e.plan)]
        for entry in shared:
            functions += [self._crew(entry), self._parallel_entry(entry)]
        functions += [
            fit_function(program, fit, self._attributes, parallel=True)
            for fit in fits
            if fit.entry in shared
        ]
        if shared:
            name = abi.identifier(program.name)
            functions += [workers.DECLARATIONS, workers.functions_text(name, self._attributes)]
        types = {c.function: c.parameters for calls in self._calls.values() for c in flat(calls)}
        declarations = [
            f"declare hidden void @{name}({', '.join(t)}) nounwind"
            for name, t in sorted(types.items())
        ]
        parts = [*self._constants.texts.values(), *declarations, HELPER_DECLARATIONS, *functions]
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
            self._copy(f, self._constants.add(self._weights), len(self._weights))
        return f.finish(self._attributes)

    def _load(self) -> str:
        program = self._program
        f = FunctionText(
            abi.symbol(program, "load"), ["ptr %state", "ptr %parameters", "i64 %bytes"]
        )
        f.require([("%state", 64), ("%parameters", 1)])
        size = program.state.parameter_bytes
        f.refuse(f.assign(f"icmp ne i64 %bytes, {size}"), abi.WRONG_SIZE)
        self._copy(f, "%parameters", size)
        return f.finish(self._attributes)

    def _copy(self, f: FunctionText, source: str, size: int) -> None:
        to = f.offset("%state", HEADER_BYTES)
        f.line(f"call void @nn.copy(ptr {to}, ptr {source}, i64 {size})")

    def _entry(self, entry: EntryPoint) -> str:
        names = _argument_values(entry.plan)
        name = abi.symbol(self._program, entry.function, entry.suffix)
        f = FunctionText(name, [f"ptr {n}" for n in ("%state", "%arena", *names)])
        self._check(f, entry)
        if abi.is_parallel(entry.plan):
            f.line(_crew_call(entry, "null", "0", "1"))
        else:
            buffers = (a.buffer for a in entry.plan.arguments)
            self._run(f, entry, dict(zip(buffers, names, strict=True)))
        return f.finish(self._attributes)

    def _check(self, f: FunctionText, entry: EntryPoint) -> None:
        """Refuse bad pointers and indices out of range."""
        plan = entry.plan
        table = plan.table()
        values = dict(zip((a.buffer for a in plan.arguments), _argument_values(plan), strict=True))
        aligned = [(n, table[buffer].type.dtype.bytes) for buffer, n in values.items()]
        arena = [("%arena", 64)] if plan.arena_bytes else []
        f.require([("%state", 64), *arena, *aligned])
        if entry.function == "infer" and abi.writes_state(plan):
            raise CompilerBug("NN0580", "the plan of infer writes the state")
        for check in plan.checks:
            if table[check.buffer].type.dtype != I32 or check.buffer not in values:
                raise CompilerBug("NN0580", f"'{check.buffer}' is not an i32 argument to check")
            refuse_outside(f, values[check.buffer], table[check.buffer].type, check)

    def _run(self, f: FunctionText, entry: EntryPoint, arguments: Mapping[str, str]) -> None:
        """Call every kernel of the plan, in order."""
        calls = self._calls[entry.function, entry.suffix]
        table = entry.plan.table()
        Run(f, table, arguments, self._constants, timed=self._timed).run(calls)

    # --- for callers that bring threads ---

    def _crew(self, entry: EntryPoint) -> str:
        """The program of one worker, and the job that calls it with the arguments given."""
        plan = entry.plan
        names = _argument_values(plan)
        parameters = [f"ptr {n}" for n in ("%pool", "%state", "%arena", *names)]
        numbers = [f"i64 {WORKER}", f"i64 {WORKERS}"]
        f = FunctionText(_crew_name(entry), [*parameters, *numbers], "internal ")
        values = dict(zip((a.buffer for a in plan.arguments), names, strict=True))
        run = Run(f, plan.table(), values, self._constants, crew=True, timed=self._timed)
        run.run(self._calls[entry.function, entry.suffix])
        given = ["%state", "%arena", *names]
        loads = "".join(
            f"  {n}.at = getelementptr ptr, ptr %given, i64 {k}\n  {n} = load ptr, ptr {n}.at\n"
            for k, n in enumerate(given)
        )
        head = f"define internal void @job.{_crew_name(entry)}"
        return f.finish(self._attributes) + (
            f"\n{head}(ptr %pool, i64 {WORKER}, i64 {WORKERS}, ptr %given) {self._attributes} {{\n"
            f"{loads}  {_crew_call(entry, '%pool', WORKER, WORKERS)}\n  ret void\n}}"
        )

    def _parallel_entry(self, entry: EntryPoint) -> str:
        """The entry point with a pool: its caller is worker 0, the others wait for jobs."""
        name = abi.parallel_symbol(self._program, entry)
        given = ["%state", "%arena", *_argument_values(entry.plan)]
        f = FunctionText(name, [f"ptr {n}" for n in ("%pool", *given)])
        f.require([("%pool", 64)])
        self._check(f, entry)
        threads = f.assign("call i64 @nn.enter(ptr %pool)")
        several = f.assign(f"icmp ugt i64 {threads}, 1")
        job = f.assign(f"alloca [{len(given)} x ptr], align 8")
        for k, value in enumerate(given):
            f.line(f"store ptr {value}, ptr {f.offset(job, 8 * k)}, align 8")
        with f.when(several):
            f.line(f"call void @nn.start(ptr %pool, ptr @job.{_crew_name(entry)}, ptr {job})")
        f.line(_crew_call(entry, "%pool", "0", threads))
        with f.when(several):
            f.line("call void @nn.leave(ptr %pool)")
        return f.finish(self._attributes)


def _argument_values(plan: Plan) -> list[str]:
    return [f"%a{n}" for n in range(len(plan.arguments))]


def _crew_name(entry: EntryPoint) -> str:
    return f"nn.crew.{entry.function}.{entry.suffix}"


def _crew_call(entry: EntryPoint, pool: str, worker: str, workers: str) -> str:
    values = [pool, "%state", "%arena", *_argument_values(entry.plan)]
    given = ", ".join(f"ptr {v}" for v in values)
    return f"call i32 @{_crew_name(entry)}({given}, i64 {worker}, i64 {workers})"


def _float_literal(program: Program) -> tuple[str, str]:
    """The initial learning rate as LLVM text, and its type."""
    value = float(program.dtype.numpy.type(program.initial_rate))
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return f"0x{bits:016X}", "float" if program.dtype == F32 else "double"
