"""The verbs about models at work: train, eval, predict; and `nncompiler.compile`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import UserError
from nncompiler.runtime import datasets
from tests.cli.conftest import DIGITS, LINE, MODELS, REPOSITORY, Nnc

# --- train, eval, predict


def test_train_evaluate_predict(nnc: Nnc, line: Path, line_data: Path, tmp_path: Path) -> None:
    """Weights and artifact that training writes give the same losses and outputs."""
    weights, artifact, log = tmp_path / "w.npz", tmp_path / "a.so", tmp_path / "log.csv"
    result = nnc("train", line, "--data", line_data, "--weights-out", weights, "--artifact",
                 artifact, "--test", "--csv", log, "--report-stages")  # fmt: skip
    assert result.code == 0
    assert "line: 72 rows to train, 8 rows to validation, 20 rows to test" in result.err
    assert re.search(r"^codegen +\d", result.err, re.M) and "epoch 30/30" in result.err
    last = result.out.splitlines()[-1]
    assert re.match(r"test +loss \S+  worst \S+  \(20 rows\)$", last)
    assert len(log.read_text().splitlines()) == 31
    for words in ([line, "--weights", weights], [artifact]):
        found = nnc("eval", *words, "--data", line_data, "--part", "test", "--json").json
        assert found["rows"] == 20 and found["loss"] < 1e-3
        assert f"loss {found['loss']:.4f}" in last or f"loss {found['loss']:.4e}" in last
    out = tmp_path / "out.npz"
    assert nnc("predict", artifact, "--data", line_data, "-o", out).code == 0
    target = np.load(line_data)["t"]
    np.testing.assert_allclose(np.load(out)["y"], target, atol=0.05)
    shown = nnc("predict", line, "--weights", weights, "--data", line_data, "--json").json
    np.testing.assert_allclose(shown["y"], np.load(out)["y"], rtol=1e-6)
    assert nnc("predict", artifact, "--data", line_data).out.startswith("y float32[100,1]\n[[")


def test_demo_of_a_convolutional_network(nnc: Nnc, tmp_path: Path) -> None:
    """What `make demo MODEL=digits_cnn` runs: the digits as images, split, tested at the end."""
    result = nnc("train", MODELS / "digits_cnn.nn", "--data", DIGITS, "--weights-out",
                 tmp_path / "w.npz", "--artifact", tmp_path / "a.so", "--test", "--epochs", "3",
                 "--json")  # fmt: skip
    assert "digits_cnn: 1298 rows to train, 144 rows to validation, 355 rows to test" in result.err
    assert result.code == 0 and result.json["test"]["accuracy"] > 0.85
    found = nnc("eval", tmp_path / "a.so", "--data", DIGITS, "--part", "test", "--json").json
    assert found["accuracy"] == pytest.approx(result.json["test"]["accuracy"], rel=1e-6)


def test_text_from_a_file(nnc: Nnc, tmp_path: Path) -> None:
    """A model of characters learns a text: train, eval and predict take the file itself."""
    path, weights = tmp_path / "song.TXT", tmp_path / "w.npz"
    path.write_text("la la lo\nla lu la\n" * 60)
    sizes = ("--size", "time=8,units=16,dim=8")
    words = (MODELS / "char_lstm.nn", "--data", path, *sizes)
    trained = nnc("train", *words, "--weights-out", weights, "--test", "--epochs", 20, "--quiet",
                  "--json", "--lr", 0.02, "--batch", 16)  # fmt: skip
    assert "char_lstm: 97 rows to train, 10 rows to validation, 26 rows to test" in trained.err
    assert trained.json["test"]["accuracy"] > 0.75
    found = nnc("eval", *words, "--weights", weights, "--part", "test", "--json").json
    assert found["rows"] == 26
    assert found["accuracy"] == pytest.approx(trained.json["test"]["accuracy"], rel=1e-6)
    result = nnc("predict", *words, "--weights", weights)
    assert result.out.startswith("probs float32[134,8,96]\n")


def test_parts_of_predictions_are_those_of_training(nnc: Nnc, tmp_path: Path) -> None:
    """Classes say how rows are split, also where only inputs are read."""
    raw = datasets.load_npz(DIGITS)
    np.savez(tmp_path / "d.npz", image=raw["images"].reshape(-1, 64), digit=raw["labels"])
    out = tmp_path / "out.npz"
    for data in (DIGITS, tmp_path / "d.npz"):
        words = (MODELS / "softmax_regression.nn", "--data", data, "--part", "validation")
        assert nnc("predict", *words, "-o", out).code == 0
        assert np.load(out)["probs"].shape == (144, 10)


@pytest.mark.parametrize("flag, name", [
    ("--weights-out", "w.npz"), ("--artifact", "a.so"), ("--checkpoint", "c.npz"),
    ("--csv", "l.csv"), ("--plot", "p.svg"),
])  # fmt: skip
def test_results_that_cannot_be_written_are_told_first(
    nnc: Nnc, line: Path, line_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    flag: str, name: str,
) -> None:  # fmt: skip
    """Before anything is compiled: a folder in place of the file, a folder of others."""
    words = ("train", line, "--data", line_data)
    (tmp_path / name).mkdir()
    result = nnc(*words, flag, tmp_path / name)
    assert result.code == 1 and "NN0906" in result.err and "it is a folder" in result.err
    assert "rows to train" not in result.err
    monkeypatch.setattr(os, "access", lambda *_: False)
    result = nnc(*words, flag, tmp_path / f"new.{name}")
    assert result.code == 1 and f"the folder '{tmp_path}' is not yours" in result.err
    assert "rows to train" not in result.err


def test_training_needs_what_it_reads(nnc: Nnc) -> None:
    """Noise that only prediction takes is asked for where there is validation or a test."""
    words = ("train", MODELS / "gan.nn", "--data", DIGITS, "--epochs", 1, "--quiet")
    done = nnc(*words, "--validation", 0)
    assert done.code == 0 and "gan: 1298 rows to train" in done.err
    for more in ((), ("--validation", 0, "--test")):
        refused = nnc(*words, *more)
        assert refused.code == 1 and "NN0765" in refused.err and "'noise', f32[16]" in refused.err
        assert "--validation 0" in refused.err


def test_train_plots(nnc: Nnc, line: Path, line_data: Path, tmp_path: Path) -> None:
    """--plot draws a panel for the loss and one for each metric, with the last values."""
    out = tmp_path / "curves.svg"
    words = ("train", line, "--data", line_data, "--epochs", "4", "--quiet", "--json")
    history = nnc(*words, "--plot", out).json["history"]
    texts = [t.text for t in ElementTree.parse(out).getroot().iter() if t.tag.endswith("text")]
    assert {"line", "loss", "worst", "epoch"} <= set(texts)
    assert f"training {history['loss'][-1]:.3g}" in texts
    assert f"validation {history['val_loss'][-1]:.3g}" in texts
    assert nnc(*words, "--plot", tmp_path / "no" / "c.svg").code == 1


def test_train_json_and_seed(nnc: Nnc, line: Path, line_data: Path) -> None:
    """--json tells the history; the same seed gives the same, another another."""
    words = ("train", line, "--data", line_data, "--epochs", "3", "--quiet", "--json")
    first, again, other = (nnc(*words, "--seed", s).json for s in (1, 1, 2))
    assert first["epochs"] == 3 and len(first["history"]["val_loss"]) == 3
    assert first["history"] == again["history"] != other["history"]
    assert "test" not in first and first["validation"]["loss"] == first["history"]["val_loss"][-1]


def test_train_with_patience_keeps_the_best(nnc: Nnc, line: Path, line_data: Path) -> None:
    """--patience stops, and the validation that is told is that of the best epoch."""
    result = nnc("train", line, "--data", line_data, "--epochs", "500", "--patience", "3",
                 "--json", "--quiet")  # fmt: skip
    assert result.code == 0
    found = result.json
    assert found["epochs"] < 500 and "has not improved" in found["stopped"]
    best = min(found["history"]["val_loss"])
    assert found["validation"]["loss"] == pytest.approx(best, rel=1e-6)


def test_train_resumes(nnc: Nnc, line: Path, line_data: Path, tmp_path: Path) -> None:
    """Two epochs, a checkpoint and two more give the same bits as four."""
    words = ("train", line, "--data", line_data, "--quiet")
    once, twice, checkpoint = (tmp_path / n for n in ("once.npz", "twice.npz", "c.npz"))
    assert nnc(*words, "--epochs", "4", "--weights-out", once).code == 0
    assert nnc(*words, "--epochs", "2", "--checkpoint", checkpoint).code == 0
    assert nnc(*words, "--epochs", "4", "--resume", checkpoint, "--weights-out", twice).code == 0
    assert once.read_bytes() == twice.read_bytes()


def test_train_from_weights_at_a_rate(
    nnc: Nnc, line: Path, line_data: Path, tmp_path: Path
) -> None:
    """--weights-in is where training starts, --lr its rate: with almost none, nothing moves."""
    start, end = tmp_path / "start.npz", tmp_path / "end.safetensors"
    np.savez(start, **{"y.W": np.full((2, 1), 7, np.float32), "y.b": np.ones(1, np.float32)})
    assert nnc("train", line, "--data", line_data, "--quiet", "--weights-in", start, "--lr",
               "1e-30", "--weights-out", end).code == 0  # fmt: skip
    from nncompiler.runtime.weights import read_weights

    assert read_weights(end)["y.W"].tolist() == [[7.0], [7.0]]


def test_train_diverges(nnc: Nnc, line: Path, line_data: Path, tmp_path: Path) -> None:
    """A loss that is no number ends training with an error, and no weights."""
    weights = tmp_path / "w.npz"
    result = nnc("train", line, "--data", line_data, "--lr", "1e30", "--quiet", "--weights-out",
                 weights)  # fmt: skip
    assert result.code == 1 and "NN0922: training diverged" in result.err and not weights.exists()


@pytest.mark.parametrize(("words", "code", "text"), [
    (["--weights-out", "w.txt"], 2, "NN0919"),
    (["--resume", "a.npz", "--weights-in", "b.npz"], 2, "NN0921"),
    (["--monitor", "val_loss"], 2, "NN0921"),
    (["--weights-out", "/no/such/w.npz"], 1, "there is no folder '/no/such'"),
    (["--resume", "/no/such/c.npz"], 1, "there is no such file"),
    (["--resume", str(DIGITS)], 1, "--weights-in"),
    (["--plot", "losses.png"], 2, "expected --plot to be .svg"),
    (["--patience", "3", "--monitor", "bogus"], 1, "NN0713"),
])  # fmt: skip
def test_train_refuses(
    nnc: Nnc, line: Path, line_data: Path, words: list[str], code: int, text: str
) -> None:
    """What cannot work is told, where possible before compiling."""
    result = nnc("train", line, "--data", line_data, "--quiet", *words)
    assert result.code == code and text in result.err


def test_train_tells_a_batch_larger_than_the_data(
    nnc: Nnc, line: Path, line_data: Path
) -> None:
    """Each step then takes fewer rows than it was asked to."""
    words = ["train", line, "--data", line_data, "--epochs", "1", "--batch"]
    assert "an epoch is one step, of fewer rows than the batch of 100" in nnc(*words, "100").err
    assert "an epoch is one step" not in nnc(*words, "90").err


@pytest.mark.parametrize("words", [
    "train {m} --data {d} --artifact {m}", "train {m} --data {d} --weights-out {d}",
    "train {m} --data {d} --weights-out a.npz --checkpoint ./a.npz",
    "train {m} --data {d} --artifact a.h", "predict {m} --data {d} -o {d}",
    "predict {m} --data {d} --weights {w} -o {w}", "dump {m} --stage plan -o {m}",
    "train {m} --data {d} --weights-in {w} --plot {w}.svg --csv {w}", "opt {g} -o {g}",
    "report {m} --html {m}", "compile {m} -o {m}", "compile {m} --weights {w} -o {w}",
])  # fmt: skip
def test_no_result_is_written_over_what_is_read(
    nnc: Nnc, line: Path, line_data: Path, tmp_path: Path, words: str
) -> None:
    """Nor over another one; the files are as they were."""
    weights = tmp_path / "w.npz"
    nncompiler.compile(line).save(weights)
    graph = tmp_path / "line.nnir"
    assert nnc("dump", line, "--stage", "graph", "-o", graph).code == 0
    files = {"m": line, "d": line_data, "w": weights, "g": graph}
    before = [path.read_bytes() for path in files.values()]
    result = nnc(*words.format(**files).split())
    assert result.code == 2 and "NN0925" in result.err
    assert [path.read_bytes() for path in files.values()] == before


def test_train_takes_parts_by_their_names_only(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """A validation part under another name is not left out in silence."""
    x, t = np.zeros((8, 2), np.float32), np.zeros((8, 1), np.float32)
    path = tmp_path / "parts.npz"
    np.savez(path, **{"train.x": x, "train.t": t, "val.x": x, "val.t": t, "train.note": x})
    result = nnc("train", line, "--data", path, "--epochs", "1")
    assert result.code == 1 and "rename it to 'validation.x'" in result.err
    np.savez(path, **{"train.x": x, "train.t": t, "test.x": x})
    result = nnc("train", line, "--data", path, "--epochs", "1")
    assert result.code == 1 and "test.t missing" in result.err and "rename" not in result.err


def test_train_needs_a_train_block(nnc: Nnc, line: Path, line_data: Path) -> None:
    """A model without a train block cannot be trained, but evaluated."""
    line.write_text(LINE[: LINE.index("train {")].replace("batch", "4"))
    result = nnc("train", line, "--data", line_data)
    assert result.code == 1 and "NN0924" in result.err and "no function 'train_step'" in result.err
    np.savez(line_data, x=np.zeros((4, 2)), t=np.zeros((4, 1)))
    assert nnc("eval", line, "--data", line_data, "--json").json["loss"] == 0.0


def test_eval_of_a_compiled_file_takes_no_sizes(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """--batch is for .nn files; an artifact has its sizes."""
    out = tmp_path / "a.so"
    nnc("compile", line, "-o", out, "--function", "infer")
    result = nnc("eval", out, "--data", "a.npz", "--batch", "3")
    assert result.code == 2 and "NN0917" in result.err


def test_predict_needs_no_targets(nnc: Nnc, line: Path, tmp_path: Path) -> None:
    """Inputs alone are enough to predict; without weights a note says so."""
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 2)))
    result = nnc("predict", line, "--data", tmp_path / "x.npz")
    assert result.code == 0 and "y float32[3,1]" in result.out and "note: without" in result.err


def test_interrupted_training_goes_on(
    cache_folder: Path, line: Path, line_data: Path, tmp_path: Path
) -> None:
    """Ctrl-C writes a checkpoint, exits with 130 and tells how to go on."""
    command = [sys.executable, "-m", "nncompiler"]
    words = ["train", str(line), "--data", str(line_data), "--quiet", "--json"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    checkpoint = tmp_path / "line.checkpoint.npz"
    process = subprocess.Popen(
        [*command, *words, "--epochs", "100000000", "--csv", "log.csv"], cwd=tmp_path, env=env,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    log = tmp_path / "log.csv"
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "interrupted in epoch" in err and f"--resume {checkpoint.name}" in err
    with np.load(checkpoint) as held:
        assert held["header/step"] > 0


def test_resume_command_leaves_the_old_start_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line told after Ctrl-C starts from the checkpoint and nothing else."""
    from nncompiler.cli import train

    monkeypatch.setattr(sys, "argv", ["nnc", "train", "a b.nn", "--resume", "old.npz", "--lr", "1",
                                      "--weights-in=w.npz"])  # fmt: skip
    assert train._again("new.npz") == "nnc train 'a b.nn' --lr 1 --resume new.npz"


