"""The training loop: chunks, order, last batch, history, interrupts, callbacks, resuming."""

from __future__ import annotations

import csv
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompiler.errors import UserError
from nncompiler.runtime import training
from nncompiler.runtime.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    ModelCheckpoint,
    ReduceOnPlateau,
    TerminateOnNaN,
)
from nncompiler.runtime.model import Model
from nncompiler.runtime.progress import Progress
from nncompiler.runtime.record import epoch_order
from tests.runtime_fake import Fake, data


def make(rows: tuple[int, ...] = (4,), compiler: bool = True) -> tuple[Model, Fake]:
    fake = Fake()
    return Model(fake.artifact(rows), (lambda n: fake.artifact((n,))) if compiler else None), fake


def memory(model: Model) -> bytes:
    """All bits of the state."""
    return b"".join(model.state.views[e.name].tobytes() for e in model.manifest.state)


def by_steps(model: Model, arrays: Any, batch: int, epochs: int, seed: int, shuffle: bool = True
             ) -> list[float]:  # fmt: skip
    """Train by single calls of train_step, which is what fit must equal."""
    rows, means = len(arrays["x"]), []
    for epoch in range(epochs):
        order, total = epoch_order(rows, seed, epoch, shuffle), 0.0
        for start in range(0, rows, batch):
            at = order[start : start + batch]
            total += len(at) * model.train_step(**{k: v[at] for k, v in arrays.items()})
        means.append(total / rows)
    return means


@pytest.mark.parametrize("rows", [3, 4, 10, 12])
@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_equals_steps_one_by_one(rows: int, shuffle: bool) -> None:
    """Whole batches and the smaller last one, bit for bit, with the row-weighted loss."""
    model, fake = make()
    twin, _ = make()
    history = model.fit(data(rows), epochs=3, seed=5, shuffle=shuffle, progress=False)
    means = by_steps(twin, data(rows), 4, 3, 5, shuffle)
    assert memory(model) == memory(twin)
    assert history["loss"] == pytest.approx(means, rel=1e-12)
    assert sum(n for _, n in fake.chunks) == 3 * rows
    assert {batch for batch, _ in fake.chunks} == {b for b in (4, rows % 4) if b and b <= rows}


