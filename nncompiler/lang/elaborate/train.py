"""The `train` block: settings known at compile time -> `TrainSpec`."""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.errors import Note, Span, UserError, nearest
from nncompiler.ir.train import DEFAULT_BATCH, Objective, OptimizerSpec, ScheduleSpec, TrainSpec
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.builtin import define, flag, number
from nncompiler.lang.elaborate.context import Context, Frame
from nncompiler.lang.elaborate.expr import argument
from nncompiler.lang.elaborate.groups import RATES, check_trained, frozen, rates
from nncompiler.lang.elaborate.values import (
    Argument,
    Arguments,
    Builtin,
    Instance,
    Module,
    Settings,
    V,
    describe,
)

OPTIMIZERS: list[Builtin] = []
SCHEDULES: list[Builtin] = []
SETTINGS = ("optimizer", "schedule", "batch", "epochs", "l1", "l2", "clip_norm", "clip_value",
            "frozen", "rates", "accumulate", "ema", "recompute")
_COUNT = 2**31 - 1


def _in_range(a: Arguments, name: str, low: float, high: float, open_high: bool = False) -> float:
    """A setting with bounds."""
    return _bounded(a[name], name, low, high, open_high)


def _bounded(found: Argument, name: str, low: float, high: float, open_high: bool) -> float:
    value = number(found, f"`{name}`")
    if not low <= value <= high or (open_high and value == high):
        limit = f"from {low:g} up" if high >= 1e30 else \
            f"from {low:g} to {'below ' if open_high else ''}{high:g}"
        raise UserError("NN0205", f"expected `{name}` {limit}, but found {value:g}", found.span)
    return value


def _rate(a: Arguments) -> tuple[str, float]:
    return "lr", _in_range(a, "lr", 0.0, 1e30)


# Optimizers -------------------------------------------------------------------------------------


@define(OPTIMIZERS, "sgd(lr, momentum=0.0, nesterov=false)",
        "gradient descent; with momentum (Polyak), or Nesterov's", "sgd(lr=0.01, momentum=0.9)",
        "optimizer")
def _sgd(ctx: Context, a: Arguments) -> V:
    momentum = _in_range(a, "momentum", 0.0, 1.0, open_high=True)
    nesterov = flag(a["nesterov"], "`nesterov`")
    if nesterov and momentum == 0:
        raise UserError("NN0205", "Nesterov's method needs a momentum above 0", a["nesterov"].span,
                        help="write `sgd(lr=..., momentum=0.9, nesterov=true)`")
    if momentum == 0:
        return Settings("optimizer", "sgd", (_rate(a),))
    kind = "nesterov" if nesterov else "momentum"
    return Settings("optimizer", kind, (_rate(a), ("momentum", momentum)))


@define(OPTIMIZERS, "adagrad(lr=0.01, eps=1e-10)", "Duchi et al. 2011", "adagrad(lr=0.1)",
        "optimizer")
def _adagrad(ctx: Context, a: Arguments) -> V:
    return Settings("optimizer", "adagrad", (_rate(a), ("eps", _in_range(a, "eps", 0.0, 1.0))))


@define(OPTIMIZERS, "rmsprop(lr=0.01, rho=0.99, eps=1e-8)", "Hinton 2012", "rmsprop(lr=1e-3)",
        "optimizer")
def _rmsprop(ctx: Context, a: Arguments) -> V:
    rho = _in_range(a, "rho", 0.0, 1.0, open_high=True)
    return Settings("optimizer", "rmsprop",
                    (_rate(a), ("rho", rho), ("eps", _in_range(a, "eps", 0.0, 1.0))))


@define(OPTIMIZERS, "adam(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)", "Kingma and Ba 2015",
        "adam(lr=1e-3)", "optimizer")
def _adam(ctx: Context, a: Arguments) -> V:
    return Settings("optimizer", "adam", _moments(a))


@define(OPTIMIZERS, "adamw(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01)",
        "Adam with decoupled weight decay (Loshchilov and Hutter 2019)",
        "adamw(lr=1e-3, weight_decay=0.1)", "optimizer")
