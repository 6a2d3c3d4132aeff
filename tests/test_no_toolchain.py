"""No tool of the machine is needed to compile, and nothing but NumPy to run what was compiled."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.linalg import _umath_linalg  # type: ignore[attr-defined]

import nncompiler
from nncompiler.cli import main
from tests.model_support import MODELS, REPOSITORY, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

#: Compiles, trains for an epoch and predicts; dies when it finds a tool, or starts a process other
#: than this Python, which compiles kernels in several processes.
WITHOUT_TOOLS = """
import os, shutil, sys

def watch(event, arguments):
    if event.startswith("subprocess.") and arguments[0] == sys.executable:
        return
    if event.startswith(("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")):
        os.write(2, f"started a process: {event} {arguments}".encode())
        os._exit(9)

assert os.environ["PATH"] == ""
assert not any(shutil.which(tool) for tool in ("cc", "gcc", "clang", "ld", "ld.lld", "as"))
sys.addaudithook(watch)
import nncompiler
from nncompiler.runtime.datasets import digits

model = nncompiler.compile(MODEL, batch=32)
data = digits()
before = model.evaluate(data.validation)["accuracy"]
model.fit(data.train, epochs=1, progress=False)
model.save_artifact(OUT)
print(before, model.evaluate(data.validation)["accuracy"], model.predict(data.test["image"]).shape)
"""

#: Loads an artifact, trains and predicts; tells which rooms of the compiler were imported, and
#: which of its libraries are installed.
LOAD_AND_TRAIN = """
import importlib.util, json, sys
import numpy as np
import nncompiler

model = nncompiler.load(OUT)
model.init(3)
draw = np.random.default_rng(0)
data = {}
for argument in model.bindings.any("train_step").given:
    shape = (40, *argument.shape[1:])
    whole = argument.dtype.kind in "iu"
    # 1 to 9: a digit, a letter, a length, a language
    values = draw.integers(1, 10, shape) if whole else draw.uniform(0, 1, shape)
    data[argument.name] = values.astype(argument.dtype)
before = model.loss({name: values[:8] for name, values in data.items()})
model.fit(data, epochs=3, batch=8, progress=False)
after = model.loss({name: values[:8] for name, values in data.items()})
rooms = ("lang", "ir", "passes", "codegen", "driver", "api", "cli")
found = [n for n in sys.modules if n.startswith(tuple(f"nncompiler.{room}" for room in rooms))]
libraries = ("llvmlite", "lark", "networkx", "pytest", "pip")
installed = [n for n in libraries if importlib.util.find_spec(n)]
bits = model.predict({n: data[n] for n in model.manifest.inputs}).tobytes().hex()
print(json.dumps({"bits": bits, "found": found, "losses": [before, after],
                  "installed": installed}))
