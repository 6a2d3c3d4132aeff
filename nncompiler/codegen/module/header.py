"""The C header of an artifact: sizes, codes, the parameters' places, and prototypes, explained.

C99 (and C++), no dependency but `stddef.h` and `stdint.h`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from nncompiler.codegen.module import abi
from nncompiler.codegen.module.abi import Fit
from nncompiler.codegen.module.workers import POOL_BYTES
from nncompiler.codegen.target import Target
from nncompiler.ir.model import HEADER_BYTES, EntryPoint, Program
from nncompiler.ir.types import TensorType

_CONVENTIONS = """\
/*
 * {name}: {what}; see the example at the end.
 *
 * The caller owns all memory. `state` ({upper}_STATE_BYTES; for {name}_infer_* the first
 * {upper}_INFER_STATE_BYTES suffice) and `arena` ({upper}_ARENA_BYTES) begin at multiples of 64.
 * The arena need not be initialised and keeps nothing between calls; arrays are dense, row-major,
 * aligned to their elements, and may not overlap what the call writes.
 * The code runs on CPUs of level {cpu} and above, which it does not check.
 * Nothing is allocated, no thread is started, no other library is used. A call never writes its
 * `const` arguments: {name}_infer_* may run in several threads, each with an arena of its own.
 *
 * {name}_init: fills the state: {init}.
{load} */
"""

_LOAD = """\
 * {name}_load: copies trained parameters, {upper}_PARAMETERS_BYTES of them, into the state; each
 *   lies at its offset below, less {upper}_PARAMETERS_OFFSET.
"""

_FIT = (
    "Trains on `rows` rows in mini-batches of {rows}; a rest of fewer rows is left alone. The "
    "rows are order[0], order[1], ... of the arrays (which must have them) or, with "
    "order == NULL, rows 0, 1, ... without a copy. For each batch, {rows} * loss is added to "
    "loss_sum[0]{more}. A batch that is refused ends the call with its code; the batches before "
    "it stay trained."
)


_THREADS = """\
/*
 * {name}_parallel_*: the same, to the same bits, on several threads, which the caller brings. A
 * pool ({upper}_POOL_BYTES, from a multiple of 64) is made for so many `threads`, 1 to 256; then
 * further threads call {name}_worker with `id` 1 to threads - 1, and stay inside until
 * {name}_pool_stop. Without them a call waits for ever. The thread that calls {name}_parallel_*
 * is worker 0: one at a time, a call that finds the pool busy runs alone. Between calls workers
 * watch for work for about a millisecond, then sleep.
 */
