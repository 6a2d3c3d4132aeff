"""A program as LLVM modules: its entry points, helpers, and its distinct kernels.

Kernels whose text is the same but for their name are one function, named by a hash of that text,
so that equal modules of them have equal text, whose objects can be kept. Entry points check
pointers and indices and then call kernels at addresses known at compile time. Nothing is
allocated, nothing outside is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence

from nncompiler.codegen.kernel import Emitted, emit_kernel
from nncompiler.codegen.module import abi, workers
from nncompiler.codegen.module.entries import EntryModule
from nncompiler.codegen.module.run import Call, Repeat, flat
from nncompiler.codegen.module.text import HELPERS
from nncompiler.codegen.module.ticks import table_text
from nncompiler.codegen.objects.bundles import bundled, module_text
from nncompiler.codegen.target import Target
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Step
from nncompiler.ir.model import Program
from nncompiler.record import dataclass, field

_PLACEHOLDER = "kernel"


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
    steps = lowering(program, target, weights, timed)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            modules: Modules = end.value
            return modules


def lowering(
    program: Program, target: Target, weights: bytes | None = None, timed: bool = False
) -> Generator[str, None, Modules]:
    """The same step by step: the text of modules of one or more kernels when it is there,
    ``entries`` and ``helpers`` last."""
    kernels: dict[str, str] = {}
    emitter = _KernelModules(target, kernels)
    calls = {}
    for entry in program.entries:
        key = (entry.function, entry.suffix)
        if key in calls:
            raise CompilerBug("NN0580", f"two entry points '{entry.function}_{entry.suffix}'")
        calls[key] = yield from bundled(emitter.calls(entry.plan.steps, entry.plan.table()))
    entries = EntryModule(program, target, calls, weights, timed).text()
    parts = [HELPERS.replace("ATTRIBUTES", target.attributes)]
    if abi.parallel_exports(program):
        parts.append(workers.helpers_text(target.attributes))
    if timed:
        most = max((len(list(flat(found))) for found in calls.values()), default=0)
        parts.append(table_text(abi.symbol(program, "ticks"), most, target.attributes))
    helpers = module_text(parts)
    yield entries
    yield helpers
    return Modules(entries, helpers, kernels, calls)


@dataclass(slots=True)
class _KernelModules:
    """Emits kernels: `kernels` are the modules by name, `names` those of functions by text."""

    target: Target
    kernels: dict[str, str]
    names: dict[str, str] = field(default_factory=dict)
    emitted: Emitted = field(default_factory=dict)

    def calls(
        self, steps: Sequence[Step], buffers: Mapping[str, Buffer]
    ) -> Generator[tuple[str, str], None, tuple[Call | Repeat, ...]]:
        """What runs `steps`; gives name and text of every kernel that is new."""
        found: list[Call | Repeat] = []
        for step in steps:
            match step:
                case Loop(counter, extent, body, reverse):
                    inner = yield from self.calls(body, buffers)
                    split = step.parallel, step.barrier
                    found.append(Repeat(counter, extent, reverse, inner, *split))
                case Kernel():
                    known = len(self.kernels)
                    found.append(call := self.call(step, buffers))
                    if len(self.kernels) > known:
                        yield call.function, self.kernels[call.function]
        return tuple(found)

    def call(self, kernel: Kernel, buffers: Mapping[str, Buffer]) -> Call:
        code = emit_kernel(kernel, buffers, self.target, _PLACEHOLDER, self.emitted)
        name = self.names.get(code.text)
        if name is None:
            digest = hashlib.sha256(f"{self.target}\n{code.text}".encode()).hexdigest()
            name = self.names[code.text] = f"k_{digest[:16]}"
            head = f"define internal void @{_PLACEHOLDER}("
            if code.text.count(head) != 1:
                raise CompilerBug("NN0580", f"kernel '{kernel.name}' is not one function")
            text = code.text.replace(head, f"define hidden void @{name}(")
            self.kernels[name] = module_text([*sorted(code.declarations), text])
        pointers = tuple(group[0] for group in code.pointers)
        return Call(
            name, kernel.name, kernel.nodes, pointers, code.counters, code.split,
            kernel.schedule.parts, kernel.barrier, kernel.schedule.alternate,
        )  # fmt: skip