# --- nncompiler.compile


def test_compile_gives_a_model(cache_folder: Path) -> None:
    """Source text compiles to a model; batch sizes it lacks are compiled when needed."""
    model = nncompiler.compile(LINE, batch=[4])
    assert model.bindings.sizes("infer") == [4]
    assert model.predict(np.zeros((9, 2), np.float32)).shape == (9, 1)
    assert model.bindings.sizes("infer") == [4, 1]
    assert set(model.gradients({"x": np.zeros((3, 2)), "t": np.ones((3, 1))})) == {"y.W", "y.b"}


def test_compile_options(cache_folder: Path) -> None:
    """Float type, functions and path."""
    model = nncompiler.compile(MODELS / "tiny.nn", dtype="f64", functions=["infer"])
    assert model.parameters["h1.W"].dtype == np.float64
    assert {e.function for e in model.manifest.entries} == {"init", "infer"}
    again = nncompiler.compile(MODELS / "tiny.nn", batch=np.int64(3), functions="infer")
    assert {(e.function, e.rows) for e in again.manifest.entries} == {("init", 0), ("infer", 3)}


@pytest.mark.parametrize(("options", "error", "code"), [
    ({"threads": 0}, UserError, "NN0709"), ({"threads": 257}, UserError, "NN0709"),
    ({"batch": 0}, UserError, "NN0904"),
    ({"batch": True}, UserError, "NN0904"), ({"batch": 2.0}, UserError, "NN0904"),
    ({"batch": "8"}, UserError, "NN0904"), ({"dtype": float}, UserError, "NN0903"),
    ({"functions": "bogus"}, UserError, "NN0902.*'bogus'"),
    ({"sizes": {"batch": 2.5}}, UserError, "NN0904"),
    ({"dtype": "f16"}, UserError, "NN0903"), ({"functions": ["bogus"]}, UserError, "NN0902"),
    ({"cpu": "bogus"}, UserError, "NN0501"),
])  # fmt: skip
def test_compile_refuses(
    cache_folder: Path, options: dict[str, object], error: type[Exception], code: str
) -> None:
    """Options that cannot be are refused by name."""
    with pytest.raises(error, match=code):
        nncompiler.compile(LINE, **options)  # type: ignore[arg-type]


