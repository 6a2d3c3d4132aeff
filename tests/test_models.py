"""Every model in `models/`: it checks, its gradients are right, compiled code gives what the
interpreter gives, training works, and 80 samples can be learned by heart.

A new model is tested without an edit here, but for `RECIPES`: what its 80 samples are, and when
they count as learned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.cli import main
from nncompiler.driver import Compilation, read_source
from nncompiler.ir.sampling import random_arguments
from nncompiler.runtime import datasets, texts
from nncompiler.runtime.model import Model
from tests.differential import differences
from tests.model_support import MODELS, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

FILES = sorted(MODELS.glob("*.nn"))
NAMES = [path.stem for path in FILES]
ALL = pytest.mark.parametrize("path", FILES, ids=NAMES)
#: Rows of a batch: a divisor of 80, and no multiple of any vector's or tile's width.
BATCH = 5
#: Sizes of models that take long as they are; `test_zoo_large.py` has them at full size.
SIZES: Mapping[str, dict[str, int]] = {
    "gpt": {"time": 12, "features": 16, "heads": 2, "blocks": 2},
    "resnet20": {"side": 8, "channels": 4, "blocks": 1},
}
#: For `nnc gradcheck`.
SMALLER = {
    "char_lstm": {"time": 6, "units": 24},
    "mnist_cnn": {"side": 10, "channels": 4},
    **SIZES,
}
SAMPLES = 80
Arrays = dict[str, np.ndarray]


@functools.cache
def stages(path: Path) -> Compilation:
    """Every level of a model but machine code."""
    return Compilation(read_source(path), {"batch": BATCH, **SIZES.get(path.stem, {})})


def compiled(path: Path, seed: int = 1) -> Model:
    """A model of its own, initialised."""
    model = nncompiler.compile(path, batch=BATCH, sizes=SIZES.get(path.stem))
    model.init(seed)
    return model


def random_data(path: Path, function: str, seed: int = 2) -> Arrays:
    """A batch of random inputs and targets for a function; targets of floats lie in 0 to 1."""
    graph = stages(path).graphs[function]
    given = random_arguments(graph, seed)
    found = {}
    for p in graph.params:
        if p.kind in ("input", "target"):
            array = given[p.value.name]
            found[p.value.name] = abs(array) if p.kind == "target" else array
    return found


# -- What the command line says


@ALL
def test_check(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`nnc check` finds nothing wrong."""
    assert main(["check", str(path)]) == 0, capsys.readouterr().err


