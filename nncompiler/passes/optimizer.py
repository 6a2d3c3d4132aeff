"""From the training objective to `grad`, `train_step` and `apply`: autodiff, then the optimizer,
all as graph.

    graph @objective { … return loss=%5 }
      ──▶ graph @grad       { … return loss=%5, grad.w=%9 }
      ──▶ graph @train_step { … return loss=%5, update.w=%12, update.opt.m.w=%11, update.step=%13 }
      ──▶ graph @apply      { gradient %grad.w … return update.w=…, … }

A result called `update.NAME` is the new value of the parameter NAME of the function; the schedule
makes it a write in place. Several objectives are minimised one after another within a step, each
seeing the updates before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nncompiler.errors import CompilerBug
from nncompiler.ir.graph import Builder, Function, Value, inline
from nncompiler.ir.model import Network, header_types
from nncompiler.ir.sweep import backpropagate
from nncompiler.ir.train import Objective, OptimizerSpec, ScheduleSpec, TrainSpec
from nncompiler.ir.types import F64, DType, TensorType
from nncompiler.passes.update_rules import RULES, Arithmetic, Rates, adam_corrections


def slot_types(network: Network) -> tuple[tuple[str, TensorType], ...]:
    """Names and types of the optimizer slots, `opt.SLOT.PARAMETER`, in parameter order."""
    if network.train is None:
        return ()
    slots, _ = RULES[network.train.optimizer.kind]
    return tuple((f"opt.{s}.{name}", t) for name, t in network.parameters for s in slots)


def grad(network: Network) -> Function:
    """Losses and the gradient of each objective with respect to its parameters (`grad.NAME`)."""
    b, values = _signature(network, "grad")
    found = _losses(b, network, values)
    results = {name: found[name] for name in network.losses}
    for objective in _objectives(network):
        wanted = _trained(network, objective, values)
        gradients = _gradients(b, results[objective.loss], wanted)
        results.update(
            {f"grad.{w}": g for w, g in zip(_names(network, objective), gradients, strict=True)}
        )
    return b.finish(results.items())


def train_step(network: Network) -> Function:
    """Losses and the new value of every parameter, state, slot, and of the header's counters."""
    spec = _train(network)
    b, values = _signature(network, "train_step")
    slots = {n: b.param("slot", n, t) for n, t in slot_types(network)}
    header = _header(b, network, values)
    rates = _rates(b, spec, header, network.dtype)
    losses: dict[str, Value] = {}
    updates: dict[str, Value] = {}
    for objective in _objectives(network):
        current = {**values, **updates}
        start = len(b.nodes)
        found = _losses(b, network, current)
        losses.setdefault(objective.loss, found[objective.loss])
        # of this objective's nodes only: the updates before it are given, not functions of weights
        gradients = _gradients(
            b, found[objective.loss], _trained(network, objective, current), start
        )
        updates.update(
            (n, found[f"update.{n}"]) for n, _ in network.states if f"update.{n}" in found
        )
        names = _names(network, objective)
        updates.update(
            _update(
                b,
                network,
                rates,
                names,
                [current[n] for n in names],
                gradients,
                {**slots, **updates},
            )
        )
    for counter in ("step", "draws"):
        if counter in header:
            updates[counter] = b.emit("add", header[counter], b.const(1, header[counter].dtype))
    ordered = [(name, losses[name]) for name in network.losses if name in losses]
    return b.finish(ordered + [(f"update.{n}", v) for n, v in updates.items()])


def apply(network: Network) -> Function:
    """The update alone, from gradients the caller gives (`gradient grad.NAME`)."""
    spec = _train(network)
    b = Builder("apply")
    values = {n: b.param("param", n, t) for n, t in network.parameters}
    slots = {n: b.param("slot", n, t) for n, t in slot_types(network)}
    header = _header(b, network, {})
    given = [b.param("gradient", f"grad.{n}", t) for n, t in network.parameters]
    rates = _rates(b, spec, header, network.dtype)
    updates = _update(b, network, rates, list(values), list(values.values()), given, slots)
    updates["step"] = b.emit("add", header["step"], b.const(1, header["step"].dtype))
    return b.finish([(f"update.{n}", v) for n, v in updates.items()])


