"""nncompiler: one native call per step, prepared once or checked every time."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import llvmlite
import numpy as np

import nncompiler
from harness.implementation import Implementation
from harness.workload import Array, Arrays, Workload

ROOT = Path(__file__).resolve().parents[2]
SEED = 1


class Prepared(Implementation):
    """`model.bind(function, ...)`: all arguments are fixed."""

    def versions(self) -> dict[str, str]:
        return {
            "nncompiler": nncompiler.__version__, "llvmlite": llvmlite.__version__,
            "numpy": np.__version__, "Python": platform.python_version(),
        }  # fmt: skip

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays
    ) -> str:
        path = ROOT / workload.path
        self.function = {"train": "train_step", "infer": "infer"}[kind]
        self.model = nncompiler.compile(
            path, batch=batch, threads=self.threads, functions=(self.function,)
        )
        self.initial = weights
        self.result = workload.output if kind == "infer" else self.model.manifest.losses[0]
        self.given = data if kind == "train" else {n: data[n] for n in workload.inputs}
        self.call = self.make_call()
        return ""

    def make_call(self) -> Callable[[], object]:
        call = self.model.bind(self.function, **self.given)
        self.found = call.results[self.result]
        return call

    def reset(self) -> None:
        self.model.init(SEED)
        if self.initial is not None:
            self.model.load_state_dict(self.initial)

    def value(self) -> Array:
        return self.found

    def weights(self) -> Arrays:
        self.model.init(SEED)
        return self.model.state_dict()


class Checked(Prepared):
    """`model.train_step(...)`, `model.predict(...)`: all is checked every time."""

    def make_call(self) -> Callable[[], object]:
        step = self.model.train_step if self.function == "train_step" else self.predict

        def call() -> None:
            self.last = step(**self.given)

        return call

    def predict(self, **inputs: Array) -> Array:
        outputs = self.model.predict(inputs)
        return np.asarray(outputs[self.result] if isinstance(outputs, dict) else outputs)

    def value(self) -> Array:
        return np.asarray(self.last)
