"""`nnc gradcheck`: are the gradients of the compiled code right?

Three gradients of the same loss on the same random data are compared, parameter by parameter: of
the compiled code; of the gradient's graph, interpreted in f64; and central differences of the
loss, interpreted in f64, at a sample of elements, with what stands under `stop_gradient` held. An
error is relative to the largest magnitude of that parameter's gradient, or to a thousandth of the
largest of all where that is more. Two things that are no errors look like some: a gradient that is
zero but for rounding, as of a bias before a normalisation, which the same graph interpreted in the
model's own type rounds as much; and a kink of the loss between the two ends of a difference, which
a shorter difference is not likely to meet.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nncompiler.api import model_of
from nncompiler.cli import options
from nncompiler.cli.output import print_json, say, say_tuned, table
from nncompiler.errors import EXIT_CHECK_FAILED, EXIT_OK, UserError
from nncompiler.record import dataclass

if TYPE_CHECKING:
    from nncompiler.driver import Compilation
    from nncompiler.ir.graph import Function
    from nncompiler.runtime.model import Model

Arrays = dict[str, Any]

#: Largest relative error of the compiled gradient, by float type.
TOLERANCE = {"f32": 1e-4, "f64": 1e-10}
#: So many times may compiled code be off as the interpreter is in the same float type.
ROUNDING = 10.0
#: Of central differences in f64, with a step that balances truncation and rounding; then shorter
#: ones, for elements that disagree.
DIFFERENCE_TOLERANCE = 1e-5
STEPS = (1e-5, 1e-6, 1e-7)


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "gradcheck", "Compare the compiled gradient of the loss with the f64 "
        "interpreter's and with central differences. The exit code is 4 where they disagree.",
    )  # fmt: skip
    parser.add_argument("file", help="a .nn file with a loss")
    options.add_model(parser)
    parser.add_argument("--seed", type=options.number(0, 2**32 - 1), default=0, metavar="N",
                        help="for parameters and data (default 0)")  # fmt: skip
    parser.add_argument("--samples", type=options.number(1), default=10, metavar="N",
                        help="elements of each parameter to vary (default 10)")  # fmt: skip
    parser.add_argument("--tolerance", type=options.positive, metavar="X",
                        help="largest error allowed (default 1e-4; with f64 1e-10)")  # fmt: skip
    options.add_target(parser)
    options.add_json(parser)


@dataclass(frozen=True, slots=True)
class Row:
    """The errors of one parameter's gradient; `rounding` is what the interpreter is off in the
    model's type, where that was asked for."""

    name: str
    type: str
    largest: float
    compiled: float
    differences: float
    sampled: int
    rounding: float
    good: bool

    @property
    def verdict(self) -> str:
        if not self.good:
            return "FAILED"
        return "ok, rounding" if self.rounding else "ok"


def run(args: argparse.Namespace) -> int:
    compilation = options.compilation_of(args, ("init", "grad"))
    wanted = options.request_of(args, functions=("init", "grad"))
    model, built = model_of(wanted, cache=not args.no_cache)
    say_tuned(built.stages)
    tolerance = TOLERANCE[args.dtype] if args.tolerance is None else args.tolerance
    rows = _check(compilation, model, args.seed, args.samples, tolerance)
    if not rows:
        raise UserError("NN0923", f"expected a model with parameters, but '{args.file}' has none")
    failed = [row for row in rows if not row.good]
    if args.json:
        print_json({
            "file": args.file, "ok": not failed, "tolerance": tolerance,
            "difference_tolerance": DIFFERENCE_TOLERANCE,
            "parameters": [
                {"name": r.name, "type": r.type, "largest": r.largest, "compiled": r.compiled,
                 "differences": r.differences, "sampled": r.sampled,
                 "rounding": r.rounding, "ok": r.good} for r in rows
            ],
        })  # fmt: skip
    else:
        print(_table(rows))
    if failed:
        say(f"gradients differ: {', '.join(r.name for r in failed)}")
    return EXIT_CHECK_FAILED if failed else EXIT_OK


def _table(rows: list[Row]) -> str:
    cells = [
        ("parameter", "type", "largest", "compiled - f64", "differences - f64", "sampled", "")
    ]
    cells += [
        (r.name, r.type, f"{r.largest:.3e}", f"{r.compiled:.1e}", f"{r.differences:.1e}",
         str(r.sampled), r.verdict) for r in rows
    ]  # fmt: skip
    return table(cells, right=(2, 3, 4, 5))