def _train(network: Network) -> TrainSpec:
    if network.train is None:
        raise CompilerBug("NN0490", f"network '{network.name}' has no train block")
    return network.train


def _signature(network: Network, name: str) -> tuple[Builder, dict[str, Value]]:
    """A builder with the inputs, targets, parameters, and what else of the state the objective
    reads."""
    b = Builder(name)
    values = {n: b.param("input", n, t) for n, t in network.inputs}
    values.update({n: b.param("target", n, t) for n, t in network.targets})
    values.update({n: b.param("param", n, t) for n, t in network.parameters})
    for p in network.function("objective").params:
        if p.kind in ("state", "header"):
            values[p.value.name] = b.param(p.kind, p.value.name, p.value.type)
    return b, values


def _header(b: Builder, network: Network, values: dict[str, Value]) -> dict[str, Value]:
    """Step and rate, and the counter of draws where the objective draws."""
    types = header_types(network.dtype)
    found = {
        n: values[n] if n in values else b.param("header", n, types[n]) for n in ("step", "rate")
    }
    return {**found, "draws": values["draws"]} if "draws" in values else found


def _losses(b: Builder, network: Network, values: dict[str, Value]) -> dict[str, Value]:
    objective = network.function("objective")
    return inline(b, objective, [values[p.value.name] for p in objective.params])


def _objectives(network: Network) -> tuple[Objective, ...]:
    declared = network.train.objectives if network.train else ()
    return declared or (Objective(network.losses[0]),)


def _names(network: Network, objective: Objective) -> list[str]:
    """The parameters an objective trains."""
    return [n for n, _ in network.parameters if n.startswith(objective.prefix)]


def _trained(network: Network, objective: Objective, values: dict[str, Value]) -> list[Value]:
    return [values[n] for n in _names(network, objective)]


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


@dataclass(frozen=True, slots=True)
class _Regularised:
    """Gradients after penalties and clipping, in that order."""

    spec: TrainSpec
    a: Arithmetic

    def __call__(self, weights: Sequence[Value], gradients: Sequence[Value]) -> list[Value]:
        found = [self._penalised(w, g) for w, g in zip(weights, gradients, strict=True)]
        if limit := self.spec.clip_value:
            found = [self.a.min(self.a.max(g, -limit), limit) for g in found]
        if limit := self.spec.clip_norm:
            scale = self._norm_scale(found, limit)
            found = [self.a.mul(g, scale) for g in found]
        return found

    def _penalised(self, w: Value, g: Value) -> Value:
        if w.type.rank >= 2:
            if self.spec.l2:
                g = self.a.add(g, self.a.mul(self.spec.l2, w))
            if self.spec.l1:
                g = self.a.add(g, self.a.mul(self.spec.l1, self.a.unary("sign", w)))
        return g

    def _norm_scale(self, gradients: Sequence[Value], limit: float) -> Value:
        """min(1, limit / norm over all gradients)  (Pascanu et al. 2013)"""
        total: Value | None = None
        for g in gradients:
            axes = tuple(range(g.type.rank))
            square = self.a.mul(g, g)
            part = (
                self.a.b.emit("reduce_sum", square, axes=axes, keepdims=False) if axes else square
            )
            total = part if total is None else self.a.add(total, part)
        assert total is not None
        return self.a.min(1.0, self.a.div(limit, self.a.add(self.a.unary("sqrt", total), 1e-6)))


def _update(
    b: Builder,
    network: Network,
    rates: Rates,
    names: Sequence[str],
    weights: Sequence[Value],
    gradients: Sequence[Value],
    slots: dict[str, Value],
) -> dict[str, Value]:
    """New values by name (parameters and their slots)."""
    spec = _train(network)
    optimizer: OptimizerSpec = spec.optimizer
    kinds, rule = RULES[optimizer.kind]
    arithmetic = Arithmetic(b, network.dtype)
    regularised = _Regularised(spec, arithmetic)(weights, gradients)
    updates: dict[str, Value] = {}
    spans = dict(network.parameter_spans)
    for name, w, g in zip(names, weights, regularised, strict=True):
        own = [f"opt.{k}.{name}" for k in kinds]
        with b.at(spans.get(name)):
            new, kept = rule(arithmetic, optimizer, rates, w, g, [slots[s] for s in own])
        updates[name] = new
        updates.update(zip(own, kept, strict=True))
    return updates