"""


def child(
    script: str, environment: dict[str, str], flags: Sequence[str] = (), **names: object
) -> str:
    """What a script prints in a process of its own; `names` are strings it may use."""
    head = "".join(f"{name} = {str(value)!r}\n" for name, value in names.items())
    command = [sys.executable, *flags, "-W", "error", "-c", head + script]
    done = subprocess.run(
        command, capture_output=True, text=True,
        env={"PYTHONPATH": str(REPOSITORY), **environment}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def only_numpy(folder: Path) -> Path:
    """A folder to import from that has NumPy, with the libraries it brings, and nothing else."""
    place = folder / "only"
    place.mkdir()
    numpy = Path(np.__file__).parent
    for part in (numpy, numpy.with_name("numpy.libs")):
        if part.exists():
            (place / part.name).symlink_to(part)
    return place


def test_compiles_and_trains_with_an_empty_path(tmp_path: Path) -> None:
    """Compile, train for an epoch, predict: PATH is empty, nothing cached, no process started."""
    environment = {"PATH": "", "NNCOMPILER_CACHE": "off"}
    out = tmp_path / "model.so"
    said = child(WITHOUT_TOOLS, environment, MODEL=MODELS / "digits_mlp.nn", OUT=out)
    before, after, shape = said.split(maxsplit=2)
    assert float(before) < 0.4 < 0.6 < float(after)
    assert shape.strip() == "(355, 10)"
    assert out.read_bytes()[:4] == b"\x7fELF"


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", "gru_names"])
def test_runs_where_only_numpy_is_installed(name: str, tmp_path: Path) -> None:
    """An artifact loads, trains and predicts without the compiler, to the same bits."""
    out = tmp_path / f"{name}.so"
    model = MODELS / f"{name}.nn"
    assert main(["compile", str(model), "-o", str(out), "--batch", "8"]) == 0
    here = json.loads(child(LOAD_AND_TRAIN, {}, OUT=out))
    assert "llvmlite" in here["installed"]
    there = {"PYTHONPATH": f"{only_numpy(tmp_path)}:{REPOSITORY}"}
    said = json.loads(child(LOAD_AND_TRAIN, there, flags=["-S"], OUT=out))
    assert said["installed"] == said["found"] == here["found"] == []
    assert said["bits"] == here["bits"]
    assert said["losses"][1] < said["losses"][0]


# -- What is in the library

DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_GNU_HASH = 1, 4, 5, 6, 0x6FFFFEF5
PT_LOAD, PT_DYNAMIC = 1, 2


@dataclass(frozen=True)
class Dynamic:
    """What the dynamic linker sees: how many libraries are needed, which symbols are missing."""

    needed: int
    undefined: tuple[str, ...]
    defined: tuple[str, ...]


def _segments(image: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, offset, address and size in the file of each segment."""
    (table,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for k in range(count):
        at = table + k * size
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", image, at)
        yield kind, offset, address, length


def read_dynamic(image: bytes) -> Dynamic:
    """The dynamic section of a library, found as the dynamic linker does: without sections.

    Where there is only a GNU hash table, defined symbols, which it begins with, are left out.
    """
    loads = [(a, o, n) for kind, o, a, n in _segments(image) if kind == PT_LOAD]

    def place(address: int) -> int:
        return next(o + address - a for a, o, n in loads if a <= address < a + n)

    (start, length), = ((o, n) for kind, o, _, n in _segments(image) if kind == PT_DYNAMIC)
    entries = list(struct.iter_unpack("<qQ", image[start : start + length]))
    tags = dict(entries)
    hashes = place(tags[DT_HASH] if DT_HASH in tags else tags[DT_GNU_HASH])
    _, count = struct.unpack_from("<II", image, hashes)
    strings, symbols = place(tags[DT_STRTAB]), place(tags[DT_SYMTAB])
    names: dict[bool, list[str]] = {True: [], False: []}
    for k in range(1, count):
        name, _, _, section, _, _ = struct.unpack_from("<IBBHQQ", image, symbols + 24 * k)
        end = image.index(b"\0", strings + name)
        names[section != 0].append(image[strings + name : end].decode())
    needed = sum(tag == DT_NEEDED for tag, _ in entries)
    return Dynamic(needed, tuple(names[False]), tuple(names[True]))


def check_alone(image: bytes, name: str) -> None:
    """Fail unless the library stands alone and exports nothing but the model's functions.

    So none of libm's functions is called (they would be missing), and none is part of it.
    """
    found = read_dynamic(image)
    assert found.needed == 0
    assert found.undefined == ()
    assert found.defined
    assert all(symbol.startswith(f"{name}_") for symbol in found.defined)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.nn")), ids=lambda p: p.stem)
def test_artifact_stands_alone(path: Path) -> None:
    """No library is needed and no symbol is missing, of libm or any other, for any model."""
    check_alone(nncompiler.compile(path, batch=5).artifact.image, path.stem)


@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("name", ["scalar_graphs", "xor"])
def test_artifact_stands_alone_on_other_targets(tmp_path: Path, cpu: str, name: str) -> None:
    """Where a target lacks an instruction, as v2 lacks fused multiply-add, no call replaces it."""
    out = tmp_path / f"{name}.so"
    words = ["compile", str(MODELS / f"{name}.nn"), "-o", str(out), "--batch", "5", "--cpu", cpu]
    assert main(words) == 0
    check_alone(out.read_bytes(), name)


def test_reader_sees_what_is_missing() -> None:
    """The reader above does find needed libraries and missing symbols, in a library of NumPy."""
    found = read_dynamic(Path(_umath_linalg.__file__).read_bytes())
    assert found.needed > 0
    assert "PyModule_Create2" in found.undefined or "PyModuleDef_Init" in found.undefined