def _adamw(ctx: Context, a: Arguments) -> V:
    decay = _in_range(a, "weight_decay", 0.0, 1e30)
    return Settings("optimizer", "adamw", (*_moments(a), ("weight_decay", decay)))


def _moments(a: Arguments) -> tuple[tuple[str, float], ...]:
    betas = tuple((n, _in_range(a, n, 0.0, 1.0, open_high=True)) for n in ("beta1", "beta2"))
    return (_rate(a), *betas, ("eps", _in_range(a, "eps", 0.0, 1.0)))


# Schedules --------------------------------------------------------------------------------------


def _schedule(a: Arguments, kind: str, *settings: tuple[str, float]) -> Settings:
    warmup = _in_range(a, "warmup", 0.0, _COUNT)
    return Settings("schedule", kind, (*settings, ("warmup", warmup)) if warmup else settings)


@define(SCHEDULES, "constant(warmup=0)", "the learning rate as it is", "constant(warmup=500)",
        "schedule")
def _constant(ctx: Context, a: Arguments) -> V:
    return _schedule(a, "constant")


@define(SCHEDULES, "step(every, gamma=0.1, warmup=0)", "times gamma after every so many steps",
        "step(every=1000, gamma=0.5)", "schedule")
def _step(ctx: Context, a: Arguments) -> V:
    return _decay(a, "step")


@define(SCHEDULES, "exponential(every, gamma=0.1, warmup=0)",
        "times gamma ** (step / every)", "exponential(every=1000, gamma=0.9)", "schedule")
def _exponential(ctx: Context, a: Arguments) -> V:
    return _decay(a, "exponential")


def _decay(a: Arguments, kind: str) -> Settings:
    every = _in_range(a, "every", 1.0, _COUNT)
    return _schedule(a, kind, ("every", every), ("gamma", _in_range(a, "gamma", 0.0, 1e30)))


@define(SCHEDULES, "cosine(total, floor=0.0, warmup=0)",
        "from 1 down to `floor` along half a cosine over `total` steps", "cosine(total=10000)",
        "schedule")
def _cosine(ctx: Context, a: Arguments) -> V:
    total = _in_range(a, "total", 1.0, _COUNT)
    return _schedule(a, "cosine", ("total", total), ("floor", _in_range(a, "floor", 0.0, 1.0)))


# The block --------------------------------------------------------------------------------------


def default_batch(train: s.Train | None, ctx: Context) -> int | None:
    """The setting `batch`, which is also the default of the free size of that name."""
    if train is None:
        return None
    for node in train.body:
        if isinstance(node, s.Assign) and node.targets[0].text == "batch":
            return _count(argument(ctx, _frame(), node.value), "batch")
    return DEFAULT_BATCH


def train_spec(ctx: Context, train: s.Train, losses: Sequence[str],
               parameters: Sequence[str]) -> TrainSpec:
    """The block checked against the losses and parameters of the model."""
    frame = _frame()
    found: dict[str, Argument] = {}
    names: dict[str, Span] = {}
    objectives: list[Objective] = []
    for node in train.body:
        match node:
            case s.Minimize():
                objectives.append(_objective(node, losses, parameters))
            case s.Assign(targets=(target,)):
                _known_setting(target, names)
                found[target.text] = argument(ctx, frame, node.value)
                names[target.text] = target.span
            case _:
                raise UserError("NN0202", "expected one setting in each statement", node.span,
                                help="write `NAME = VALUE`")
    optimizer = _pick(found.get("optimizer"), "optimizer", OPTIMIZERS)
    if optimizer is None:
        raise UserError("NN0204", "this train block has no optimizer", train.span,
                        help="write `optimizer = adam(lr=0.001)`")
    schedule = _pick(found.get("schedule"), "schedule", SCHEDULES)
    if len(losses) > 1 and not objectives:
        raise UserError("NN0208", f"the model has {len(losses)} losses: "
                        f"{', '.join(f'`{n}`' for n in losses)}", train.span,
                        help=f"say what to minimise: `minimize {losses[0]} over PREFIX`, "
                             "where PREFIX is the name of a layer")
    plain: dict[str, float] = {n: _bounded(found[n], n, 0.0, 1e30, False)
                               for n in ("l1", "l2", "clip_norm", "clip_value") if n in found}
    if "ema" in found:
        plain["ema"] = _bounded(found["ema"], "ema", 0.0, 1.0, True)
    counts = {n: _count(found[n], n) for n in ("batch", "epochs", "accumulate") if n in found}
    again = "recompute" in found and flag(found["recompute"], "`recompute`")
    kept = ScheduleSpec(schedule.kind, schedule.settings) if schedule else ScheduleSpec()
    fixed = frozen(found.get("frozen"), parameters)
    check_trained(train, objectives, parameters, fixed, counts.get("accumulate", 1))
    return TrainSpec(OptimizerSpec(optimizer.kind, optimizer.settings), kept,
                     objectives=tuple(objectives), frozen=fixed,
                     rates=rates(found.get("rates"), parameters), recompute=again,
                     **counts, **plain)  # type: ignore[arg-type]


