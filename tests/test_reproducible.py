"""The same source gives the same IR, plan and object, whatever the hash seed of the process."""

from __future__ import annotations

import subprocess
import sys

from tests.model_support import REPOSITORY

#: Prints a digest for each model: of every text and every LLVM module; of one, the library too.
DIGESTS = """
import hashlib
from nncompiler.codegen.module.program import lower
from nncompiler.driver import Compilation, Options, compile_artifact, program, read_source

def told(what):
    return hashlib.sha256(what).hexdigest()

for name in ("xor", "digits_mlp", "rnn_sine"):
    c = Compilation(read_source(f"models/{name}.nn"))
    for stage, texts in c.texts().items():
        print(name, stage, told(repr(texts).encode()))
    print(name, "llvm", told(repr(lower(program([c]), c.target)).encode()))
only = Options(functions=("train_step",))
print("object", told(compile_artifact(read_source("models/xor.nn"), options=only).so))
"""


def test_two_processes_make_the_same_texts_and_bytes() -> None:
    """Sets are hashed differently in the two, and objects lie at other addresses."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", DIGESTS], cwd=REPOSITORY, text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    (first, problem), (second, _) = (run.communicate(timeout=300) for run in runs)
    assert first, problem
    assert first.splitlines() == second.splitlines()
