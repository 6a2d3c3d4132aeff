"""Every optimizer, schedule, penalty and clipping, compiled, against formulas in NumPy.

The network is small enough for its gradient to be written by hand, so that nothing of the compiler
is part of the reference. Steps are compared in f64, where agreement is to the last few digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

import nncompiler
from nncompiler.runtime.model import Model
from tests.model_support import cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

F64 = npt.NDArray[np.float64]
Arrays = dict[str, F64]
#: From the weight, its gradient, the rate, the step from 1 and its slots: the new weight.
Rule = Callable[[F64, F64, float, int, Arrays], F64]
STEPS, ROWS = 9, 6
NETWORK = """
model net {
    input  x : f32[batch, 3]
    target t : f32[batch, 2]
    h = x |> dense(4) |> tanh
    y = h |> dense(2)
    output y
    loss mean((y - t) ** 2)
}
train {
    batch = 6
    SETTINGS
}
"""


def compiled(settings: str, dtype: str = "f64") -> Model:
    source = NETWORK.replace("SETTINGS", settings)
    model = nncompiler.compile(source, dtype=dtype, functions=("init", "train_step"))
    model.init(3)
    return model


def batches() -> list[tuple[F64, F64]]:
    r = np.random.default_rng(5)
    return [(r.normal(size=(ROWS, 3)), r.normal(size=(ROWS, 2))) for _ in range(STEPS)]


def gradient(w: Arrays, x: F64, t: F64) -> tuple[float, Arrays]:
    """Loss and gradient of the network, by hand."""
    h = np.tanh(x @ w["h.W"] + w["h.b"])
    error = h @ w["y.W"] + w["y.b"] - t
    dy = 2 * error / error.size
    dz = dy @ w["y.W"].T * (1 - h**2)
    found = {"h.W": x.T @ dz, "h.b": dz.sum(0), "y.W": h.T @ dy, "y.b": dy.sum(0)}
    return float(np.mean(error**2)), found


# -- The rules, as the papers have them


def sgd(w: F64, g: F64, rate: float, t: int, s: Arrays) -> F64:
    return w - rate * g


def momentum(w: F64, g: F64, rate: float, t: int, s: Arrays) -> F64:
    s["m"] = 0.9 * s.get("m", 0.0) + g
    return w - rate * s["m"]


def nesterov(w: F64, g: F64, rate: float, t: int, s: Arrays) -> F64:
    s["m"] = 0.9 * s.get("m", 0.0) + g
    return w - rate * (g + 0.9 * s["m"])


def adagrad(w: F64, g: F64, rate: float, t: int, s: Arrays) -> F64:
    s["s"] = s.get("s", 0.0) + g**2
    return w - rate * g / (np.sqrt(s["s"]) + 1e-10)


def rmsprop(w: F64, g: F64, rate: float, t: int, s: Arrays) -> F64:
    s["s"] = 0.8 * s.get("s", 0.0) + 0.2 * g**2
    return w - rate * g / (np.sqrt(s["s"]) + 1e-8)


def adam(w: F64, g: F64, rate: float, t: int, s: Arrays) -> F64:
    s["m"] = 0.8 * s.get("m", 0.0) + 0.2 * g
    s["v"] = 0.95 * s.get("v", 0.0) + 0.05 * g**2
    mean, variance = s["m"] / (1 - 0.8**t), s["v"] / (1 - 0.95**t)
    return w - rate * mean / (np.sqrt(variance) + 1e-6)


def adamw(w: F64, g: F64, rate: float, t: int, s: Arrays) -> F64:
    return adam(w * (1 - rate * 0.3), g, rate, t, s)


RULES: dict[str, tuple[str, float, Rule]] = {
    "sgd": ("sgd(lr=0.3)", 0.3, sgd),
    "momentum": ("sgd(lr=0.1, momentum=0.9)", 0.1, momentum),
    "nesterov": ("sgd(lr=0.1, momentum=0.9, nesterov=true)", 0.1, nesterov),
    "adagrad": ("adagrad(lr=0.2)", 0.2, adagrad),
    "rmsprop": ("rmsprop(lr=0.05, rho=0.8)", 0.05, rmsprop),
    "adam": ("adam(lr=0.1, beta1=0.8, beta2=0.95, eps=1e-6)", 0.1, adam),
    "adamw": ("adamw(lr=0.1, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3)", 0.1, adamw),
}


# -- Schedules: the factor on the rate at a step counted from 0

SCHEDULES: dict[str, tuple[str, Callable[[int], float]]] = {
    "constant": ("constant()", lambda k: 1.0),
    "warm-up": ("constant(warmup=4)", lambda k: (0.25, 0.5, 0.75)[k] if k < 3 else 1.0),
    "step": ("step(every=3, gamma=0.5)", lambda k: (1.0, 0.5, 0.25)[k // 3]),
    "exponential": ("exponential(every=4, gamma=0.3)", lambda k: math.exp(k / 4 * math.log(0.3))),
    "cosine": ("cosine(total=6, floor=0.2)",
               lambda k: 0.2 + 0.4 * (1 + math.cos(math.pi * min(k, 6) / 6))),
    "cosine after warm-up": ("cosine(total=8, warmup=2)", lambda k: (
        (0.5 if k == 0 else 1.0) * math.cos(math.pi * min(k, 8) / 16) ** 2)),
}  # fmt: skip


# -- What is done to gradients before the rule


def l2(w: Arrays, g: Arrays) -> Arrays:
    return {n: g[n] + 0.2 * w[n] if w[n].ndim > 1 else g[n] for n in g}


def l1(w: Arrays, g: Arrays) -> Arrays:
    return {n: g[n] + 0.1 * np.sign(w[n]) if w[n].ndim > 1 else g[n] for n in g}


def clip_value(w: Arrays, g: Arrays) -> Arrays:
    return {n: np.clip(g[n], -0.15, 0.15) for n in g}


def clip_norm(limit: float) -> Callable[[Arrays, Arrays], Arrays]:
    def run(w: Arrays, g: Arrays) -> Arrays:
        norm = np.sqrt(sum(np.sum(v**2) for v in g.values()))
        return {n: v * min(1.0, limit / (norm + 1e-6)) for n, v in g.items()}

    return run


def everything(w: Arrays, g: Arrays) -> Arrays:
    """Penalties first, then each element, then the norm."""
    return clip_norm(0.25)(w, clip_value(w, l1(w, l2(w, g))))


CHANGES: dict[str, tuple[str, Callable[[Arrays, Arrays], Arrays]]] = {
    "l2": ("l2 = 0.2", l2),
    "l1": ("l1 = 0.1", l1),
    "clip_value": ("clip_value = 0.15", clip_value),
    "clip_norm": ("clip_norm = 0.3", clip_norm(0.3)),
    "clip_norm far away": ("clip_norm = 1000", lambda w, g: g),
    "everything": ("clip_norm = 0.25 clip_value = 0.15 l1 = 0.1 l2 = 0.2", everything),
}


def follow(
    model: Model,
    rule: Rule,
    rates: Callable[[int], float],
    change: Callable[[Arrays, Arrays], Arrays] = lambda w, g: g,
    tolerance: float = 1e-12,
) -> None:
    """Train the model and the formulas side by side; fail where they part."""
    w: Arrays = {n: np.array(v, np.float64) for n, v in model.parameters.items()}
    slots: dict[str, Arrays] = {n: {} for n in w}
    dtype = next(iter(model.parameters.values())).dtype
    for k, (x, t) in enumerate(batches()):
        loss = model.train_step(x=x.astype(dtype), t=t.astype(dtype))
        expected, raw = gradient(w, x, t)
        np.testing.assert_allclose(loss, expected, rtol=100 * tolerance)
        g = change(w, raw)
        w = {n: rule(w[n], g[n], rates(k), k + 1, slots[n]) for n in w}
        for name, value in w.items():
            np.testing.assert_allclose(
                model.parameters[name], value, rtol=0, atol=tolerance * (1 + abs(value).max()),
                err_msg=f"{name} after step {k}")  # fmt: skip
    state = model.state.views
    kept = {f"opt.{s}.{n}": v for n, own in slots.items() for s, v in own.items()}
    assert {n for n in state if n.startswith("opt.")} == set(kept)
    for name, value in kept.items():
        np.testing.assert_allclose(state[name], value, rtol=100 * tolerance, atol=tolerance)


@pytest.mark.parametrize("name", RULES)
def test_optimizer_follows_its_formula(name: str) -> None:
    """Weights and slots after every step, in f64."""
    text, rate, rule = RULES[name]
    follow(compiled(f"optimizer = {text}"), rule, lambda k: rate)


@pytest.mark.parametrize("name", RULES)
def test_optimizer_in_f32(name: str) -> None:
    """The same in f32, to the rounding that nine steps collect."""
    text, rate, rule = RULES[name]
    follow(compiled(f"optimizer = {text}", "f32"), rule, lambda k: rate, tolerance=2e-5)


@pytest.mark.parametrize(
    ("name", "optimizer"), [*((n, "sgd") for n in SCHEDULES), ("cosine after warm-up", "adamw")]
)
def test_schedule_is_a_factor_on_the_rate(name: str, optimizer: str) -> None:
    """The rate of every step, also where weight decay takes it."""
    text, rate, rule = RULES[optimizer]
    schedule, factor = SCHEDULES[name]
    model = compiled(f"optimizer = {text}  schedule = {schedule}")
    follow(model, rule, lambda k: rate * factor(k))


@pytest.mark.parametrize(
    ("name", "optimizer"), [*((n, "sgd") for n in CHANGES), ("everything", "adam")]
)
def test_penalties_and_clipping(name: str, optimizer: str) -> None:
    """Gradients are changed before the optimizer sees them; weights of one axis pay no penalty."""
    text, rate, rule = RULES[optimizer]
    settings, change = CHANGES[name]
    follow(compiled(f"optimizer = {text}  {settings}"), rule, lambda k: rate, change)


def test_rate_can_be_written() -> None:
    """What a callback writes is the rate of the steps that follow, and the schedule goes on."""
    model = compiled("optimizer = sgd(lr=0.3)  schedule = step(every=3, gamma=0.5)")
    model.rate = 0.07
    follow(model, sgd, lambda k: 0.07 * 0.5 ** (k // 3))
