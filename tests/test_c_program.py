"""C programs on compiled models: they include the header, train, save, load and predict, and get
the bits that Python gets. Neither needs the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.cli import main
from nncompiler.runtime import datasets
from nncompiler.runtime.record import epoch_order
from tests.model_support import MODELS, REPOSITORY, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

SOURCES = REPOSITORY / "tests" / "c"
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
pytestmark = pytest.mark.skipif(
    CC is None, reason="no C compiler (cc, gcc, clang) on this machine: C programs are not run")


def program(folder: Path, name: str, model: str, batch: str, *flags: str) -> Path:
    """`tests/c/NAME.c`, compiled against a model's header and library as `nnc` writes them."""
    library, made, source = folder / f"{model}.so", folder / name, MODELS / f"{model}.nn"
    assert main(["compile", str(source), "-o", str(library), "--batch", batch]) == 0
    words = [str(CC), *FLAGS, *flags, f"-I{folder}", str(SOURCES / f"{name}.c"), str(library),
             f"-Wl,-rpath,{folder}", "-o", str(made)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def printed(words: list[object]) -> dict[str, list[int]]:
    """The numbers a program prints, in bits, by name. It runs with nothing in its environment."""
    done = subprocess.run(
        [str(w) for w in words], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
    found: dict[str, list[int]] = {}
    for line in done.stdout.splitlines():
        name, bits = line.split()
        found.setdefault(name, []).append(int(bits, 16))
    return found


def bits(values: object, dtype: type) -> list[int]:
    """The bits of floats, in order."""
    array = np.ascontiguousarray(values, dtype).ravel()
    return [int(b) for b in array.view(f"u{array.itemsize}")]


def test_digits_train_save_load_predict(tmp_path: Path) -> None:
    """Losses, saved parameters and predictions are those of Python, to the bit."""
    rows, epochs, seed = 100, 3, 2**33 + 5
    made = program(tmp_path, "train", "digits_mlp", "32,4")
    data = {name: value[:rows] for name, value in datasets.digits().train.items()}
    order = np.stack([epoch_order(rows, seed, k, True) for k in range(epochs)])
    files = {"image": data["image"], "digit": data["digit"], "order": order.astype(np.int64)}
    for name, array in files.items():
        array.tofile(tmp_path / name)
    parameters = tmp_path / "parameters"
    found = printed([made, *(tmp_path / n for n in files), rows, epochs, seed, parameters])

    model = nncompiler.load(tmp_path / "digits_mlp.so")
    model.init(seed)
    history = model.fit(data, epochs=epochs, batch=32, seed=seed, progress=False)
    losses = np.array(found["loss"], np.uint64).view(np.float64) / rows
    assert losses.tolist() == history["loss"]
    assert history["loss"][-1] < history["loss"][0]
    ours = np.concatenate([v.ravel() for v in model.state_dict().values()])
    saved = parameters.read_bytes()
    table = [e for e in model.manifest.state if e.kind == "param"]
    theirs = np.concatenate([
        np.frombuffer(saved, e.dtype, v.size, e.offset - 64)
        for e, v in zip(table, model.state_dict().values(), strict=True)])
    assert bits(theirs, np.float32) == bits(ours, np.float32)
    assert found["prob"] == bits(model.predict(data["image"]), np.float32)


def test_tiny_trains_on_its_own_data(tmp_path: Path) -> None:
    """The smallest network, on data that both sides make: losses, parameters and predictions."""
    rows, epochs, seed = 64, 50, 7
    found = printed([program(tmp_path, "tiny", "tiny", "4"), rows, epochs, seed])

    numbers, state = [], 1
    for _ in range(2 * rows):
        state = (state * 1664525 + 1013904223) % 2**32
        numbers.append((state >> 16) / 65536)
    x = np.array(numbers, np.float32).reshape(rows, 2)
    t = np.float32(0.5) * (x[:, :1] + x[:, 1:])
    model = nncompiler.load(tmp_path / "tiny.so")
    model.init(seed)
    history = model.fit({"x": x, "t": t}, epochs=epochs, batch=4, shuffle=False, progress=False)
    losses = np.array(found["loss"], np.uint64).view(np.float64) / rows
    assert losses.tolist() == history["loss"]
    assert found["h1.W"] == bits(model.parameters["h1.W"], np.float32)
    assert found["prediction"] == bits(model.predict(x), np.float32)


def test_header_is_valid_cpp(tmp_path: Path) -> None:
    """The header may be included from C++ too."""
    cpp = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if cpp is None:
        pytest.skip("no C++ compiler (c++, g++, clang++) on this machine")
    library = tmp_path / "tiny.so"
    assert main(["compile", str(MODELS / "tiny.nn"), "-o", str(library), "--batch", "4"]) == 0
    source = tmp_path / "size.cpp"
    source.write_text(
        '#include "tiny.h"\nint main() { return tiny_state_bytes() != TINY_STATE_BYTES; }\n')
    words = [cpp, "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{tmp_path}", str(source),
             str(library), f"-Wl,-rpath,{tmp_path}", "-o", str(tmp_path / "size")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([tmp_path / "size"], env=dict(os.environ), check=False).returncode == 0


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads(tmp_path: Path, threads: int) -> None:
    """Workers that a C program brings: losses and parameters are those of one thread in Python,
    round after round; a refused batch leaves the pool as it was.
    """
    steps, rounds = 5, 3
    found = printed([
        program(tmp_path, "threads", "digits_mlp", "32", "-pthread"), threads, steps, rounds])
    model = nncompiler.load(tmp_path / "digits_mlp.so")
    model.init(42)
    count = np.arange(32 * 64)
    data = {"image": ((count * 7919 % 1000).astype(np.float32) / np.float32(1000)).reshape(32, 64),
            "digit": (np.arange(32) % 10).astype(np.int32)}
    losses = [model.train_step(**data) for _ in range(steps)]
    assert found["loss"] == rounds * bits(losses, np.float32)
    loss = model.train_step(**data)
    assert found["fit"] == rounds * bits([32 * loss], np.float64)
    size = len(found["state"]) // rounds
    for tensor in model.manifest.parameters:
        ours = bits(model.parameters[tensor.name], np.float32)
        at = tensor.offset // 4
        for n in range(rounds):
            assert found["state"][n * size + at :][: len(ours)] == ours


def test_libraries_are_asked_for_by_the_name_of_their_file(tmp_path: Path) -> None:
    """Two artifacts of one model lie side by side; each header's example is of its own files."""
    for name, batch in (("one", "2"), ("two", "3")):
        source, library = str(MODELS / "tiny.nn"), str(tmp_path / f"{name}.so")
        assert main(["compile", source, "-o", library, "--batch", batch]) == 0
        header = (tmp_path / f"{name}.h").read_text()
        assert f"example.c {name}.so" in header and f'#include "{name}.h"' in header
        example = header.split("-o example\n", 1)[1].split("*/")[0]
        (tmp_path / f"{name}.c").write_text(example.replace("\n *", "\n").removeprefix(" *"))
        made = tmp_path / name
        words = [str(CC), "-std=c11", f"{name}.c", f"{name}.so", "-Wl,-rpath,$ORIGIN", "-o", name]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        ran = subprocess.run([made], env={}, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (0, "0\n"), ran.stderr


@pytest.mark.parametrize("name", ["a b.so", "größe.so", "n" * 252 + ".so"])
def test_any_name_of_a_file_will_do(name: str, tmp_path: Path) -> None:
    model = nncompiler.compile(MODELS / "tiny.nn", batch=2)
    model.save_artifact(tmp_path / name)
    image = (tmp_path / name).read_bytes()
    assert b"\0" + os.fsencode(name) + b"\0" in image
    assert nncompiler.load(tmp_path / name).name == "tiny"
