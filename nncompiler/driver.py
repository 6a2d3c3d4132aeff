"""From source to artifact: the one file that knows every stage, in order.

    parse ─▶ elaborate ─▶ autodiff, optimizer ─▶ passes ─▶ schedule, tile, memory ─▶ LLVM ─▶ ELF

`Compilation` holds the stages of one source file for one binding of its free sizes and runs each
on demand; `compile_artifact` puts several bindings into one shared object.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nncompiler.errors import Limitation, Source, UserError, nearest
from nncompiler.ir.graph import Function
from nncompiler.ir.image import pack
from nncompiler.ir.kernel import Plan
from nncompiler.ir.model import EntryPoint, Network, Program, StateLayout, lay_out
from nncompiler.ir.text import print_function, print_plan
from nncompiler.ir.types import DTYPES, Array
from nncompiler.passes.initial import apart, writing
from nncompiler.passes.manager import Hook, Pass, run_passes
from nncompiler.passes.pipelines import OPTIMISE
from nncompiler.record import dataclass, field

if TYPE_CHECKING:
    from nncompiler.codegen.emit import Artifact, Compile
    from nncompiler.codegen.target import Target
    from nncompiler.lang.syntax import File

T = TypeVar("T")

#: Functions of a compiled model, in ABI order; `init` and `apply` do not depend on the free sizes.
FUNCTIONS = ("init", "infer", "loss", "grad", "input_grad", "train_step", "apply")
#: Those that are compiled only where they are named: most models do without.
NAMED = ("input_grad",)
UNBOUND = ("init", "apply")

#: What a model must have for a function that not every model has.
_NEEDS = {
    "infer": "write `output NAME = ...` in the model",
    "loss": "write `loss ...` in the model",
    "grad": "write `loss ...` in the model",
    "input_grad": "write `loss ...` of an input of floats in the model",
    "train_step": "write `loss ...` in the model, and a block `train { ... }`",
    "apply": "write `loss ...` in the model, and a block `train { ... }`",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What changes the code besides the source: float type, target, pipeline, whether all
    convolutions stay `direct` (`passes.winograd`), functions wanted.

    `functions` None means all that the network has but `NAMED`; one that is named must be there.
    """

    dtype: str = "f32"
    cpu: str = "host"
    pipeline: tuple[Pass, ...] = OPTIMISE
    direct: bool = False
    functions: tuple[str, ...] | None = None
    hooks: tuple[Hook, ...] = ()
    stop_after: str | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of the report of a compilation."""

    name: str
    seconds: float
    detail: str


@dataclass(slots=True)
class Clock:
    """Collects the stages of a compilation."""

    stages: list[Stage] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], T], detail: Callable[[T], str]) -> T:
        start = time.perf_counter()
        result = work()
        self.stages.append(Stage(name, time.perf_counter() - start, detail(result)))
        return result


def read_source(path_or_text: str | Path) -> Source:
    """A `.nn` file, or source text itself (anything with a newline or a brace); else NN0901."""
    if isinstance(path_or_text, str) and ("\n" in path_or_text or "{" in path_or_text):
        return Source("<text>", path_or_text)
    path = Path(path_or_text)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError("NN0901", f"cannot read '{path}': {error.strerror or error}") from None
    return decode_source(data, str(path))


def decode_source(data: bytes, name: str) -> Source:
    """The contents of a `.nn` file; `UserError` NN00xx where they are not text of some size."""
    from nncompiler.lang.lex import read

    return read(data, name)


def check_functions(names: Iterable[str]) -> tuple[str, ...]:
    """Names of functions in ABI order; `UserError` NN0902 for an unknown one."""
    wanted = set(names)
    for name in sorted(wanted - set(FUNCTIONS)):
        close = nearest(name, FUNCTIONS)
        raise UserError(
            "NN0902",
            f"no function of a model is called '{name}'",
            help=f"did you mean '{close}'?" if close else f"functions: {', '.join(FUNCTIONS)}",
        )
    return tuple(f for f in FUNCTIONS if f in wanted)


class Compilation:
    """The stages of one source for one binding (`sizes`), each computed when first asked for."""

    def __init__(
        self,
        source: Source,
        sizes: Mapping[str, int] | None = None,
        options: Options | None = None,
        clock: Clock | None = None,
        file: File | None = None,
    ) -> None:
        self.source = source
        self.given = dict(sizes or {})
        self.options = options or Options()
        self.clock = clock or Clock()
        self._file = file
        if self.options.dtype not in ("f32", "f64"):
            raise UserError(
                "NN0903", f"expected --dtype f32 or f64, but found '{self.options.dtype}'"
            )

    @cached_property
    def file(self) -> File:
        """The syntax tree."""
        from nncompiler.lang.parse import parse

        if self._file is not None:
            return self._file
        lines = self.source.text.count("\n") + 1
        return self.clock.run(
            "parse", lambda: parse(self.source.text, self.source.name), lambda _: f"{lines} lines"
        )

    @cached_property
    def network(self) -> Network:
        """The elaborated network: graphs of init, infer, loss and objective."""
        from nncompiler.lang.elaborate import elaborate

        file, dtype = self.file, DTYPES[self.options.dtype]
        return self.clock.run(
            "elaborate",
            lambda: elaborate(file, sizes=self.given, dtype=dtype),
            lambda n: (
                f"{sum(len(f.nodes) for f in n.functions)} nodes, {len(n.parameters)} parameters"
            ),
        )

    @cached_property
    def layout(self) -> StateLayout:
        from nncompiler.passes.optimizer import slot_types

        n = self.network
        return lay_out(n.dtype, n.parameters, slot_types(n), n.states)

    @cached_property
    def suffix(self) -> str:
        """The name of the binding: `b64`, or `b64_T32` with more sizes; empty without any."""
        return "_".join(
            f"b{n}" if name == "batch" else f"{name}{n}" for name, n in self.network.sizes
        )

    @property
    def rows(self) -> int:
        return dict(self.network.sizes).get("batch", 0)

    def available(self) -> tuple[str, ...]:
        """Functions the network has and the options want; `UserError` NN0924 if one is lacking."""
        n = self.network
        wanted = self.options.functions or tuple(f for f in FUNCTIONS if f not in NAMED)
        found = ["init", "infer"] if n.outputs else ["init"]
        if n.losses:
            found += ["loss", "grad"]
        if "input_grad" in wanted and n.losses:
            read = n.function("loss").params_of("input")
            found += ["input_grad"] if any(v.dtype.is_float for v in read) else []
        if n.losses and n.train:
            found += ["train_step", "apply"]
        for name in self.options.functions or ():
            if name not in found:
                raise UserError(
                    "NN0924", f"the model '{n.name}' has no function '{name}'", help=_NEEDS[name]
                )
        return tuple(f for f in FUNCTIONS if f in found and f in wanted)

    @cached_property
    def graphs(self) -> dict[str, Function]:
        """Every function before optimisation, the backward pass and the optimizer written out."""
        from nncompiler.passes import autodiff, optimizer

        network = self.network
        makers = {
            "grad": optimizer.grad,
            "input_grad": autodiff.input_grad,
            "train_step": optimizer.train_step,
            "apply": optimizer.apply,
        }

        def work() -> dict[str, Function]:
            made = {
                n: makers[n](network) if n in makers else network.function(n)
                for n in self.available()
            }
            return {n: writing(f) if n == "init" else f for n, f in made.items()}

        return self.clock.run(
            "autodiff", work, lambda g: f"{sum(len(f.nodes) for f in g.values())} nodes"
        )

    @cached_property
    def optimised(self) -> dict[str, Function]:
        """Every function after the pipeline: one node per kernel to be."""
        o, graphs = self.options, self.graphs

        def work() -> dict[str, Function]:
            found = {
                n: run_passes(f, o.pipeline, o.hooks, o.stop_after) for n, f in graphs.items()
            }
            return {n: apart(f) if n == "init" else f for n, f in found.items()}

        return self.clock.run(
            "optimise", work, lambda g: f"{sum(len(f.nodes) for f in g.values())} groups"
        )

    @cached_property
    def target(self) -> Target:
        from nncompiler.codegen.target import select

        return select(self.options.cpu)

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """Every function as a plan: kernels scheduled and tiled, memory placed."""
        from nncompiler.passes.planning import plan_function

        functions, layout = self.optimised, self.layout
        how = self.target.vector_bytes, self.target.registers, self.options.direct
        return self.clock.run(
            "plan",
            lambda: {n: plan_function(f, layout, *how) for n, f in functions.items()},
            _plan_detail,
        )

    def entries(self) -> tuple[EntryPoint, ...]:
        """The entry points of this binding; init and apply bear no suffix."""
        found = []
        for name, plan in self.plans.items():
            if name in UNBOUND:
                found.append(EntryPoint(name, "", plan))
            else:
                found.append(EntryPoint(name, self.suffix, plan, self.rows, self.batched))
        return tuple(found)

    @cached_property
    def batched(self) -> tuple[str, ...]:
        """Inputs, targets and outputs whose first dimension is the batch: it grows with it."""
        from nncompiler.lang.elaborate import interface

        if not self.rows:
            return ()
        n = self.network
        here = dict((*n.inputs, *n.targets, *n.outputs))
        sizes = {**self.given, "batch": 2 * self.rows}
        there = dict(n.doubled) or interface(self.file, sizes=sizes, dtype=n.dtype)
        grown = {name for name, t in there.items() if t.shape[:1] == (2 * self.rows,)}
        return tuple(n for n, t in here.items() if t.shape[:1] == (self.rows,) and n in grown)

    def texts(self) -> dict[str, dict[str, str]]:
        """IR texts by stage and function, for `Model.dump` and `nnc dump`."""
        return {
            "source": {"model": self.source.text},
            "graph": {f.name: print_function(f) for f in self.network.functions},
            "train": {n: print_function(f) for n, f in self.graphs.items()},
            "opt": {n: print_function(f) for n, f in self.optimised.items()},
            "plan": {n: print_plan(p) for n, p in self.plans.items()},
        }


def _plan_detail(plans: Mapping[str, Plan]) -> str:
    kernels = sum(len(list(p.kernels())) for p in plans.values())
    arena = max((p.arena_bytes for p in plans.values()), default=0)
    return f"{kernels} kernels, {arena} bytes of arena"


def program(bindings: Sequence[Compilation]) -> Program:
    """What code generation needs of all bindings; init and apply are taken from the first."""
    first = bindings[0]
    entries = list(first.entries())
    for other in bindings[1:]:
        if other.layout != first.layout:
            raise Limitation(
                "NN0926", "the size of a state of this model depends on what differs between the "
                f"bindings {first.suffix} and {other.suffix}",
                help="compile one binding at a time: each has its own state",
            )  # fmt: skip
        entries += [e for e in other.entries() if e.function not in UNBOUND]
    train = first.network.train
    rate = train.optimizer.get("lr") if train else 0.0
    return Program(first.network.name, first.network.dtype, first.layout, tuple(entries), rate)


def compile_artifact(
    source: Source,
    bindings: Sequence[Mapping[str, int]] = ({},),
    options: Options | None = None,
    clock: Clock | None = None,
    weights: Mapping[str, Array] | None = None,
    objects: Compile | None = None,
) -> Artifact:
    """Compile every binding into one shared object, its header and manifest.

    `weights` are embedded; `objects` may keep machine code from one compilation to the next.
    """
    clock = clock or Clock()
    first = Compilation(source, bindings[0], options, clock)
    rest = [Compilation(source, b, options, clock, first.file) for b in bindings[1:]]
    return build_artifact([first, *rest], weights, objects)


def build_artifact(
    compilations: Sequence[Compilation],
    weights: Mapping[str, Array] | None = None,
    objects: Compile | None = None,
    timed: bool = False,
) -> Artifact:
    """`compile_artifact` for bindings of one source that are there already, with one clock.

    With `timed`, the kernels' times are measured by the code itself (see `codegen.ticks`).
    """
    from nncompiler import __version__
    from nncompiler.codegen.emit import build
    from nncompiler.codegen.processes import helpers_ahead

    first = compilations[0]
    image = None if weights is None else pack(first.layout, weights)
    kernels = sum(len(f.nodes) for c in compilations for f in c.optimised.values())
    with helpers_ahead(kernels):
        whole = program(compilations)
        return first.clock.run(
            "codegen",
            lambda: build(
                whole,
                first.target,
                networks=[c.network for c in compilations],
                texts=first.texts,
                source_sha256=hashlib.sha256(first.source.text.encode()).hexdigest(),
                version=__version__,
                weights=image,
                compile=objects,
                timed=timed,
            ),
            lambda a: f"{len(a.so)} bytes of shared object",
        )
