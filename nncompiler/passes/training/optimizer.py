"""From the training objective to `grad`, `train_step` and `apply`: autodiff, then the optimizer,
all as graph.

    graph @objective { … return loss=%5 }
      ──▶ graph @grad       { … return loss=%5, grad.w=%9 }
      ──▶ graph @train_step { … return loss=%5, update.w=%12, update.opt.m.w=%11, update.step=%13 }
      ──▶ graph @apply      { gradient %grad.w … return update.w=…, … }

A result called `update.NAME` is the new value of the parameter NAME of the function; the schedule
makes it a write in place. Several objectives are minimised one after another within a step, each
seeing the updates before it and drawing random numbers of its own.

With `accumulate = k` a step adds its gradient to `opt.grad.NAME`, and every k-th takes the mean of
them for an update; all else that the optimizer keeps, the count of steps too, changes only then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nncompiler.errors import CompilerBug
from nncompiler.ir.graph import Builder, Function, Value, inline
from nncompiler.ir.model import Network, header_types
from nncompiler.ir.sweep import backpropagate
from nncompiler.ir.train import Objective, ScheduleSpec, TrainSpec
from nncompiler.ir.types import F64, I32, DType, TensorType, scalar
from nncompiler.passes.graph.narrow import Narrow
from nncompiler.passes.manager import run_pass
from nncompiler.passes.training.recompute import Recompute
from nncompiler.passes.training.update_rules import (
    RULES,
    Arithmetic,
    Rates,
    Regularised,
    adam_corrections,
)
from nncompiler.record import dataclass, replace

#: The slot that counts micro-batches since the last update.
MICRO = "opt.micro"


def slot_types(network: Network) -> tuple[tuple[str, TensorType], ...]:
    """Names and types of the optimizer slots, `opt.SLOT.PARAMETER`, in parameter order."""
    spec = network.train
    if spec is None:
        return ()
    slots, _ = RULES[spec.optimizer.kind]
    kinds = (*slots, *(("grad",) if spec.accumulate > 1 else ()), *(("ema",) if spec.ema else ()))
    found = tuple((f"opt.{k}.{name}", t) for name, t in _trainable(network) for k in kinds)
    return (*found, (MICRO, scalar(I32))) if spec.accumulate > 1 else found


def grad(network: Network) -> Function:
    """Losses and the gradient of each objective with respect to its parameters (`grad.NAME`)."""
    b, values = _signature(network, "grad")
    losses: dict[str, Value] = {}
    results: dict[str, Value] = {}
    for number, objective in enumerate(_objectives(network)):
        start = len(b.nodes)
        found = _losses(b, network, values, number)
        losses = {**found, **losses, objective.loss: found[objective.loss]}
        names = _names(network, objective)
        gradients = _gradients(b, found[objective.loss], [values[n] for n in names], start)
        results.update({f"grad.{n}": g for n, g in zip(names, gradients, strict=True)})
    return b.finish([*((name, losses[name]) for name in network.losses), *results.items()])


def train_step(network: Network) -> Function:
    """Losses and the new value of every parameter, state, slot, and of the header's counters."""
    spec = _train(network)
    b, values = _signature(network, "train_step")
    slots = {n: b.param("slot", n, t) for n, t in slot_types(network)}
    header = _header(b, network, values)
    update = _Update(b, network, _rates(b, spec, header, network.dtype), _last(b, spec, slots))
    losses: dict[str, Value] = {}
    updates: dict[str, Value] = {}
    for number, objective in enumerate(_objectives(network)):
        current = {**values, **slots, **updates}
        start = len(b.nodes)
        found = _losses(b, network, current, number)
        losses.setdefault(objective.loss, found[objective.loss])
        # of this objective's nodes only: the updates before it are given, not functions of weights
        names = _names(network, objective)
        gradients = _gradients(b, found[objective.loss], [current[n] for n in names], start)
        updates.update(
            (n, found[f"update.{n}"]) for n, _ in network.states if f"update.{n}" in found
        )
        updates.update(update(names, gradients, current))
    updates.update(update.averages(header["step"], {**slots, **updates}))
    updates.update(update.counters(header, slots))
    ordered = [(name, losses[name]) for name in network.losses if name in losses]
    return b.finish(ordered + [(f"update.{n}", v) for n, v in updates.items()])