size_t {name}_pool_bytes(void);
int {name}_pool(void *pool, int64_t threads);
int {name}_worker(void *pool, int64_t id);
int {name}_pool_stop(void *pool);
"""


def header_text(program: Program, target: Target, weights: bool = False) -> str:
    """The header; `weights` when the artifact embeds trained parameters."""
    name = abi.identifier(program.name)
    upper = name.upper()
    init = "step 0, the embedded parameters, `seed` for random draws"
    if not weights:
        init = "step 0, random parameters drawn from `seed`"
        if not abi.draws(program):
            init = f"step 0, zeros: {name}_load gives the parameters, as `init` was not compiled"
    what, load = "inference and training as plain functions", _LOAD.format(name=name, upper=upper)
    if program.state.frozen:
        what, load = "inference as plain functions, its parameters frozen", ""
        init = "the constants that parameters became, `seed` for random draws"
    parts = [
        f"#ifndef {upper}_H\n#define {upper}_H\n\n#include <stddef.h>\n#include <stdint.h>\n",
        _CONVENTIONS.format(
            name=name, upper=upper, what=what, init=init, load=load, cpu=target.cpu
        ),
        "#ifdef __cplusplus\nextern \"C\" {\n#endif\n",
        _codes(upper),
        _sizes(program, upper),
        _parameters(program, upper),
        _fixed_prototypes(name),
        *(_prototype(program, e) for e in abi.public(program)),
        *(_fit_prototype(f) for f in abi.fits(program)),
        _parallel(program),
        "#ifdef __cplusplus\n}\n#endif\n",
        _example(program),
        f"#endif /* {upper}_H */",
    ]
    return "\n".join(p for p in parts if p) + "\n"


def _codes(upper: str) -> str:
    lines = ["/* What functions that return int return. */"]
    lines += [f"#define {upper}_{code} {value} /* {text} */" for code, value, text in abi.CODES]
    return "\n".join(lines) + "\n"


def _sizes(program: Program, upper: str) -> str:
    state = program.state
    sizes = {
        "STATE_BYTES": state.bytes,
        "INFER_STATE_BYTES": state.infer_bytes,
        "ARENA_BYTES": abi.arena_bytes(program),
        "PARAMETERS_OFFSET": HEADER_BYTES,
        "PARAMETERS_BYTES": state.parameter_bytes,
    }
    if abi.parallel_exports(program):
        sizes["POOL_BYTES"] = POOL_BYTES
    lines = [f"#define {upper}_{key} ((size_t){value})" for key, value in sizes.items()]
    return "\n".join(["/* Sizes in bytes. */", *lines]) + "\n"


def _parameters(program: Program, upper: str) -> str:
    """Where each parameter lies in the state."""
    entries = [e for e in program.state.entries if e.kind in ("param", "state")]
    if not entries:
        return ""
    taken: set[str] = set()
    lines = ["/* Offsets of the parameters in the state, in bytes. */"]
    for e in entries:
        key = f"{upper}_OFFSET_{abi.identifier(e.name)}"
        while key in taken:
            key += "_"
        taken.add(key)
        lines.append(f"#define {key} ((size_t){e.offset}) /* {e.name}: {e.type} */")
    return "\n".join(lines) + "\n"


def _fixed_prototypes(name: str) -> str:
    return "\n".join(
        [
            f"size_t {name}_state_bytes(void);",
            f"size_t {name}_infer_state_bytes(void);",
            f"size_t {name}_arena_bytes(void);",
            f"int {name}_init(void *state, uint64_t seed);",
            f"int {name}_load(void *state, const void *parameters, size_t bytes);",
            "",
        ]
    )


def _pointer(type: TensorType, name: str, written: bool) -> str:
    qualifier = "" if written else "const "
    return f"{qualifier}{abi.c_type(type.dtype)} *{name}"


def _parallel(program: Program) -> str:
    """What callers that bring threads use; nothing where one thread has all the work."""
    if not abi.parallel_exports(program):
        return ""
    name = abi.identifier(program.name)
    parts = [_THREADS.format(name=name, upper=name.upper())]
    parts += [
        _declaration(symbol, ["void *pool", *_parameters_of(e)])
        for e in abi.public(program)
        if (symbol := abi.parallel_symbol(program, e))
    ]
    parts += [
        _declaration(symbol, ["void *pool", *_fit_parameters(f)])
        for f in abi.fits(program)
        if (symbol := abi.parallel_symbol(program, f.entry, fit=True))
    ]
    return "".join(parts)


def _prototype(program: Program, entry: EntryPoint) -> str:
    table = entry.plan.table()
    shapes = []
    for argument, name in zip(entry.plan.arguments, abi.argument_names(entry.plan), strict=True):
        shapes.append(f"{name} {table[argument.buffer].type}")
    comment = f"/* {', '.join(shapes)} */\n" if shapes else ""
    symbol = abi.symbol(program, entry.function, entry.suffix)
    return comment + _declaration(symbol, _parameters_of(entry))


def _parameters_of(entry: EntryPoint) -> list[str]:
    table = entry.plan.table()
    state = "void *state" if abi.writes_state(entry.plan) else "const void *state"
    names = zip(entry.plan.arguments, abi.argument_names(entry.plan), strict=True)
    given = [_pointer(table[a.buffer].type, name, a.role == "output") for a, name in names]
    return [state, "void *arena", *given]


def _fit_prototype(fit: Fit) -> str:
    plan = fit.entry.plan
    names = dict(zip((a.buffer for a in plan.arguments), abi.argument_names(plan), strict=True))
    losses = ", ".join(names[s.argument.buffer] for s in fit.losses)
    more = f", and so on: {losses}" if len(fit.losses) > 1 else ""
    text = textwrap.wrap(_FIT.format(rows=fit.entry.rows, more=more), 95)
    comment = "\n".join(["/*", *(f" * {line}" for line in text), " */", ""])
    return comment + _declaration(fit.symbol, _fit_parameters(fit))


def _fit_parameters(fit: Fit) -> list[str]:
    plan = fit.entry.plan
    names = dict(zip((a.buffer for a in plan.arguments), abi.argument_names(plan), strict=True))
    given = [_pointer(s.type, names[s.argument.buffer], False) for s in fit.given]
    return ["void *state", "void *arena", *given, "const int64_t *order", "int64_t rows",
            "double *loss_sum"]  # fmt: skip


def _declaration(symbol: str, parameters: Sequence[str]) -> str:
    line = f"int {symbol}({', '.join(parameters)});"
    if len(line) > 99:
        line = f"int {symbol}(\n    " + ",\n    ".join(parameters) + ");"
    return line + "\n"


def _example(program: Program) -> str:
    """A whole program, as a comment."""
    name = abi.identifier(program.name)
    upper = name.upper()
    lines = [
        f"Example: cc -std=c11 example.c {name}.so -Wl,-rpath,'$ORIGIN' -o example",
        "",
        "  #include <stdio.h>",
        "  #include <stdlib.h>",
        f'  #include "{name}.h"',
        "",
        "  int main(void) {",
        f"      void *state = aligned_alloc(64, ({upper}_STATE_BYTES + 63) / 64 * 64);",
        f"      void *arena = aligned_alloc(64, ({upper}_ARENA_BYTES + 64) / 64 * 64);",
        f"      int code = {name}_init(state, 42);",
        *(f"      {line}" for line in _example_call(program)),
        '      printf("%d\\n", code);',
        "      free(arena);",
        "      free(state);",
        "      return code;",
        "  }",
    ]
    return "/*\n" + "\n".join(f" * {line}".rstrip() for line in lines) + "\n */\n"


def _example_call(program: Program) -> list[str]:
    """One call each of the first inference and the first training step."""
    lines = []
    for function in ("infer", "train_step"):
        for entry in [e for e in program.entries if e.function == function][:1]:
            table = entry.plan.table()
            names = abi.argument_names(entry.plan)
            lines.append("if (!code) {")
            for argument, name in zip(entry.plan.arguments, names, strict=True):
                type = table[argument.buffer].type
                lines.append(f"    static {abi.c_type(type.dtype)} {name}[{type.size}];")
            symbol = abi.symbol(program, entry.function, entry.suffix)
            lines += [f"    code = {symbol}({', '.join(['state', 'arena', *names])});", "}"]
    return lines