def test_chunks_do_not_alter_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch per native call, or an epoch per call: the same bits and the same history."""
    results = []
    for seconds in (0.0, 60.0):
        monkeypatch.setattr(training, "CHUNK_SECONDS", seconds)
        model, fake = make()
        history = model.fit(data(42), epochs=4, progress=False)
        results.append((memory(model), dict(history)))
        counts = [n for batch, n in fake.chunks if batch == 4]
        assert counts == [4] * 40 if not seconds else max(counts) == 40
    assert results[0] == results[1]


def test_order_is_a_permutation_of_seed_and_epoch() -> None:
    """Each epoch visits each row once, in an order that seed and epoch decide."""
    orders = {(s, e): epoch_order(50, s, e, True) for s in (0, 1) for e in (0, 1)}
    assert all((np.sort(order) == np.arange(50)).all() for order in orders.values())
    assert len({order.tobytes() for order in orders.values()}) == 4
    assert (orders[1, 1] == epoch_order(50, 1, 1, True)).all()
    assert epoch_order(8, 0, 0, True).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert epoch_order(3, 2**64 - 1, 0, False).tolist() == [0, 1, 2]


def test_history_has_validation() -> None:
    """Losses and metrics of the validation rows, as evaluate gives them after the epoch."""
    model, _ = make()
    history = model.fit(data(10), epochs=2, validation_data=data(7, 1), progress=False)
    assert set(history) == {"loss", "val_loss", "val_accuracy"}
    assert all(len(values) == 2 for values in history.values())
    last = model.evaluate(data(7, 1))
    assert (history["val_loss"][-1], history["val_accuracy"][-1]) == tuple(last.values())


def test_defaults_come_from_the_train_block() -> None:
    """Epochs and batch of the model file unless given."""
    model, fake = make((5,))
    assert len(model.fit(data(10), progress=False)["loss"]) == 3
    assert {batch for batch, _ in fake.chunks} == {5}
    assert len(model.fit(data(10), epochs=1, batch=2, progress=False)["loss"]) == 1
    assert {batch for batch, _ in fake.chunks} == {5, 2}


def test_a_lacking_binding_is_refused_before_the_first_step() -> None:
    """Without a compiler the error names the flag, and nothing was trained."""
    model, fake = make(compiler=False)
    before = memory(model)
    with pytest.raises(UserError, match=r"--batch 4,2") as error:
        model.fit(data(10), progress=False)
    assert error.value.code == "NN0710"
    with pytest.raises(UserError, match=r"--batch 4,3") as error:
        model.fit(data(8), validation_data=data(7), progress=False)
    assert memory(model) == before and not fake.chunks


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("NN0709", {"epochs": 0}), ("NN0709", {"epochs": 1.5}), ("NN0709", {"batch": 0}),
        ("NN0709", {"epochs": True}), ("NN0709", {"seed": -1}), ("NN0709", {"seed": 2**64}),
        ("NN0709", {"initial_epoch": 4}), ("NN0709", {"callbacks": [print]}),
        ("NN0713", {"callbacks": [EarlyStopping(monitor="val_loss")]}),
        ("NN0801", {"resume": "nowhere.npz"}),
        ("NN0701", {"validation_data": {"x": np.zeros((1, 3))}}),
    ],
)  # fmt: skip
def test_wrong_options(code: str, options: dict[str, Any]) -> None:
    """Each is refused before the first step."""
    model, fake = make()
    with pytest.raises(UserError) as error:
        model.fit(data(8), **{"progress": False, **options})
    assert error.value.code == code and not fake.chunks


class Interrupt(Callback):
    """Sends Ctrl-C to this process from inside of a native call."""

    def __init__(self, fake: Fake, at: int) -> None:
        self.left = at
        fake.before = self.before

    def before(self, symbol: str) -> None:
        if symbol.startswith("line_fit"):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("at", [1, 3, 5, 12, 24])
def test_interrupt_and_resume_are_bit_identical(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in any chunk, a checkpoint, and a new process's model: as if never stopped."""
    monkeypatch.setattr(training, "CHUNK_SECONDS", 0.0)
    options: dict[str, Any] = {
        "epochs": 6, "seed": 3, "progress": False, "validation_data": data(6, 2)}

    def callbacks() -> list[Callback]:
        return [EarlyStopping(patience=2, min_delta=0.01), ReduceOnPlateau(patience=1)]

    whole, _ = make()
    expected = whole.fit(data(14), callbacks=callbacks(), **options)

    model, fake = make()
    Interrupt(fake, at)
    handler = signal.getsignal(signal.SIGINT)
    try:
        model.fit(data(14), callbacks=callbacks(), **options)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    assert interrupted == (at <= 4 * len(expected["loss"]))
    assert signal.getsignal(signal.SIGINT) is handler
    if not interrupted:
        return
    assert model.record is not None and len(fake.chunks) == at
    model.save_checkpoint(tmp_path / "run.ckpt")

    resumed, _ = make()
    history = resumed.fit(
        data(14), callbacks=callbacks(), resume=tmp_path / "run.ckpt", **options)
    assert dict(history) == dict(expected) and history.stopped == expected.stopped
    assert memory(resumed) == memory(whole)