def apply(network: Network) -> Function:
    """The update alone, from gradients the caller gives (`gradient grad.NAME`)."""
    spec = _train(network)
    b = Builder("apply")
    trainable = _trainable(network)
    values = {n: b.param("param", n, t) for n, t in trainable}
    accumulated = {MICRO, *(f"opt.grad.{n}" for n in values)}
    slots = {n: b.param("slot", n, t) for n, t in slot_types(network) if n not in accumulated}
    header = _header(b, network, {})
    given = [b.param("gradient", f"grad.{n}", t) for n, t in trainable]
    update = _Update(b, network, _rates(b, spec, header, network.dtype), None)
    updates = update(list(values), given, {**values, **slots})
    updates.update(update.averages(header["step"], {**slots, **updates}))
    updates.update(update.counters(header, slots))
    return b.finish([(f"update.{n}", v) for n, v in updates.items()])


def _train(network: Network) -> TrainSpec:
    if network.train is None:
        raise CompilerBug("NN0490", f"network '{network.name}' has no train block")
    return network.train


def _signature(network: Network, name: str) -> tuple[Builder, dict[str, Value]]:
    """A builder with the parameters, and the inputs, targets and what else of the state the
    objective reads."""
    b = Builder(name)
    read = network.function("objective").params
    values: dict[str, Value] = {}
    for kind in ("input", "target", "param", "state", "header"):
        if kind == "param":
            values.update((n, b.param(kind, n, t)) for n, t in network.parameters)
            continue
        for p in read:
            if p.kind == kind:
                values[p.value.name] = b.param(kind, p.value.name, p.value.type)
    return b, values


def _header(b: Builder, network: Network, values: dict[str, Value]) -> dict[str, Value]:
    """Step and rate, and the counter of draws where the objective draws."""
    types = header_types(network.dtype)
    found = {
        n: values[n] if n in values else b.param("header", n, types[n]) for n in ("step", "rate")
    }
    return {**found, "draws": values["draws"]} if "draws" in values else found


def _losses(
    b: Builder, network: Network, values: dict[str, Value], number: int = 0
) -> dict[str, Value]:
    """What the objective computes; each of several has a number of draws of its own."""
    objective = run_pass(Narrow(), network.function("objective"))
    if network.train and network.train.recompute:
        objective = run_pass(Recompute(), objective)
    if number and "draws" in values:
        own = b.emit("add", values["draws"], b.const(number, values["draws"].dtype))
        values = {**values, "draws": own}
    return inline(b, objective, [values[p.value.name] for p in objective.params])


def _objectives(network: Network) -> tuple[Objective, ...]:
    declared = network.train.objectives if network.train else ()
    return declared or (Objective(network.losses[0]),)


def _trainable(network: Network) -> tuple[tuple[str, TensorType], ...]:
    """The parameters that some objective trains."""
    names = {n for objective in _objectives(network) for n in _names(network, objective)}
    return tuple((n, t) for n, t in network.parameters if n in names)


def _names(network: Network, objective: Objective) -> list[str]:
    """The parameters an objective trains."""
    frozen = network.train.frozen if network.train else ()
    return [n for n, _ in network.parameters if objective.covers(n) and n not in frozen]


def _gradients(
    b: Builder, loss: Value, wanted: Sequence[Value], start: int = 0
) -> list[Value]:
    """Of a loss for the wanted values, through the nodes from `start` on."""
    nodes = tuple(b.nodes[start:])
    found = backpropagate(b, nodes, {loss: b.const(1.0, loss.dtype)}, wanted)
    return [found[w] if w in found else b.full(0.0, w.type) for w in wanted]


def _rates(b: Builder, spec: TrainSpec, header: dict[str, Value], dtype: DType) -> Rates:
    rate = header["rate"]
    if spec.schedule.kind != "constant" or spec.schedule.get("warmup"):
        factor = schedule_factor(b, spec.schedule, header["step"])
        rate = b.emit("mul", rate, b.emit("cast", factor, dtype=dtype.name))
    if not spec.optimizer.kind.startswith("adam"):
        return Rates(rate)
    return Rates(rate, *adam_corrections(b, spec.optimizer, header["step"], dtype))


