"""Several threads: the same bits for any number of them, and threads that sleep, end and stay out
of the way.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import UserError
from nncompiler.passes import planning
from nncompiler.runtime import crew
from tests.fuzz_graphs import compare
from tests.model_support import MODELS, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]
#: Models with products, convolutions, statistics of batches, recurrence and attention.
ZOO = [
    ("digits_mlp", 32), ("lenet", 16), ("digits_cnn", 8), ("char_lstm", 4), ("char_lstm", 1),
    ("gpt", 1),
]  # fmt: skip


def data(model: Any, function: str) -> dict[str, np.ndarray]:
    """Random arguments of a function, the same in every call."""
    rng = np.random.default_rng(5)
    return {
        a.name: rng.random(a.shape).astype(a.dtype) if a.dtype.kind == "f"
        else rng.integers(0, min((n.below for n in a.limits), default=10), a.shape).astype(a.dtype)
        for a in model.bindings.any(function).given
    }  # fmt: skip


def trained(name: str, batch: int, threads: int, steps: int = 2) -> tuple[bytes, list[float]]:
    """The whole state after some steps, and their losses."""
    model = nncompiler.compile(
        MODELS / f"{name}.nn", batch=batch, threads=threads, functions=("infer", "train_step"))
    assert model.bindings.any("train_step").parallel
    model.init(3)
    arrays = data(model, "train_step")
    losses = [model.train_step(**arrays) for _ in range(steps)]
    outputs = model.predict({n: arrays[n] for n in model.manifest.inputs})
    state = b"".join(view.tobytes() for view in model.state.views.values())
    return state + np.asarray(outputs).tobytes(), losses


@pytest.mark.parametrize(("name", "batch"), ZOO)
def test_same_bits_for_any_number(name: str, batch: int) -> None:
    """Parameters, optimizer state, losses and outputs of 1, 2, 3 and 4 threads are equal."""
    first = trained(name, batch, 1)
    assert np.isfinite(first[1]).all()
    for threads in (2, 3, 4):
        assert trained(name, batch, threads) == first, threads


def test_same_bits_from_run_to_run() -> None:
    """Many steps on more threads than there are cores, again and again."""
    found = {tuple(trained("digits_mlp", 32, 3, steps=40)[1]) for _ in range(10)}
    assert len(found) == 1


def test_split_kernels_give_the_bits_of_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan without workers is compiled to the same results as one with them."""
    split = trained("digits_mlp", 32, 1)
    monkeypatch.setattr(planning, "share", lambda plan: plan)
    model = nncompiler.compile(
        MODELS / "digits_mlp.nn", batch=32, functions=("infer", "train_step"), cache=False)
    assert not model.bindings.any("train_step").parallel
    model.init(3)
    arrays = data(model, "train_step")
    assert [model.train_step(**arrays) for _ in range(2)] == split[1]


@pytest.mark.parametrize("first", [0, 4000])
def test_every_kernel_shared(first: int) -> None:
    """Random graphs, each kernel shared that can be, on three threads: as interpreted."""
    assert list(compare(range(first, first + 12), threads=3)) == []


def test_fit_and_evaluate() -> None:
    """A whole training, its validation and the smaller last batch, as on one thread."""
    found = []
    for threads in (1, 2):
        model = nncompiler.compile(MODELS / "digits_mlp.nn", batch=32, threads=threads)
        rng = np.random.default_rng(0)
        rows = {"image": rng.random((101, 64), np.float32),
                "digit": rng.integers(0, 10, 101).astype(np.int32)}
        history = model.fit(rows, epochs=3, progress=False, validation_data=rows)
        values = {n: a.tobytes() for n, a in model.state_dict().items()}
        found.append((dict(history), model.evaluate(rows), values))
    assert found[0] == found[1]


def test_load(tmp_path: Any) -> None:
    """An artifact runs on as many threads as its user wants."""
    path = tmp_path / "m.so"
    model = nncompiler.compile(MODELS / "digits_mlp.nn", batch=32)
    model.save_artifact(path)
    images = data(model, "infer")["image"]
    expected = model.predict(images)
    assert np.array_equal(nncompiler.load(path, threads=2).predict(images), expected)
    with pytest.raises(UserError, match="NN0709.*threads to be an integer from 1 to 256"):
        nncompiler.load(path, threads=1000)


def test_a_pool_that_is_busy() -> None:
    """Calls of several Python threads on one model: one has the pool, the others run alone."""
    model = nncompiler.compile(
        MODELS / "digits_mlp.nn", batch=256, threads=2, functions=("infer",))
    images = [np.random.default_rng(n).random((256, 64), np.float32) for n in range(3)]
    calls = [model.bind("infer", image=x) for x in images]
    expected = [model.predict(x) for x in images]
    wrong: list[int] = []

    def run(n: int) -> None:
        for _ in range(200):
            calls[n]()
            if not np.array_equal(calls[n].results["probs"], expected[n]):
                wrong.append(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(t.is_alive() for t in threads)


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("digits_mlp ")]


def test_threads_end_with_the_model() -> None:
    """They live as long as the model or a call of it, and no longer."""
    gc.collect()
    before = len(workers())
    model = nncompiler.compile(MODELS / "digits_mlp.nn", batch=32, threads=3)
    assert len(workers()) == before + 2
    call = model.bind("infer", image=data(model, "infer")["image"])
    del model
    gc.collect()
    call()
    assert len(workers()) == before + 2
    del call
    gc.collect()
    assert len(workers()) == before


def test_idle_threads_sleep() -> None:
    """Between calls the workers use no time of the processor, but for the first millisecond."""
    model = nncompiler.compile(MODELS / "digits_mlp.nn", batch=32, threads=4)
    arrays = data(model, "train_step")
    model.train_step(**arrays)
    time.sleep(0.05)
    start = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - start < 0.1
    model.train_step(**arrays)


FORK = """
import os, sys, warnings
import numpy as np
import nncompiler
warnings.simplefilter("ignore")
model = nncompiler.load(sys.argv[1], threads=2)
images = np.ones((32, 64), np.float32)
expected = model.predict(images)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(model.predict(images), expected) else 7)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert np.array_equal(model.predict(images), expected)
sys.exit(code)
"""


def test_fork(tmp_path: Any) -> None:
    """A process forked off has no workers and does without; the parent keeps its own."""
    path = tmp_path / "m.so"
    nncompiler.compile(MODELS / "digits_mlp.nn", batch=32).save_artifact(path)
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path)], capture_output=True, text=True, timeout=60,
        check=False)
    assert done.returncode == 0, done.stderr


def test_limit_is_that_of_the_code() -> None:
    """The runtime refuses what native code would."""
    from nncompiler.codegen.module.abi import MOST_THREADS

    assert crew.MOST == MOST_THREADS