def _frame() -> Frame:
    """Only the optimizers, schedules and rates, besides the builtins."""
    names: dict[str, V] = {f.name: f for f in (*OPTIMIZERS, *SCHEDULES, *RATES)}
    return Frame(_EMPTY, Instance(None, _NOWHERE, None, in_fn=True), names)


_EMPTY = Module({}, stdlib=False)
_NOWHERE = Span("", 1, 1)


def _known_setting(target: s.Ident, names: dict[str, Span]) -> None:
    name = target.text
    if name in names:
        raise UserError("NN0102", f"`{name}` is set twice", target.span,
                        notes=[Note("first here", names[name])])
    if name in SETTINGS:
        return
    help = f"the settings are {', '.join(SETTINGS)}"
    if having := [made.name for made in OPTIMIZERS if name in dict(made.parameters)]:
        maker = "adam" if "adam" in having else having[0]
        help = f"it is an argument of the optimizer: `optimizer = {maker}({name}=...)`"
    elif close := nearest(name, SETTINGS):
        help = f"did you mean `{close}`?"
    raise UserError(
        "NN0202", f"`{name}` is not a setting of a train block", target.span, help=help)


def _pick(found: Argument | None, family: str, table: Sequence[Builtin]) -> Settings | None:
    """An optimizer or a schedule."""
    if found is None:
        return None
    value = found.value
    if isinstance(value, Settings) and value.family == family:
        return value
    names = [f.name for f in table]
    help = f"the {family}s are {', '.join(names)}"
    code, wanted = _FAMILIES[family]
    if isinstance(value, Builtin):
        help = f"call it: `{value.signature}`" if value.name in names else help
    raise UserError(code, f"expected {wanted}, but found {describe(value)}", found.span, help=help)


_FAMILIES = {"optimizer": ("NN0203", "an optimizer"), "schedule": ("NN0207", "a schedule")}


def _count(found: Argument, name: str) -> int:
    value = found.value
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError("NN0206", f"expected a whole number for `{name}`, but found "
                        f"{describe(value)}", found.span)
    if not 1 <= value <= _COUNT:
        raise UserError("NN0205", f"expected `{name}` from 1 to {_COUNT}, but found {value}",
                        found.span)
    return value


def _objective(node: s.Minimize, losses: Sequence[str], parameters: Sequence[str]) -> Objective:
    name, prefix = node.loss.text, node.prefix.text
    if name not in losses:
        close = nearest(name, losses)
        raise UserError("NN0209", f"the model has no loss `{name}`", node.loss.span,
                        help=f"did you mean `{close}`?" if close else
                        f"its losses are {', '.join(losses)}")
    objective = Objective(name, prefix)
    if any(map(objective.covers, parameters)):
        return objective
    heads = sorted({p.split(".")[0] for p in parameters})
    close = nearest(prefix, heads)
    raise UserError("NN0210", f"no parameter's name begins with `{prefix}`", node.prefix.span,
                    help=f"did you mean `{close}`?" if close else
                    f"parameters begin with {', '.join(heads)}")