def test_what_resuming_adds_is_told(
    nnc: Nnc, line: Path, line_data: Path, tmp_path: Path
) -> None:
    """Epochs of the checkpoint are not counted twice; an epoch alone is no plural."""
    words = ("train", line, "--data", line_data, "--quiet")
    checkpoint = tmp_path / "c.npz"
    first = nnc(*words, "--epochs", "1", "--checkpoint", checkpoint)
    assert re.search(r"^trained +1 epoch in [\d.]+ s$", first.out, re.M)
    more = nnc(*words, "--epochs", "3", "--resume", checkpoint)
    assert re.search(r"^trained +2 epochs in [\d.]+ s, after 1 before$", more.out, re.M)
    none = nnc(*words, "--epochs", "1", "--resume", checkpoint)
    assert re.search(r"^trained +0 epochs in [\d.]+ s, after 1 before$", none.out, re.M)


@pytest.mark.parametrize(("flag", "file"), [
    ("--weights-out", "full.npz"), ("--artifact", "full.so"), ("--plot", "full.svg"),
])  # fmt: skip
def test_weights_outlive_files_that_cannot_be_written(
    nnc: Nnc, line: Path, line_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    flag: str, file: str,
) -> None:  # fmt: skip
    """A full disk at the end does not cost the training."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).symlink_to("/dev/full")
    result = nnc("train", line, "--data", line_data, "--quiet", "--epochs", "2", flag, file)
    assert result.code == 1 and "No space left on device" in result.err
    assert "the weights as they are now: line.weights.npz" in result.err
    assert nnc("eval", line, "--data", line_data, "--weights", "line.weights.npz").code == 0


@pytest.mark.parametrize("shares", [
    ("--test", "0.4", "--validation", "0.25"), ("--test", "0", "--validation", "0.3"),
])  # fmt: skip
def test_parts_are_those_of_the_shares(
    nnc: Nnc, line: Path, line_data: Path, tmp_path: Path, shares: tuple[str, ...]
) -> None:
    """Eval takes the rows that training validated on, if it is told of its shares."""
    weights, words = tmp_path / "w.npz", (line, "--data", line_data)
    given = shares if shares[1] != "0" else shares[2:]
    trained = nnc("train", *words, "--quiet", "--epochs", "1", *given, "--weights-out", weights,
                  "--json").json  # fmt: skip
    used = (*words, "--weights", weights, "--part", "validation")
    found = nnc("eval", *used, *shares, "--json").json
    assert found["rows"] == (15 if len(given) == 4 else 30)
    assert found["loss"] == pytest.approx(trained["validation"]["loss"], rel=1e-6)
    assert nnc("predict", *used, *shares).out.startswith(f"y float32[{found['rows']},1]")
    refused = nnc("eval", *words, "--test", "0.4")
    assert refused.code == 2 and "name a part" in refused.err
