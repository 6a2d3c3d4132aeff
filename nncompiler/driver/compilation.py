"""The stages of one source file for one binding of its free sizes, each run on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from nncompiler.clock import Clock
from nncompiler.driver.constants import Constants, Frozen, lay_constants, lay_parameters
from nncompiler.driver.options import FROZEN, FUNCTIONS, NAMED, UNBOUND, Options
from nncompiler.errors import Source, UserError
from nncompiler.ir.graph import Function
from nncompiler.ir.image import check_weights
from nncompiler.ir.kernel import Plan
from nncompiler.ir.model import EntryPoint, Network, StateLayout, lay_out
from nncompiler.ir.text import print_function, print_plan
from nncompiler.ir.types import DTYPES, Array
from nncompiler.passes.graph.freeze import freeze
from nncompiler.passes.manager import run_passes
from nncompiler.passes.training.initial import apart, writing

if TYPE_CHECKING:
    from nncompiler.codegen.target import Target
    from nncompiler.lang.syntax import File
    from nncompiler.passes.tiling.tile import Pick

#: What a model must have for a function that not every model has.
_NEEDS = {
    "infer": "write `output NAME = ...` in the model",
    "loss": "write `loss ...` in the model",
    "grad": "write `loss ...` in the model",
    "input_grad": "write `loss ...` of an input of floats in the model",
    "train_step": "write `loss ...` in the model, and a block `train { ... }`",
    "apply": "write `loss ...` in the model, and a block `train { ... }`",
}


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
        from nncompiler.passes.training.optimizer import slot_types

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
        if self.options.frozen is not None:
            return self._frozen_functions()
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

    def _frozen_functions(self) -> tuple[str, ...]:
        """Those of `FROZEN` that are wanted; `UserError` NN0924 for another one. `init`, which
        copies the constants, is there without a plan.
        """
        n, wanted = self.network, tuple(f for f in self.options.functions or () if f != "init")
        wanted = wanted or FROZEN[:1]
        found = {"infer": n.outputs, "loss": n.losses}
        for name in wanted:
            if not found.get(name):
                raise UserError(
                    "NN0924", f"the model '{n.name}' has no function '{name}' with frozen weights",
                    help=_NEEDS[name] if name in FROZEN else
                    "frozen weights are for inference: compile without `--freeze`",
                )  # fmt: skip
        return tuple(f for f in FUNCTIONS if f in wanted)

    @cached_property
    def graphs(self) -> dict[str, Function]:
        """Every function before optimisation, the backward pass and the optimizer written out."""
        from nncompiler.passes.training import autodiff, optimizer

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
            if o.frozen is not None:
                return {n: f for n, (f, _) in self._frozen.items()}
            found = {
                n: run_passes(f, o.pipeline, o.hooks, o.stop_after) for n, f in graphs.items()
            }
            return {n: apart(f) if n == "init" else f for n, f in found.items()}

        return self.clock.run(
            "optimise", work, lambda g: f"{sum(len(f.nodes) for f in g.values())} groups"
        )

    @cached_property
    def _frozen(self) -> dict[str, tuple[Function, dict[str, Array]]]:
        """Every function after the pipeline, and the constants it reads: what passes put together
        of parameters alone is computed before nodes go into loops and groups."""
        o, found = self.options, {}
        values = check_weights(self.layout, o.frozen or {})
        names = [p.name for p in o.pipeline]
        cut = min((names.index(n) for n in ("sink", "fuse") if n in names), default=len(names))
        for name, function in self.graphs.items():
            function = run_passes(function, o.pipeline[:cut], o.hooks, o.stop_after)
            function, constants = freeze(function, values)
            if o.stop_after not in names[:cut]:
                function = run_passes(function, o.pipeline[cut:], o.hooks, o.stop_after)
            found[name] = function, constants
        return found

    @cached_property
    def target(self) -> Target:
        from nncompiler.codegen.target import select

        return select(self.options.cpu)

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """Every function as a plan: kernels scheduled and tiled, memory placed."""
        from nncompiler.passes.planning import plan_function

        functions, layout = self.optimised, self.layout
        if self.options.frozen is not None:
            return dict(zip(functions, self.constants.plans, strict=True))
        how = self.target.machine, self.options.direct
        plans = self.clock.run(
            "plan",
            lambda: {n: plan_function(f, layout, *how, self._pick) for n, f in functions.items()},
            _plan_detail,
        )
        self._tell_tuning(plans.values())
        return plans

    @property
    def _pick(self) -> Pick | None:
        return None if self.options.tuner is None else self.options.tuner.pick

    def _tell_tuning(self, plans: Iterable[Plan]) -> None:
        if self.options.tuner is not None:
            self.clock.stages.append(self.options.tuner.stage(plans))

    @cached_property
    def frozen_plans(self) -> tuple[Frozen, ...]:
        """The plans of a frozen model, whose constants have no place yet."""
        from nncompiler.passes.planning import plan_frozen

        how = self.target.machine, self.options.direct

        def work() -> tuple[Frozen, ...]:
            return tuple(
                plan_frozen(f, lay_parameters(f, self.network.dtype), *how, values, self._pick)
                for f, values in self._frozen.values()
            )

        found = self.clock.run(
            "plan", work, lambda found: _plan_detail({p.name: p for p, _ in found})
        )
        self._tell_tuning(plan for plan, _ in found)
        return found

    @cached_property
    def constants(self) -> Constants:
        """What a frozen model has in its state."""
        return lay_constants(self.network.dtype, self.frozen_plans)

    def entries(self, plans: Iterable[Plan] | None = None) -> tuple[EntryPoint, ...]:
        """The entry points of this binding, of its own plans or others; init and apply bear no
        suffix."""
        found = []
        for plan in self.plans.values() if plans is None else plans:
            name = plan.name
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