def test_a_second_interrupt_is_raised_at_once() -> None:
    """Two Ctrl-C get out of a slow callback; the state is that of the last chunk."""

    class Slow(Callback):
        def epoch_end(self, run: training.Run, logs: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not reached")

    model, _ = make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(data(8), epochs=2, callbacks=[Slow()], progress=False)
    assert model.step == 2


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    """Other rows, batch, seed, order or callbacks would not be the same training."""
    model, _ = make()
    path = tmp_path / "c.npz"
    model.fit(data(8), epochs=1, callbacks=[ModelCheckpoint(path)], progress=False)
    saved = memory(model)
    for changed in ({"batch": 2}, {"seed": 1}, {"shuffle": False}, {"rows": 12},
                    {"callbacks": [EarlyStopping(monitor="loss")]}):  # fmt: skip
        twin, _ = make()
        before = memory(twin)
        rows = changed.pop("rows", 8)
        options = {"callbacks": [ModelCheckpoint(path)], **changed}
        with pytest.raises(UserError) as error:
            twin.fit(data(rows), epochs=2, resume=path, progress=False, **options)
        assert error.value.code in ("NN0812", "NN0813") and memory(twin) == before
    twin, _ = make()
    twin.fit(data(8), epochs=1, callbacks=[ModelCheckpoint(path)], resume=path, progress=False)
    assert memory(twin) == saved


def test_early_stopping_restores_the_best() -> None:
    """It stops after patience epochs, with the parameters of the best one."""
    model, _ = make()
    model.rate = 0.9  # too high: the loss falls and then rises
    best: dict[str, Any] = {}

    class Watch(Callback):
        def epoch_end(self, run: training.Run, logs: Any) -> None:
            best[logs["loss"]] = run.model.state_dict()

    stopping = EarlyStopping(patience=2, monitor="loss")
    history = model.fit(data(16), epochs=50, callbacks=[Watch(), stopping], progress=False)
    lowest = int(np.argmin(history["loss"]))
    assert len(history["loss"]) == lowest + 3 < 50
    assert history.stopped and "loss has not improved" in history.stopped
    expected = best[min(best)]
    assert all((model.parameters[n] == v).all() for n, v in expected.items())


def test_a_training_that_stopped_early_does_not_go_on(tmp_path: Path) -> None:
    """Resumed from its last checkpoint it ends at once, with the best parameters too."""
    def callbacks() -> list[Callback]:
        return [ModelCheckpoint(tmp_path / "c.npz"), EarlyStopping(patience=1, min_delta=9.0)]

    model, _ = make()
    history = model.fit(data(8), epochs=9, callbacks=callbacks(), progress=False)
    twin, fake = make()
    again = twin.fit(
        data(8), epochs=9, callbacks=callbacks(), progress=False, resume=tmp_path / "c.npz")
    assert not fake.chunks and len(history["loss"]) == 2 and dict(again) == dict(history)
    assert again.stopped == history.stopped and memory(twin) == memory(model)


def test_reduce_on_plateau_lowers_the_rate() -> None:
    """By the factor after patience epochs, down to the least rate, with a pause after each."""
    model, _ = make()
    rates: list[float] = []

    class Watch(Callback):
        def epoch_begin(self, run: training.Run) -> None:
            rates.append(run.model.rate)

    plateau = ReduceOnPlateau(0.5, patience=2, min_delta=1e9, min_rate=0.04, cooldown=1)
    model.fit(data(8), epochs=9, callbacks=[Watch(), plateau], progress=False)
    f32 = [float(np.float32(r)) for r in (0.1, 0.05, 0.04)]
    # The first epoch counts as an improvement (on infinity).
    assert rates == pytest.approx([f32[0]] * 3 + [f32[1]] * 3 + [f32[2]] * 3)


def test_rising_metrics_are_told_by_name() -> None:
    """accuracy rises, losses fall, and other names need a mode."""
    model, _ = make()
    stopping = EarlyStopping(patience=1, monitor="val_accuracy", min_delta=2.0)
    history = model.fit(
        data(8), epochs=9, validation_data=data(8), callbacks=[stopping], progress=False)
    assert stopping._sign == -1 and len(history["loss"]) == 2
    with pytest.raises(UserError, match="did you mean 'val_accuracy'"):
        model.fit(data(8), validation_data=data(8),
                  callbacks=[EarlyStopping(monitor="val_acuracy")], progress=False)  # fmt: skip
    with pytest.raises(UserError, match="validation_data"):
        model.fit(data(8), callbacks=[EarlyStopping(monitor="val_accuracy")], progress=False)
    with pytest.raises(UserError, match="auto, min or max"):
        EarlyStopping(mode="up")


def test_terminate_on_nan_stops_within_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No further chunk is trained."""
    monkeypatch.setattr(training, "CHUNK_SECONDS", 0.0)
    model, fake = make()
    arrays = data(40)
    arrays["t"][epoch_order(40, 0, 0, True)[13]] = np.nan
    history = model.fit(arrays, epochs=5, callbacks=[TerminateOnNaN()], progress=False)
    assert len(fake.chunks) == 4 and math.isnan(history["loss"][0])
    assert history.stopped == "loss is nan after 4 steps"
    with pytest.raises(UserError, match=r"nan in 't' at index \[\d+, 0\]"):
        model.fit(arrays, check_nan=True, progress=False)


def test_checkpoints_per_epoch_and_best(tmp_path: Path) -> None:
    """{epoch} in the path, best only, weights only."""
    model, _ = make()
    model.fit(data(8), epochs=3, progress=False, callbacks=[
        ModelCheckpoint(tmp_path / "all-{epoch}.npz"),
        ModelCheckpoint(tmp_path / "best.safetensors", best_only=True, weights_only=True)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "all-1.npz", "all-2.npz", "all-3.npz", "best.safetensors"]  # fmt: skip
    twin, _ = make()
    twin.load_checkpoint(tmp_path / "all-3.npz")
    assert memory(twin) == memory(model) and twin.record == model.record
    twin.load_weights(tmp_path / "best.safetensors")


def test_a_checkpoint_includes_what_later_callbacks_learnt(tmp_path: Path) -> None:
    """The order of the callbacks does not matter for going on exactly."""
    def callbacks() -> list[Callback]:
        return [ModelCheckpoint(tmp_path / "{epoch}.npz"), ReduceOnPlateau(0.5, 2, 1e9)]

    whole, _ = make()
    whole.fit(data(8), epochs=6, callbacks=callbacks(), progress=False)
    for epoch in range(1, 6):
        twin, _ = make()
        twin.fit(data(8), epochs=6, callbacks=callbacks(), progress=False,
                 resume=tmp_path / f"{epoch}.npz")  # fmt: skip
        assert memory(twin) == memory(whole)


def test_csv_has_one_line_per_epoch_after_resuming_too(tmp_path: Path) -> None:
    """Header once, epochs from 1, no line twice."""
    log, saved = tmp_path / "log.csv", tmp_path / "1.npz"
    for resume, epochs in ((None, 2), (saved, 4)):
        model, _ = make()
        callbacks = [CSVLogger(log), ModelCheckpoint(saved)]
        history = model.fit(data(8), epochs=epochs, validation_data=data(4), progress=False,
                            callbacks=callbacks, resume=resume)  # fmt: skip
    rows = list(csv.reader(log.read_text().splitlines()))
    assert rows[0] == ["epoch", "loss", "val_loss", "val_accuracy"]
    assert [row[0] for row in rows[1:]] == ["1", "2", "3", "4"]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(history["loss"], rel=1e-8)


def test_progress_is_given_to_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows rise within an epoch; the last event of an epoch has the validation."""
    monkeypatch.setattr(training, "CHUNK_SECONDS", 0.0)
    events: list[Progress] = []
    model, _ = make()
    model.fit(data(12), epochs=2, validation_data=data(4), progress=events.append)
    assert [(e.epoch, e.rows, e.done) for e in events] == [
        (1, 4, False), (1, 8, False), (1, 12, True), (2, 4, False), (2, 8, False), (2, 12, True)]
    assert all("val_accuracy" in e.logs for e in events if e.done)
    assert events[-1].seconds_left == 0 and all(e.rows_per_second > 0 for e in events)


def test_initial_epoch_goes_on_with_the_later_orders() -> None:
    """Two calls make up one, when the second begins where the first ended."""
    whole, _ = make()
    whole.fit(data(8), epochs=4, progress=False)
    parts, _ = make()
    parts.fit(data(8), epochs=2, progress=False)
    parts.fit(data(8), epochs=4, initial_epoch=2, progress=False)
    assert memory(parts) == memory(whole)


def test_a_failing_callback_leaves_the_model_consistent() -> None:
    """Its error comes through, and Ctrl-C works as before."""
    class Fails(Callback):
        def chunk_end(self, run: training.Run, logs: Any) -> None:
            raise RuntimeError("mine")

    model, _ = make()
    with pytest.raises(RuntimeError, match="mine"):
        model.fit(data(8), callbacks=[Fails()], progress=False)
    assert model.record is not None and model.record.position == 4 * model.step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