def _check(c: Compilation, model: Model, seed: int, samples: int, tolerance: float) -> list[Row]:
    import numpy as np

    arguments = _arguments(c, model, seed)
    parameters = {name: arguments[name] for name, _ in c.network.parameters}
    model.load_state_dict(parameters, strict=False)  # states stay as they are
    entry = model.bindings.any("grad")
    compiled = model.gradients({a.name: arguments[a.name] for a in entry.given})
    reference = _interpreted(_wide(c, c.graphs["grad"]), arguments)
    floor = 1e-3 * max(map(_largest, reference.values()), default=0.0)
    rounded: Arrays = {}
    rows = []
    for name, type in c.network.parameters:
        if name not in reference:
            continue
        exact = reference[name]
        scale = max(_largest(exact), floor) or 1.0
        error, rounding = _largest(compiled[name] - exact) / scale, 0.0
        if tolerance < error < np.inf:
            rounded = rounded or _interpreted(c.graphs["grad"], arguments)
            rounding = _largest(rounded[name] - exact) / scale
        picked = _pick(exact.size, samples, seed)
        near = exact.ravel()[picked]
        slopes = _differences(c, arguments, name, picked, near, DIFFERENCE_TOLERANCE * scale)
        slope_error = _largest(slopes - near) / scale
        bound = max(tolerance, ROUNDING * rounding)
        good = error <= bound and slope_error <= DIFFERENCE_TOLERANCE  # false for NaN
        found = (_largest(exact), error, slope_error, len(picked), rounding)
        rows.append(Row(name, str(type), *found, good))
    return rows


def _interpreted(gradient: Function, arguments: Arrays) -> Arrays:
    """The gradients by parameter name."""
    from nncompiler.ir.interp import run as interpret

    found = interpret(gradient, arguments)
    return {name[5:]: value for name, value in found.items() if name[:5] == "grad."}


def _largest(values: Any) -> float:
    """The largest magnitude."""
    import numpy as np

    return float(np.max(np.abs(values), initial=0.0))


def _arguments(c: Compilation, model: Model, seed: int) -> Arrays:
    """Random data, the state as `init` gives it, and parameters near their initial values, but
    not exactly 0 where these are."""
    import numpy as np

    from nncompiler.ir.sampling import random_arguments

    arguments = dict(random_arguments(c.graphs["grad"], seed))
    model.init(seed)
    kept = c.graphs["grad"].params_of("header", "state")
    arguments.update((v.name, model.state.views[v.name]) for v in kept)
    generator = np.random.default_rng(seed + 1)
    for name, value in model.state_dict().items():
        noise = generator.uniform(-0.05, 0.05, value.shape).astype(value.dtype)
        arguments[name] = np.asarray(value + noise, value.dtype)
    return arguments


def _wide(c: Compilation, function: Function) -> Function:
    """`function` in f64: in a model of f64 what rounds to f32, as draws do, does so on purpose."""
    from nncompiler.ir.interp import retype
    from nncompiler.ir.types import F64

    return function if c.network.dtype == F64 else retype(function, F64)


def _pick(size: int, samples: int, seed: int) -> Any:
    import numpy as np

    if size <= samples:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, samples, replace=False))


def _differences(
    c: Compilation, arguments: Mapping[str, Any], name: str, picked: Any, near: Any,
    tolerance: float,
) -> Any:  # fmt: skip
    """Central differences of the objective that trains `name`, at the picked elements; of several
    steps the first that is within `tolerance` of `near`, or else the nearest."""
    import numpy as np

    from nncompiler.ir.interp import run as interpret

    number, loss = _objective_of(c, name)
    if "draws" in arguments:  # each objective draws numbers of its own
        arguments = {**arguments, "draws": arguments["draws"] + np.uint32(number)}
    objective = _wide(c, c.network.function("objective"))
    objective, held = _hold(objective, arguments)
    arguments = {**arguments, **held}
    base = np.asarray(arguments[name], np.float64)

    def slope(element: int, step: float) -> float:
        values: list[float] = []
        for moved in (base.copy(), base.copy()):
            moved.flat[element] += -step if values else step
            values.append(float(interpret(objective, {**arguments, name: moved})[loss]))
        return (values[0] - values[1]) / (2 * step)

    found = []
    for element, wanted in zip(picked, near, strict=True):
        tried: list[float] = []
        for step in STEPS:
            tried.append(slope(element, step))
            if abs(tried[-1] - wanted) <= tolerance:
                break
        found.append(min(tried, key=lambda value: abs(value - wanted)))
    return np.array(found)


def _hold(function: Function, arguments: Mapping[str, Any]) -> tuple[Function, Arrays]:
    """`function` with the values under `stop_gradient` as further parameters, and these values:
    no gradient flows through them, so no difference may either."""
    from dataclasses import replace

    from nncompiler.ir.graph import Param
    from nncompiler.ir.interp import run as interpret

    cut = [n.output for n in function.nodes if n.op == "stop_gradient"]
    held = interpret(replace(function, results=tuple((v.name, v) for v in cut)), arguments)
    params = function.params + tuple(Param("operand", v) for v in cut)
    nodes = tuple(n for n in function.nodes if n.op != "stop_gradient")
    return replace(function, params=params, nodes=nodes), held


def _objective_of(c: Compilation, name: str) -> tuple[int, str]:
    """Number and loss of the objective whose gradient `grad` gives for a parameter: the last one
    that covers it."""
    declared = c.network.train.objectives if c.network.train else ()
    covering = [(k, o.loss) for k, o in enumerate(declared) if o.covers(name)]
    return covering[-1] if covering else (0, c.network.losses[0])
