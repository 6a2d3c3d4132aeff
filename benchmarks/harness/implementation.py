"""How it is computed: one class per way, each in a worker process of its own."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from harness.workload import Array, Arrays, Workload


class Implementation(ABC):
    """Prepared for one case at a time. `call` does one step; nothing else is timed."""

    call: Callable[[], object]

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The packages that matter, by name."""

    @abstractmethod
    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays,
        onnx: str,
    ) -> str:  # fmt: skip
        """Make ready for a case; the configuration chosen, where there was a choice.

        `onnx` is the file of the model for those that want one.
        """

    def reset(self) -> None:  # noqa: B027
        """Back to the initial weights and an empty optimizer: all turns do the same work."""

    @abstractmethod
    def value(self) -> Array:
        """Of the last call: the loss in training, in a loop the sum of all, else the output."""

    def finish(self) -> None:  # noqa: B027
        """Wait until all calls are done."""

    def context(self) -> AbstractContextManager[object]:
        """Held during a turn."""
        return nullcontext()

    def weights(self) -> Arrays:
        """The initial weights; only ours has to know them."""
        raise NotImplementedError


def trial(step: Callable[[], object], rounds: int = 5, seconds: float = 0.02) -> float:
    """Seconds for one step: the fastest of a few short rounds."""
    import time

    step()
    best = float("inf")
    for _ in range(rounds):
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            step()
            calls += 1
        best = min(best, (time.perf_counter() - start) / calls)
    return best


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an implementation is, what its process needs, and what the tables call it."""

    module: str
    name: str
    title: str
    kinds: tuple[str, ...] = ()
    peer: bool = True
    """One of those that we compare with."""
    ours: bool = False
    """Runs with the Python of the harness rather than that of `.peers`."""
    onnx: bool = False
    """Takes the model as an ONNX file."""
    single: Mapping[str, str] = field(default_factory=dict)
    """The environment with one thread."""

    def make(self, threads: int) -> Implementation:
        made = getattr(importlib.import_module(f"harness.{self.module}"), self.name)(threads)
        assert isinstance(made, Implementation)
        return made


KINDS = ("train", "loop", "infer", "direct")
STEPS = ("train", "infer", "direct")
INFER = ("infer", "direct")
XLA = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}

IMPLEMENTATIONS = {
    "limits": Entry("limits", "Limits", "FMA limit", peer=False, ours=True),
    "export": Entry("onnx_export", "Export", "ONNX export", peer=False),
    "ours": Entry("ours", "Prepared", "nncompiler", KINDS, peer=False, ours=True),
    "torch": Entry("torch_module", "Eager", "PyTorch eager", STEPS),
    "compile": Entry("torch_module", "Compiled", "torch.compile", STEPS),
    "jax": Entry("jax_jit", "JaxJit", "JAX jit", KINDS, single=XLA),
    "ort": Entry("onnx_runtime", "OnnxRuntime", "ONNX Runtime", INFER, onnx=True),
    "openvino": Entry("openvino_cpu", "OpenVino", "OpenVINO", INFER, onnx=True),
}
PEERS = tuple(name for name, entry in IMPLEMENTATIONS.items() if entry.peer)
