"""The C interface of an artifact as data: names, arguments, return codes, where `fit` stages rows.

What machine code, header and manifest must agree on is decided here and nowhere else.
"""

from __future__ import annotations

import re

from nncompiler.errors import CompilerBug
from nncompiler.ir.body import stores
from nncompiler.ir.kernel import Argument, Plan
from nncompiler.ir.model import HEADER_BYTES, EntryPoint, Program, align
from nncompiler.ir.types import DType, TensorType
from nncompiler.record import dataclass

VERSION = 2

#: What every function that returns `int` may return, with what it means.
CODES = (
    ("OK", 0, "done"),
    ("INDEX_RANGE", 1, "an index lies outside of what it indexes; the step wrote nothing"),
    ("WRONG_SIZE", 2, "load: not the size of this model's parameters"),
    ("BAD_POINTER", 3, "a pointer is NULL or not aligned"),
    ("BAD_THREADS", 4, "pool: not 1 to 256 threads; worker: no such worker"),
)
OK, INDEX_RANGE, WRONG_SIZE, BAD_POINTER, BAD_THREADS = (code for _, code, _ in CODES)

#: Threads that a pool may have.
MOST_THREADS = 256

_C_TYPES = {
    "f32": "float", "f64": "double", "i32": "int32_t", "i64": "int64_t", "u8": "uint8_t",
    "u32": "uint32_t", "u64": "uint64_t", "bool": "uint8_t",
}
_OWN_NAMES = {"state", "arena", "seed", "parameters", "bytes", "order", "rows", "loss_sum", "pool",
              "threads", "id"}  # fmt: skip
_KEYWORDS = {
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else",
    "enum", "extern", "float", "for", "goto", "if", "inline", "int", "long", "register",
    "restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch", "typedef",
    "union", "unsigned", "void", "volatile", "while", "bool", "true", "false",
}


def c_type(dtype: DType) -> str:
    return _C_TYPES[dtype.name]


def identifier(name: str) -> str:
    """`name` as a C identifier."""
    text = re.sub(r"\W", "_", name.removeprefix("%"), flags=re.ASCII)
    return f"_{text}" if not text or text[0].isdigit() else text


def symbol(program: Program, *parts: str) -> str:
    """``NAME_infer_b64``: the exported name, made of the model's and the parts not empty."""
    return "_".join((identifier(program.name), *(identifier(p) for p in parts if p)))


def argument_names(plan: Plan) -> list[str]:
    """C names of an entry point's arguments: distinct, and neither keywords nor the ABI's own."""
    taken = set(_OWN_NAMES) | _KEYWORDS
    names = []
    for argument in plan.arguments:
        name = identifier(argument.buffer)
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names


@dataclass(frozen=True, slots=True)
class Staged:
    """An argument of a training step and the place in the arena where `fit` puts it.

    `row_bytes` is 0 for what is passed on unchanged (then there is no `offset`) and for results.
    """

    argument: Argument
    type: TensorType
    offset: int | None
    row_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """The loop over mini-batches around one training step; the staging area follows its arena."""

    entry: EntryPoint
    symbol: str
    arguments: tuple[Staged, ...]
    arena_bytes: int

    @property
    def given(self) -> tuple[Staged, ...]:
        return tuple(s for s in self.arguments if s.argument.role != "output")

    @property
    def losses(self) -> tuple[Staged, ...]:
        return tuple(s for s in self.arguments if s.argument.role == "output")


def fit_of(program: Program, entry: EntryPoint) -> Fit:
    """How `fit` calls the training step `entry`."""
    table = entry.plan.table()
    end = align(entry.plan.arena_bytes)
    staged = []
    for argument in entry.plan.arguments:
        type = table[argument.buffer].type
        if argument.role == "output":
            if type.size != 1 or not type.dtype.is_float:
                raise CompilerBug("NN0580", f"expected a loss, but '{argument.buffer}' is {type}")
            staged.append(Staged(argument, type, end))
        elif argument.buffer in entry.batched:
            if not entry.rows or type.shape[:1] != (entry.rows,):
                raise CompilerBug(
                    "NN0580", f"'{argument.buffer}' is {type}, not a batch of {entry.rows} rows"
                )
            staged.append(Staged(argument, type, end, type.nbytes // entry.rows))
        else:
            staged.append(Staged(argument, type, None))
            continue
        end = align(end + type.nbytes)
    return Fit(entry, symbol(program, "fit", entry.suffix), tuple(staged), end)


def fits(program: Program) -> tuple[Fit, ...]:
    return tuple(fit_of(program, e) for e in program.entries if e.function == "train_step")


def arena_bytes(program: Program) -> int:
    """What the largest entry point needs, the staging areas of `fit` included."""
    needs = [e.plan.arena_bytes for e in program.entries] + [f.arena_bytes for f in fits(program)]
    return max(needs, default=0)


def exports(program: Program) -> list[str]:
    """Every exported function, in the order of the header."""
    fixed = ("state_bytes", "infer_state_bytes", "arena_bytes", "init", "load")
    names = [symbol(program, part) for part in fixed]
    names += [symbol(program, e.function, e.suffix) for e in public(program)]
    names += [f.symbol for f in fits(program)]
    names += parallel_exports(program)
    if len(set(names)) != len(names):
        raise CompilerBug("NN0580", f"two entry points share a name among {', '.join(names)}")
    return names


def is_parallel(plan: Plan) -> bool:
    """Whether there is work for more than one thread."""
    return any(k.schedule.parallel for k in plan.kernels())


def parallel_symbol(program: Program, entry: EntryPoint, fit: bool = False) -> str:
    """The entry point that takes a pool; empty where one thread has all the work."""
    if not is_parallel(entry.plan):
        return ""
    return symbol(program, "parallel", "fit" if fit else entry.function, entry.suffix)


def parallel_exports(program: Program) -> list[str]:
    """What a program exports for callers that bring threads; nothing if no function needs them."""
    names = [parallel_symbol(program, e) for e in public(program)]
    names += [parallel_symbol(program, f.entry, fit=True) for f in fits(program)]
    names = [n for n in names if n]
    fixed = ("pool_bytes", "pool", "worker", "pool_stop")
    return [*(symbol(program, part) for part in fixed), *names] if names else []


def writes_state(plan: Plan) -> bool:
    """Whether a kernel stores into the state; if not, its pointer is `const`."""
    stored = {s.buffer for kernel in plan.kernels() for s in stores(kernel)}
    return any(plan.root(name).space == "state" for name in stored)


def draws(program: Program) -> bool:
    """Whether `init` gives all parameters their values; without its plan they are zeros."""
    bare = program.state.infer_bytes == HEADER_BYTES
    return bare or any(e.function == "init" for e in program.entries)


def public(program: Program) -> list[EntryPoint]:
    """The entry points exported as they are; the plan of `init` has its own signature."""
    return [e for e in program.entries if e.function != "init"]
