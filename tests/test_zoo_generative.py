"""Models that draw random numbers or have two losses: `vae`, `gan`, `dcgan` and `rbm`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import UserError
from nncompiler.runtime.model import Model
from tests.model_support import MODELS, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

BATCH = 4
ROWS = 12
GAN = (MODELS / "gan.nn").read_text()
ADAM = "adam(lr=2e-4, beta1=0.5)"
SHAPES = {
    "vae": {"image": (64,), "noise": (8,)},
    "gan": {"image": (64,), "noise": (16,)},
    "rbm": {"image": (64,)},
}
Arrays = dict[str, np.ndarray]


def compiled(source: str | Path, seed: int = 3) -> Model:
    model = nncompiler.compile(source, batch=BATCH)
    model.init(seed)
    return model


def data_for(name: str, rows: int = ROWS) -> Arrays:
    generator = np.random.default_rng(5)
    return {
        k: generator.uniform(0, 1, (rows, *shape)).astype(np.float32)
        for k, shape in SHAPES[name].items()
    }


def bits(model: Model) -> bytes:
    """The whole state: parameters, slots, and the counters of steps and draws."""
    return model.state.memory.tobytes()


# -- Two losses


def test_each_update_sees_the_ones_before_it() -> None:
    """A step is the discriminator's by its gradient, then the generator's at the new one."""
    model, other = (compiled(GAN.replace(ADAM, "sgd(lr=0.1)")) for _ in range(2))
    data = data_for("gan", BATCH)
    before, gradients = model.state_dict(), model.gradients(data)
    model.train_step(**data)
    after = model.state_dict()
    judges = [n for n in before if n.startswith("discriminator.")]
    makers = [n for n in before if n.startswith("generator.")]
    for name in judges:
        expected = before[name] - np.float32(0.1) * gradients[name]
        np.testing.assert_allclose(after[name], expected, rtol=1e-6, atol=1e-7)
    other.load_state_dict({**before, **{n: after[n] for n in judges}})
    gradients = other.gradients(data)
    assert any(abs(gradients[n]).max() > 1e-3 for n in makers)
    for name in makers:
        expected = before[name] - np.float32(0.1) * gradients[name]
        np.testing.assert_allclose(after[name], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("left_out", "still"),
    [
        ("    minimize g_loss over generator\n", "generator."),
        ("    minimize d_loss over discriminator\n", "discriminator."),
    ],
)
def test_a_loss_changes_its_parameters_alone(left_out: str, still: str) -> None:
    """With one objective only, the other half of the network stays as it is."""
    assert left_out in GAN
    model = compiled(GAN.replace(left_out, ""))
    before = model.state_dict()
    model.fit(data_for("gan"), epochs=2, batch=BATCH, progress=False)
    after = model.state_dict()
    same = {n for n in before if np.array_equal(before[n], after[n])}
    assert same == {n for n in before if n.startswith(still)}


def test_objectives_run_in_the_order_of_the_file() -> None:
    """The other order gives another step, in which the generator's gradient is the first."""
    d, g = "    minimize d_loss over discriminator\n", "    minimize g_loss over generator\n"
    source = GAN.replace(ADAM, "sgd(lr=0.1)")
    model = compiled(source.replace(d + g, g + d))
    data = data_for("gan", BATCH)
    before, gradients = model.state_dict(), model.gradients(data)
    model.train_step(**data)
    turned = model.state_dict()
    for name in (n for n in before if n.startswith("generator.")):
        expected = before[name] - np.float32(0.1) * gradients[name]
        np.testing.assert_allclose(turned[name], expected, rtol=1e-6, atol=1e-7)


def test_fit_gives_both_losses() -> None:
    """The history has a mean of each loss for each epoch."""
    history = compiled(GAN).fit(data_for("gan"), epochs=3, batch=BATCH, progress=False)
    assert set(history) == {"d_loss", "g_loss"}
    assert all(len(v) == 3 and np.isfinite(v).all() for v in history.values())


# -- Random draws


@pytest.mark.parametrize("name", SHAPES)
def test_seed_decides_training(name: str) -> None:
    """The same seed gives the same bits; another one gives others."""
    found = []
    for seed in (3, 3, 4):
        model = compiled(MODELS / f"{name}.nn", seed)
        model.fit(data_for(name), epochs=2, batch=BATCH, progress=False)
        found.append(bits(model))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", SHAPES)
