"""What the `train` block says beyond the optimizer: frozen parameters, rates of groups,
accumulation over micro-batches, averages of weights, and random numbers of several objectives.

The network and its gradient by hand are those of `test_optimizers`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options
from nncompiler.errors import Source, UserError
from nncompiler.ir.interp import run as interpret
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F64
from nncompiler.runtime.model import Model
from tests.model_support import cache_of_run, compile_cache
from tests.test_optimizers import F64 as Floats
from tests.test_optimizers import NETWORK, RULES, STEPS, Arrays, batches, gradient

__all__ = ["cache_of_run", "compile_cache"]


def source_of(settings: str) -> str:
    return NETWORK.replace("SETTINGS", settings)


def compiled(settings: str, **options: object) -> Model:
    model = nncompiler.compile(source_of(settings), dtype="f64", **options)  # type: ignore[arg-type]
    model.init(3)
    return model


def weights_of(model: Model) -> Arrays:
    return {n: np.array(v, np.float64) for n, v in model.parameters.items()}


def compare(found: Arrays, expected: Arrays, tolerance: float = 1e-12) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance,
                                   err_msg=name)  # fmt: skip


# -- Frozen parameters and rates


@pytest.mark.parametrize("pattern", ['"h"', '["h"]', '["h.W", "h.b"]', '"h.*"', '["*.W", "h"]'])
def test_frozen_parameters_stay(pattern: str) -> None:
    """They keep their bits, have no slots and no gradients; the others train as ever."""
    model = compiled(f"optimizer = adam(lr=0.1)  frozen = {pattern}")
    before = model.state_dict()
    fixed = {n for n in before if n.startswith("h.")} | ({"y.W"} if "*.W" in pattern else set())
    assert set(model.gradients(dict(zip("xt", batches()[0], strict=True)))) == set(before) - fixed
    slots = [n for n in model.state.views if n.startswith("opt.")]
    assert len(slots) == 2 * (len(before) - len(fixed))
    for x, t in batches():
        model.train_step(x=x, t=t)
    for name, value in model.parameters.items():
        assert np.array_equal(value, before[name]) == (name in fixed), name


def test_gradients_of_frozen_parameters_are_not_computed() -> None:
    """Without them there is less to do: freezing the first layer drops a product of matrices."""

    def products(settings: str) -> int:
        c = Compilation(Source("<text>", source_of(settings)), {}, Options())
        return sum(n.op == "contract" for n in c.graphs["train_step"].nodes)

    whole = products("optimizer = sgd(lr=0.1)")
    assert products('optimizer = sgd(lr=0.1)  frozen = "h"') == whole - 2


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_rates_are_factors_for_groups(optimizer: str) -> None:
    """A factor multiplies the rate wherever the optimizer takes it; of two, the last holds."""
    text, rate, rule = RULES[optimizer]
    model = compiled(f'optimizer = {text}  rates = [rate("y", 0.5), rate("*.b", 3)]')
    factors = {"h.W": 1.0, "h.b": 3.0, "y.W": 0.5, "y.b": 3.0}
    w = weights_of(model)
    slots: dict[str, Arrays] = {n: {} for n in w}
    for k, (x, t) in enumerate(batches()):
        g = gradient(w, x, t)[1]
        w = {n: rule(w[n], g[n], rate * factors[n], k + 1, slots[n]) for n in w}
        model.train_step(x=x, t=t)
        compare(weights_of(model), w)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ('frozen = "enc"', "NN0210"), ("frozen = 3", "NN0213"), ('rates = "h"', "NN0213"),
        ('rates = [rate("q", 2)]', "NN0210"), ('rates = [rate("h", -1)]', "NN0205"),
        ('frozen = ["h", "y"]', "NN0214"), ("accumulate = 0", "NN0205"),
        ("accumulate = 1.5", "NN0206"), ("ema = 1", "NN0205"), ('rates = rate(2, 2)', "NN0213"),
    ],
)  # fmt: skip
def test_mistakes_in_the_block(settings: str, code: str) -> None:
    """Each is told with its code and place."""
    with pytest.raises(UserError) as caught:
        compiled(f"optimizer = sgd(lr=0.1)  {settings}")
    assert caught.value.code == code and caught.value.span is not None


# -- Accumulation


CLIPPED = "clip_norm = 0.2  l2 = 0.1"


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize("rest", ["", CLIPPED, "schedule = step(every=2, gamma=0.5)"])
def test_micro_batches_make_one_step_of_their_mean(optimizer: str, rest: str) -> None:
    """Three batches of 2 rows update as one of 6 does; steps and schedule count updates."""
    settings = f"optimizer = {RULES[optimizer][0]}  {rest}"
    whole = compiled(settings)
    parts = compiled(f"{settings}  accumulate = 3", batch=2)
    for k, (x, t) in enumerate(batches()):
        losses = []
        for i in range(3):
            assert parts.step == k
            held = weights_of(parts)
            losses.append(parts.train_step(x=x[2 * i : 2 * i + 2], t=t[2 * i : 2 * i + 2]))
            if i < 2:
                compare(weights_of(parts), held, 0)
        assert np.mean(losses) == pytest.approx(whole.train_step(x=x, t=t), rel=1e-12)  # type: ignore[arg-type]
        compare(weights_of(parts), weights_of(whole), 1e-11)
        assert parts.step == whole.step == k + 1
        assert not any(v.any() for n, v in parts.state.views.items() if n.startswith("opt.grad."))


def test_accumulation_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """The gradients gathered so far are in the state: the same bits as without the stop."""
    model = compiled("optimizer = adam(lr=0.1)  accumulate = 4  ema = 0.5")
    again = compiled("optimizer = adam(lr=0.1)  accumulate = 4  ema = 0.5")
    file = tmp_path / "c.npz"
    for k, (x, t) in enumerate(batches()):
        model.train_step(x=x, t=t)
        if k == 5:
            model.save_checkpoint(file)
    again.load_checkpoint(file)
    for x, t in batches()[6:]:
        again.train_step(x=x, t=t)
    assert again.step == model.step == STEPS // 4
    for name, value in model.state.views.items():
        np.testing.assert_array_equal(again.state.views[name], value, err_msg=name)


def test_fit_accumulates(tmp_path: Path) -> None:
    """`fit` over batches of 2 with accumulation = `fit` over batches of 6, in the same order."""
    x, t = (np.concatenate(parts) for parts in zip(*batches(), strict=True))
    text = RULES["adam"][0]
    whole = compiled(f"optimizer = {text}")
    whole.fit({"x": x, "t": t}, epochs=2, batch=6, progress=False)
    parts = compiled(f"optimizer = {text}  accumulate = 3", batch=2)
    parts.fit({"x": x, "t": t}, epochs=2, batch=2, progress=False)
    compare(weights_of(parts), weights_of(whole), 1e-10)


TWO = """
model two {
    input x : f32[batch, 3]
    target t : f32[batch, 2]
    a = x |> dense(4) |> tanh
    y = a |> dense(2)
    output y
    loss first = mse(y, t)
    loss second = mean(a ** 2)
}
train {
    optimizer = sgd(lr=0.1)
    batch = 6
    SETTINGS
}
"""


def test_two_losses_over_one_parameter_are_not_accumulated() -> None:
    """It is refused: the sums would mix."""
    text = TWO.replace("SETTINGS", "accumulate = 2 minimize first over a minimize second over a")
    with pytest.raises(UserError) as caught:
        nncompiler.compile(text)
    assert caught.value.code == "NN0215"


def test_a_parameter_no_objective_trains_has_no_slots() -> None:
    """It is as if frozen, and `apply` does not ask for its gradient."""
    model = nncompiler.compile(TWO.replace("SETTINGS", "ema = 0.5 minimize first over y"))
    slots = {n for n in model.state.views if n.startswith("opt.")}
    assert slots == {"opt.ema.y.W", "opt.ema.y.b"}
    data = {"x": np.ones((6, 3), np.float32), "t": np.ones((6, 2), np.float32)}
    model.apply(model.gradients(data))
    assert np.array_equal(model.averages()["y.W"], model.parameters["y.W"])
    assert np.array_equal(model.averages()["a.W"], model.parameters["a.W"])


# -- Averages of weights


@pytest.mark.parametrize("accumulate", [1, 2])
def test_averages_of_weights(accumulate: int) -> None:
    """They begin with the weights after the first update, and follow them with the decay."""
    model = compiled(f"optimizer = sgd(lr=0.3)  ema = 0.8  accumulate = {accumulate}")
    compare(model.averages(), weights_of(model), 0)
    means: Arrays | None = None
    for x, t in batches():
        before = model.step
        model.train_step(x=x, t=t)
        if model.step > before:
            w = weights_of(model)
            means = w if means is None else {n: 0.8 * means[n] + 0.2 * w[n] for n in w}
        compare(model.averages(), means or weights_of(model), 1e-13)


def test_prediction_with_averages(tmp_path: Path) -> None:
    """Within `averaged` the model predicts and saves with them, and after it as ever."""
    model = compiled("optimizer = sgd(lr=0.3)  ema = 0.8")
    for x, t in batches():
        model.train_step(x=x, t=t)
    x, t = batches()[0]
    w, m = weights_of(model), model.averages()
    plain = model.predict(x)
    with model.averaged():
        found = model.predict(x)
        model.save(tmp_path / "means.npz")
    expected: Floats = np.tanh(x @ m["h.W"] + m["h.b"]) @ m["y.W"] + m["y.b"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert not np.allclose(found, plain)
    compare(weights_of(model), w, 0)
    other = compiled("optimizer = sgd(lr=0.3)")
    other.load_weights(tmp_path / "means.npz")
    np.testing.assert_array_equal(other.predict(x), found)


def test_model_without_averages_says_so() -> None:
    """The error names the setting."""
    with pytest.raises(UserError) as caught:
        compiled("optimizer = sgd(lr=0.3)").averages()
    assert caught.value.code == "NN0718"


# -- Compiled = interpreted


def test_all_settings_compiled_and_interpreted() -> None:
    """Steps with every setting at once: the compiled state follows the interpreted graph."""
    settings = (
        'optimizer = adamw(lr=0.05)  frozen = "h.b"  rates = [rate("y", 2)]  accumulate = 2 '
        "ema = 0.9  l1 = 0.01  clip_norm = 0.5  schedule = cosine(total=6, warmup=2)"
    )
    c = Compilation(Source("<text>", source_of(settings)), {}, Options(dtype="f64"))
    model = compiled(settings)
    step = c.graphs["train_step"]
    state = {n: v.copy() for n, v in model.state.views.items()}
    for x, t in batches():
        found = interpret(step, {**state, "x": x, "t": t}, F64)
        state.update({n[7:]: v for n, v in found.items() if n.startswith("update.")})
        assert model.train_step(x=x, t=t) == pytest.approx(float(found["loss"]), rel=1e-13)
        for name, value in state.items():
            np.testing.assert_allclose(model.state.views[name], value, rtol=1e-11, atol=1e-13,
                                       err_msg=name)  # fmt: skip


# -- Several objectives


NOISY = """
model noisy {
    input x : f32[batch, 3]
    a = x |> dense(2)
    b = x |> dense(2)
    noise = zeros(batch, 2)
    if training {
        noise = normal(0, 1, noise)
    }
    output a
    output b
    loss first = sum(a * noise)
    loss second = sum(b * noise)
}
train {
    optimizer = sgd(lr=0.1)
    batch = 64
    minimize first over a
    minimize second over b
}
"""


def test_objectives_draw_numbers_of_their_own() -> None:
    """The gradient of a bias is the sum of the noise: another one in each objective and step."""
    model = nncompiler.compile(NOISY, dtype="f64")
    x = np.ones((64, 3))
    sums = []
    for _ in range(3):
        before = weights_of(model)
        g = model.gradients({"x": x})
        model.train_step(x=x)
        after = weights_of(model)
        for name in ("a.b", "b.b"):
            np.testing.assert_allclose(before[name] - after[name], 0.1 * g[name], rtol=1e-9)
            sums += g[name].tolist()
    assert len({round(s, 9) for s in sums}) == len(sums)


@pytest.mark.parametrize("function", ["grad", "train_step"])
def test_draws_of_objectives_compiled_and_interpreted(function: str) -> None:
    """Gradients and updates with draws: compiled = interpreted."""
    c = Compilation(Source("<text>", NOISY), {}, Options(dtype="f64"))
    model = nncompiler.compile(NOISY, dtype="f64")
    model.init(7)
    arguments = dict(random_arguments(c.graphs[function], 1))
    arguments |= {n: v.copy() for n, v in model.state.views.items()}
    expected = interpret(c.graphs[function], arguments)
    call = model.call(function, {"x": arguments["x"]})
    found = {**call.results, **{f"update.{n}": v for n, v in model.state.views.items()}}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-13, err_msg=name)
