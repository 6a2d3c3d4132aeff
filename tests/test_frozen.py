"""Models whose weights are constants: predictions, files, and what they refuse."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.cli import main
from nncompiler.errors import UserError

MODELS = Path(__file__).resolve().parents[1] / "models"

MODEL = """
model norm {
    input x : f32[batch, 6, 8, 8]
    target t : f32[batch, 5]
    h = x |> conv2d(32, 3, padding=1) |> batch_norm() |> relu |> conv2d(32, 3, padding=1)
    output y = mean(h, axis=[2, 3]) |> dense(5)
    loss mse(y, t)
}

train { optimizer = adam(lr=0.01) }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """The model, and its weights after three steps."""
    source, weights = tmp_path / "norm.nn", tmp_path / "w.npz"
    source.write_text(MODEL)
    model = nncompiler.compile(source, batch=4)
    x, t = data(4)
    for _ in range(3):
        model.train_step(x=x, t=t)
    model.save(weights)
    return str(source), str(weights)


def data(rows: int):
    rng = np.random.default_rng(rows)
    return rng.random((rows, 6, 8, 8), np.float32), rng.random((rows, 5), np.float32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("direct", [False, True])
def test_predictions_are_those_of_the_model(files, threads, direct):
    """In each of two bindings, and of rows that are covered by both."""
    source, weights = files
    given = {"batch": [8, 1], "threads": threads, "direct": direct}
    plain = nncompiler.compile(source, **given)
    plain.load_weights(weights)
    frozen = nncompiler.compile(source, freeze=weights, **given)
    for rows in (1, 8, 10):
        x, _ = data(rows)
        np.testing.assert_allclose(frozen.predict(x), plain.predict(x), rtol=1e-4, atol=1e-5)
    if direct:  # weights of transforms are larger, where the processor's plan has any
        assert frozen.manifest.state_bytes < plain.manifest.state_bytes
    assert not frozen.parameters


@pytest.mark.parametrize("output", [
    "w", "exp(w)", "sum(w)", "transpose(w, [1, 0])", "zeros(batch, 3, 4) + w", "w[:, 1:3]",
])  # fmt: skip
def test_outputs_of_parameters_alone(output, tmp_path):
    """They are stored at each call, though all of them is known before."""
    source = f"""model m {{
        input x : f32[batch, 4]
        param w : f32[3, 4] = normal()
        output y = x * 2
        output z = {output}
    }}"""
    plain = nncompiler.compile(source, batch=2)
    plain.save(tmp_path / "w.npz")
    frozen = nncompiler.compile(source, batch=2, freeze=tmp_path / "w.npz")
    x = np.ones((2, 4), np.float32)
    expected = plain.predict(x)
    for name, array in frozen.predict(x).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-6, atol=1e-6)


def test_threads_make_the_same_bits(files):
    x, _ = data(8)
    found = [
        nncompiler.compile(files[0], batch=8, freeze=files[1], threads=n).predict(x)
        for n in (1, 2, 3)
    ]
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


def test_library_holds_the_constants(files, tmp_path, capsys):
    """Written, loaded again, initialised anew: the same predictions."""
    source, weights = files
    out = tmp_path / "norm.so"
    command = ["compile", source, "--batch", "8,1", "-o", str(out)]
    assert main([*command, "--freeze", weights]) == 0
    header = out.with_suffix(".h").read_text()
    assert "inference as plain functions" in header and "copies trained" not in header
    assert "PARAMETERS_BYTES ((size_t)0)" in header
    model, (x, _) = nncompiler.load(out), data(9)
    expected = nncompiler.compile(source, batch=[8, 1], freeze=weights).predict(x)
    np.testing.assert_array_equal(model.predict(x), expected)
    model.init(7)
    np.testing.assert_array_equal(model.predict(x), expected)
    assert "0 parameters" in repr(model)


def test_other_weights_are_another_artifact(files, tmp_path):
    """The cache knows by what is in the file, not by its name."""
    source, weights = files
    x, _ = data(4)
    before = nncompiler.compile(source, batch=4, freeze=weights).predict(x)
    model = nncompiler.compile(source, batch=4)
    model.init(3)
    model.save(weights)
    after = nncompiler.compile(source, batch=4, freeze=weights).predict(x)
    assert not np.allclose(before, after)


@pytest.mark.parametrize("names", [("infer", "loss"), ("init", "loss")])
def test_loss_where_it_is_named(files, names):
    """And `init`, which is there in any case."""
    source, weights = files
    x, t = data(4)
    plain = nncompiler.compile(source, batch=4)
    plain.load_weights(weights)
    frozen = nncompiler.compile(source, batch=4, freeze=weights, functions=names)
    expected = plain.evaluate({"x": x, "t": t})["loss"]
    assert frozen.evaluate({"x": x, "t": t})["loss"] == pytest.approx(expected, rel=1e-4)