def test_resumed_training_draws_what_it_would_have_drawn(name: str, tmp_path: Path) -> None:
    """Stopped and gone on from a checkpoint: the same bits as in one go."""
    data, path = data_for(name), tmp_path / "c.npz"
    whole = compiled(MODELS / f"{name}.nn")
    whole.fit(data, epochs=4, batch=BATCH, progress=False)
    first = compiled(MODELS / f"{name}.nn")
    first.fit(data, epochs=2, batch=BATCH, progress=False)
    first.save_checkpoint(path)
    second = compiled(MODELS / f"{name}.nn", seed=77)
    second.fit(data, epochs=4, batch=BATCH, progress=False, resume=path)
    objectives = max(1, len(whole.manifest.train["objectives"]))
    assert int(whole.state.views["draws"]) == objectives * 4 * ROWS // BATCH
    assert bits(second) == bits(whole)


def test_each_step_draws_anew() -> None:
    """At a learning rate of 0 the loss still changes from step to step, by the noise alone."""
    model, data = compiled(MODELS / "vae.nn"), data_for("vae", BATCH)
    model.rate = 0.0
    losses = [model.train_step(**data) for _ in range(4)]
    assert len(set(losses)) == 4


def test_training_asks_for_what_it_reads() -> None:
    """The VAE draws its noise in training: `fit` takes images alone; evaluation reads noise, too,
    and where it is given to training, it changes nothing."""
    data, models = data_for("vae"), [compiled(MODELS / "vae.nn") for _ in range(2)]
    models[0].fit({"image": data["image"]}, epochs=2, batch=BATCH, progress=False)
    models[1].fit(data, epochs=2, batch=BATCH, progress=False)
    assert bits(models[0]) == bits(models[1])
    batch = {"image": data["image"][:BATCH]}
    assert models[0].train_step(**batch) == models[1].train_step(**data_for("vae", BATCH))
    assert set(models[0].gradients(batch)) == set(models[0].parameters)
    with pytest.raises(UserError) as caught:
        models[0].evaluate({"image": data["image"]})
    assert caught.value.code == "NN0701"


# -- What the losses are


def test_vae_loss_in_numpy() -> None:
    """Cross-entropy of an image's pixels and divergence of its code from N(0, 1)."""
    model, data = compiled(MODELS / "vae.nn"), data_for("vae")
    p = {n: v.astype(np.float64) for n, v in model.state_dict().items()}
    x, noise = data["image"].astype(np.float64), data["noise"].astype(np.float64)

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ p[f"{name}.W"] + p[f"{name}.b"]

    hidden = np.maximum(dense(x, "hidden"), 0)
    mean, variance = dense(hidden, "center"), np.exp(dense(hidden, "log_variance"))
    code = mean + np.sqrt(variance) * noise
    pixels = 1 / (1 + np.exp(-dense(np.maximum(dense(code, "decoder.dense[0]"), 0),
                                    "decoder.dense[1]")))  # fmt: skip
    entropy = -(x * np.log(pixels) + (1 - x) * np.log(1 - pixels)).sum(1).mean()
    divergence = 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum(1).mean()
    found = model.evaluate(data)
    assert found["kl"] == pytest.approx(divergence, rel=1e-5)
    assert found["loss"] == pytest.approx(entropy + divergence, rel=1e-5)
    np.testing.assert_allclose(model.predict(data)["pixels"], pixels, rtol=1e-4)


def test_rbm_gradient_is_contrastive_divergence() -> None:
    """v h' of the sample minus v h' of the data; the sample is certain where biases are large."""
    model = compiled(MODELS / "rbm.nn")
    generator = np.random.default_rng(0)
    sample = generator.integers(0, 2, 64)
    parameters = model.state_dict()
    parameters["visible_bias"][...] = np.where(sample, 60, -60)
    model.load_state_dict(parameters)
    image = generator.integers(0, 2, (BATCH, 64)).astype(np.float32)

    def correlations(v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        h = 1 / (1 + np.exp(-(v @ parameters["W"].astype(np.float64))))
        return v.T @ h / BATCH, v.mean(0), h.mean(0)

    data = correlations(image.astype(np.float64))
    model_side = correlations(np.broadcast_to(sample, image.shape).astype(np.float64))
    gradients = model.gradients({"image": image})
    for name, positive, negative in zip(
        ("W", "visible_bias", "hidden_bias"), data, model_side, strict=True
    ):
        np.testing.assert_allclose(gradients[name], negative - positive, rtol=0, atol=1e-6)