def schedule_factor(b: Builder, schedule: ScheduleSpec, step: Value) -> Value:
    """The factor on the learning rate at `step` (f64 scalar); see `ScheduleSpec`."""
    a = Arithmetic(b, F64)
    t = b.emit("cast", step, dtype="f64")
    match schedule.kind:
        case "step":
            factor = a.pow(
                schedule.get("gamma"), a.unary("floor", a.div(t, schedule.get("every")))
            )
        case "exponential":
            factor = a.pow(schedule.get("gamma"), a.div(t, schedule.get("every")))
        case "cosine":
            done = a.min(a.div(t, schedule.get("total")), 1.0)
            wave = a.mul(0.5, a.add(1.0, a.unary("cos", a.mul(math.pi, done))))
            floor = schedule.get("floor")
            factor = a.add(floor, a.mul(1.0 - floor, wave))
        case _:
            factor = a.number(1.0)
    if warmup := schedule.get("warmup"):
        factor = a.mul(factor, a.min(a.div(a.add(t, 1.0), warmup), 1.0))
    return factor


def _last(b: Builder, spec: TrainSpec, slots: dict[str, Value]) -> Value | None:
    """Whether this is the last micro-batch before an update; None where every one is."""
    if spec.accumulate == 1:
        return None
    return b.emit("eq", slots[MICRO], b.const(spec.accumulate - 1, I32))


@dataclass(frozen=True, slots=True)
class _Update:
    """Writes updates. Where there is a `last`, only the last micro-batch changes weights."""

    b: Builder
    network: Network
    rates: Rates
    last: Value | None

    def __call__(
        self, names: Sequence[str], gradients: Sequence[Value], current: dict[str, Value]
    ) -> dict[str, Value]:
        """New values by name: the parameters called `names` and their slots."""
        spec, a = _train(self.network), Arithmetic(self.b, self.network.dtype)
        kept: dict[str, Value] = {}
        if self.last is not None:
            share = 1.0 / spec.accumulate
            own = [f"opt.grad.{n}" for n in names]
            gradients = [
                a.add(current[s], a.mul(share, g)) for s, g in zip(own, gradients, strict=True)
            ]
            zero = a.number(0.0)
            for slot, total in zip(own, gradients, strict=True):
                kept[slot] = self.b.emit("where", self.last, zero, total)
        updates = self._rule(a, names, gradients, current)
        return {**{n: self._chosen(v, current[n]) for n, v in updates.items()}, **kept}

    def _rule(
        self, a: Arithmetic, names: Sequence[str], gradients: Sequence[Value],
        current: dict[str, Value],
    ) -> dict[str, Value]:  # fmt: skip
        spec = _train(self.network)
        kinds, rule = RULES[spec.optimizer.kind]
        factors, spans = dict(spec.rates), dict(self.network.parameter_spans)
        regularised = Regularised(spec, a)([current[n] for n in names], gradients)
        updates: dict[str, Value] = {}
        for name, g in zip(names, regularised, strict=True):
            own = [f"opt.{k}.{name}" for k in kinds]
            with self.b.at(spans.get(name)):
                rates = self.rates
                if name in factors:
                    rates = replace(rates, rate=a.mul(factors[name], rates.rate))
                slots = [current[s] for s in own]
                new, kept = rule(a, spec.optimizer, rates, current[name], g, slots)
            updates[name] = new
            updates.update(zip(own, kept, strict=True))
        return updates

    def _chosen(self, new: Value, old: Value) -> Value:
        return new if self.last is None else self.b.emit("where", self.last, new, old)

    def averages(self, step: Value, current: dict[str, Value]) -> dict[str, Value]:
        """`opt.ema.NAME` with the new weights; the first update begins the average with them."""
        spec, a = _train(self.network), Arithmetic(self.b, self.network.dtype)
        if not spec.ema:
            return {}
        first = self.b.emit("eq", step, self.b.const(0, I32))
        share = self.b.emit("where", first, a.number(1.0), a.number(1.0 - spec.ema))
        found = {}
        for name, _ in _trainable(self.network):
            slot = f"opt.ema.{name}"
            mean = current[slot]
            new = a.add(mean, a.mul(share, a.sub(current[name], mean)))
            found[slot] = self._chosen(new, mean)
        return found

    def counters(self, header: dict[str, Value], slots: dict[str, Value]) -> dict[str, Value]:
        """The header's counters, and that of micro-batches."""
        b, step = self.b, header["step"]
        found = {"step": self._chosen(b.emit("add", step, b.const(1, I32)), step)}
        if "draws" in header:
            drawn = b.const(len(_objectives(self.network)), header["draws"].dtype)
            found["draws"] = b.emit("add", header["draws"], drawn)
        if self.last is not None:
            following = b.emit("add", slots[MICRO], b.const(1, I32))
            found[MICRO] = b.emit("where", self.last, b.const(0, I32), following)
        return found