@ALL
def test_gradcheck(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`nnc gradcheck` finds every gradient right."""
    command = ["gradcheck", str(path), "--batch", str(BATCH), "--samples", "3"]
    if sizes := SMALLER.get(path.stem):
        command += ["--size", ",".join(f"{name}={size}" for name, size in sizes.items())]
    code = main(command)
    said = capsys.readouterr()
    assert code == 0, said.err + said.out


# -- Compiled = interpreted


def started(path: Path) -> Model:
    """A model two steps into training on random data: no state is as `init` left it."""
    model = compiled(path)
    for _ in range(2):
        model.train_step(**random_data(path, "train_step", 3))
    return model


def state_of(model: Model) -> Arrays:
    """Everything in the state by name, header and optimizer slots too."""
    return {name: np.array(view) for name, view in model.state.views.items()}


@ALL
@pytest.mark.parametrize("function", ["infer", "loss", "grad"])
def test_compiled_is_interpreted(path: Path, function: str) -> None:
    """Compiled code gives what the interpreter gives, within the rounding that f32 has."""
    model, data = started(path), random_data(path, function)
    found = model.call(function, data).results
    assert differences(stages(path).graphs[function], {**state_of(model), **data}, found) == []


@ALL
def test_compiled_step_is_interpreted(path: Path) -> None:
    """So does a step of training: the losses, and every parameter and slot after it."""
    model, data = started(path), random_data(path, "train_step")
    before = state_of(model)
    results = model.call("train_step", data).results
    after = {f"update.{name}": value for name, value in state_of(model).items()}
    graph = stages(path).graphs["train_step"]
    assert any(name.startswith("update.") for name, _ in graph.results)
    assert differences(graph, {**before, **data}, {**after, **results}) == []


@ALL
def test_compiled_init_is_interpreted(path: Path) -> None:
    """So does the initialisation, for a seed of more than 32 bits."""
    seed = 2**40 + 7
    model = compiled(path, seed)
    found = {f"update.{name}": value for name, value in state_of(model).items()}
    values = {**state_of(model), "seed": np.array([seed % 2**32, seed >> 32], np.uint32)}
    assert differences(stages(path).graphs["init"], values, found) == []


# -- Training


@ALL
def test_step_gives_the_same_bits_twice(path: Path) -> None:
    """A step from the same state gives the same bits, whatever the arena holds."""
    model, data = compiled(path), random_data(path, "train_step")
    found = []
    for byte in (0x00, 0xA5, 0xFF):
        model.init(1)
        model.bindings.arena[...] = byte
        loss = [model.train_step(**data) for _ in range(2)]
        found.append((loss, model.state.memory.tobytes()))
    assert found[0] == found[1] == found[2]


@ALL
def test_loss_goes_down(path: Path) -> None:
    """20 steps on one random batch bring the loss down; of several, which may pull against each
    other, the first."""
    model, data = compiled(path), random_data(path, "loss")
    name = model.manifest.losses[0]
    before = model.call("loss", data).results[name].copy()
    for _ in range(20):
        model.train_step(**data)
    assert model.call("loss", data).results[name] < before


@ALL
def test_arena_is_at_its_bound(path: Path) -> None:
    """No function takes more than 1.05 of the bytes alive at once; the artifact says the same."""
    plans = stages(path).plans
    for name, plan in plans.items():
        assert plan.arena_bytes <= 1.05 * plan.bound, name
    entries = {e.function: e for e in compiled(path).manifest.entries}
    assert {"infer", "loss", "grad", "train_step"} <= plans.keys()
    assert {n: entries[n].arena_bytes for n in plans if n in entries} == {
        n: plan.arena_bytes for n, plan in plans.items() if n in entries}


# -- 80 samples by heart


@dataclass(frozen=True)
class Recipe:
    """80 samples, how long to train on them, and what says that they are learned.

    `measure` is a loss or metric, which must reach `at_most` or `at_least`.
    """

    data: Callable[[], Arrays]
    epochs: int
    measure: str
    at_most: float = np.inf
    at_least: float = -np.inf
    rate: float | None = None


def digits() -> Arrays:
    """The first 80 images to train on, 8 x 8."""
    train = datasets.digits().train
    return {name: value[:SAMPLES] for name, value in train.items()}


def large_digits() -> Arrays:
    """The same, as images of 28 x 28 pixels."""
    small = digits()
    large = np.kron(small["image"].reshape(-1, 8, 8), np.ones((1, 3, 3), np.float32))
    return {**small, "image": np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)}


def large_digit_images() -> Arrays:
    """The same with their channel and both axes."""
    large = large_digits()
    return {**large, "image": large["image"].reshape(-1, 1, 28, 28)}


def only_images() -> Arrays:
    return {"image": large_digits()["image"]}


def images_and_noise() -> Arrays:
    """Images of 8 x 8 pixels, each to be rebuilt from the mean of its code."""
    return {"image": digits()["image"], "noise": np.zeros((SAMPLES, 8), np.float32)}


def plane() -> Arrays:
    """Points whose target is a plane over them, which units can come close to."""
    x = np.random.default_rng(0).uniform(0, 1, (SAMPLES, 2)).astype(np.float32)
    return {"x": x, "t": (0.2 + 0.4 * x[:, :1] + 0.2 * x[:, 1:]).astype(np.float32)}


def corners(gate: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Arrays:
    """Points about the corners of the unit square, and a gate of their corner."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (SAMPLES, 2))
    noise = generator.uniform(-0.2, 0.2, bits.shape)
    x = (bits + noise).astype(np.float32)
    return {"x": x, "t": gate(bits[:, :1], bits[:, 1:]).astype(np.float32)}


def sines() -> Arrays:
    """Windows of a sine of 30 values to the period, and the same one value later."""
    wave = np.sin(2 * np.pi / 30 * np.arange(SAMPLES + 24)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(wave, 25)
    return {"x": windows[:, :-1], "next": windows[:, 1:]}


def digit_images() -> Arrays:
    """The digits with their channel and both axes."""
    small = digits()
    return {**small, "image": small["image"].reshape(-1, 1, 8, 8)}


def framed_digits() -> Arrays:
    """The digits three times as large, in a frame: 32 x 32 pixels."""
    small = digits()
    large = np.kron(small["image"].reshape(-1, 8, 8), np.ones((1, 3, 3), np.float32))
    return {**small, "image": np.pad(large, ((0, 0), (4, 4), (4, 4)))[:, None]}


def colour_images() -> Arrays:
    """The digits in three colours."""
    small = digit_images()
    return {"image": small["image"] * np.float32([[[1.0]], [[0.5]], [[-1.0]]]),
            "label": small["digit"]}


def small_images() -> Arrays:
    return {"image": digits()["image"]}


def speech(time: int = 64) -> Arrays:
    """The first characters of the plays, in windows begun at each of the first 80."""
    symbols = texts.shakespeare().train["text"].ravel()[: SAMPLES + time]
    return dict(texts.windows(symbols, time, 1))


def surnames() -> Arrays:
    """Every 36th name to train on, from all over the languages."""
    train = texts.names().train
    return {name: value[::36][:SAMPLES] for name, value in train.items()}


def discs() -> Arrays:
    """Noisy images, each with a disc of its own size and place, and which pixels it covers."""
    generator = np.random.default_rng(0)
    place = generator.uniform(2, 5, (SAMPLES, 2, 1, 1))
    radius = generator.uniform(1, 3, (SAMPLES, 1, 1))
    rows, columns = np.indices((8, 8))
    mask = (rows - place[:, 0]) ** 2 + (columns - place[:, 1]) ** 2 <= radius**2
    image = mask + generator.normal(0, 0.3, mask.shape)
    return {"image": image[:, None].astype(np.float32), "mask": mask[:, None].astype(np.float32)}


RECIPES: Mapping[str, Recipe] = {
    "autoencoder": Recipe(only_images, 60, "loss", at_most=0.005),
    "char_lstm": Recipe(speech, 6, "accuracy", at_least=0.9),
    "denoising_autoencoder": Recipe(small_images, 100, "loss", at_most=0.01),
    "digits_cnn": Recipe(digit_images, 20, "accuracy", at_least=1.0),
    "digits_mlp": Recipe(digits, 60, "accuracy", at_least=1.0),
    "gpt": Recipe(lambda: speech(SIZES["gpt"]["time"]), 60, "accuracy", at_least=0.9),
    "gru_names": Recipe(surnames, 20, "accuracy", at_least=1.0),
    "lenet": Recipe(framed_digits, 40, "accuracy", at_least=1.0),
    "logic_gates": Recipe(lambda: corners(np.bitwise_and), 300, "accuracy", at_least=1.0),
    "mlp": Recipe(large_digits, 30, "accuracy", at_least=1.0),
    "mnist_cnn": Recipe(large_digit_images, 10, "accuracy", at_least=1.0),
    "mixer": Recipe(digit_images, 40, "accuracy", at_least=1.0),
    "perceptron": Recipe(lambda: corners(np.bitwise_and), 60, "accuracy", at_least=1.0),
    "powerplant": Recipe(plane, 3000, "loss", at_most=1e-3),
    "powerplant_relu": Recipe(plane, 3000, "loss", at_most=1e-3),
    "rbm": Recipe(lambda: {"image": digits()["image"]}, 200, "error", at_most=0.015),
    "resnet20": Recipe(colour_images, 30, "accuracy", at_least=0.97),
    "rnn_sine": Recipe(sines, 40, "loss", at_most=2e-3),
    "softmax_regression": Recipe(digits, 100, "accuracy", at_least=1.0),
    "sparse_autoencoder": Recipe(small_images, 60, "reconstruction", at_most=0.01),
    "tiny": Recipe(plane, 3000, "loss", at_most=1e-3),
    "unet": Recipe(discs, 60, "accuracy", at_least=0.98),
    "vae": Recipe(images_and_noise, 100, "loss", at_most=23.0),
    "xor": Recipe(lambda: corners(np.bitwise_xor), 200, "accuracy", at_least=1.0),
}
#: Models that cannot learn samples by heart, and why.
WITHOUT = {
    "dcgan": "its two losses pull against each other",
    "gan": "its two losses pull against each other",
    "scalar_graphs": "its loss has no target and no minimum",
}


def test_every_model_is_learned_or_listed() -> None:
    """A new model needs a recipe, or a reason to have none."""
    assert sorted([*RECIPES, *WITHOUT]) == NAMES


@pytest.mark.parametrize("name", RECIPES)
def test_learns_80_samples_by_heart(name: str) -> None:
    """A network that cannot overfit a few samples has something wrong with it."""
    recipe = RECIPES[name]
    data = recipe.data()
    assert {len(array) for array in data.values()} == {SAMPLES}
    model = compiled(MODELS / f"{name}.nn")
    before = model.evaluate(data)[recipe.measure]
    assert not recipe.at_least <= before <= recipe.at_most, "learned before training"
    model.fit(data, epochs=recipe.epochs, batch=BATCH, progress=False)
    assert recipe.at_least <= model.evaluate(data)[recipe.measure] <= recipe.at_most