def test_parameters_are_gone(files, tmp_path):
    """Nothing that reads or writes them goes on as if they were there."""
    source, weights = files
    model = nncompiler.compile(source, batch=4, freeze=weights)
    nncompiler.compile(source, batch=4).save_checkpoint(tmp_path / "norm.ckpt")
    for call in (
        model.state_dict, lambda: model.save(tmp_path / "x.npz"),
        lambda: model.load_weights(weights), lambda: model.save_checkpoint(tmp_path / "x.ckpt"),
        lambda: model.load_state_dict({}), lambda: model.load_checkpoint(tmp_path / "norm.ckpt"),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            call()
        assert caught.value.code == "NN0720"
    assert not list(tmp_path.glob("x.*"))
    with pytest.raises(UserError) as caught:
        model.train_step(x=data(4)[0], t=data(4)[1])
    assert caught.value.code == "NN0711" and "without `--freeze`" in str(caught.value.help)
    with pytest.raises(UserError) as caught:
        model.loss({"x": data(4)[0], "t": data(4)[1]})
    assert "`--function infer,loss` beside `--freeze`" in str(caught.value.help)


def test_rows_that_no_binding_covers(files):
    """A frozen model has the batch sizes that it was compiled with."""
    model = nncompiler.compile(files[0], batch=4, freeze=files[1])
    with pytest.raises(UserError) as caught:
        model.predict(data(5)[0])
    assert caught.value.code == "NN0710"


@pytest.mark.parametrize(("more", "code", "exit"), [
    (["--function", "train_step"], "NN0924", 1),
    (["--function", "inferr"], "NN0902", 2),
    (["--weights", "w.npz"], "not allowed with", 2),
    (["--freeze", "nowhere.npz"], "NN08", 1),
])  # fmt: skip
def test_what_cannot_be_frozen(files, tmp_path, capsys, more, code, exit):
    out = tmp_path / "norm.so"
    command = ["compile", files[0], "-o", str(out), "--freeze", files[1], *more]
    assert main(command) == exit
    assert code in capsys.readouterr().err
    assert not out.exists()


def test_weights_of_another_model(files, tmp_path, capsys):
    nncompiler.compile(MODELS / "tiny.nn").save(tmp_path / "tiny.npz")
    freeze = ["--freeze", str(tmp_path / "tiny.npz")]
    assert main(["compile", files[0], "-o", str(tmp_path / "x.so"), *freeze]) == 1
    assert "NN0805" in capsys.readouterr().err


@pytest.mark.parametrize(("function", "code", "exit", "said"), [
    ("train_step", "NN0924", 1, "compile without `--freeze`"),
    ("init", "NN0914", 2, "functions there: infer"),
    ("loss", "", 0, ""),
])  # fmt: skip
def test_profile_of_a_frozen_model(files, capsys, function, code, exit, said):
    """What freezing took away is told as such; the loss is there where it is named."""
    command = ["profile", files[0], "--batch", "4", "--freeze", files[1], "--seconds", "0.001"]
    assert main([*command, "--function", function]) == exit
    err = capsys.readouterr().err
    assert code in err and said in err


def test_frozen_without_any_constant(tmp_path):
    """A model without parameters knows that it is frozen, too."""
    source = """model twice {
        input x : f32[batch, 3]
        target t : f32[batch, 3]
        output y = 2 * x
        loss mse(y, t)
    }"""
    nncompiler.compile(source, batch=4).save(tmp_path / "w.npz")
    model = nncompiler.compile(source, batch=4, freeze=tmp_path / "w.npz")
    x = np.ones((4, 3), np.float32)
    assert (model.predict(x) == 2).all()
    with pytest.raises(UserError) as caught:
        model.loss({"x": x, "t": x})
    assert "beside `--freeze`" in str(caught.value.help)
    with pytest.raises(UserError) as caught:
        model.load_weights(tmp_path / "w.npz")
    assert caught.value.code == "NN0720"


@pytest.mark.parametrize("verb", ["dump", "profile"])
def test_stages_of_a_frozen_model(files, capsys, verb):
    """Scaled weights are in the state, and no kernel scales them. Transforms, which may pay only
    with constants, would be more kernels."""
    command = [verb, files[0], "--batch", "8", "--function", "infer", "--direct"]
    command += ["--stage", "plan"] if verb == "dump" else ["--seconds", "0.01"]
    assert main(command) == 0
    plain = capsys.readouterr().out
    assert main([*command, "--freeze", files[1]]) == 0
    found = capsys.readouterr().out
    if verb == "dump":
        assert "running_var" in plain and "running_var" not in found
    fewer, all_ = (len(re.findall(r"^ *(?:kernel )?k\d+\b", t, re.M)) for t in (found, plain))
    assert 0 < fewer < all_
