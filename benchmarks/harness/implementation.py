"""How it is computed: one class per way, each in a worker process of its own."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from harness.workload import Array, Arrays, Workload


class Implementation(ABC):
    """Prepared for one row at a time. `call` does one step; nothing else is timed."""

    call: Callable[[], object]

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The packages that matter, by name."""

    @abstractmethod
    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays
    ) -> str:
        """Make ready for a row; the configuration chosen, where there was a choice."""

    @abstractmethod
    def reset(self) -> None:
        """Back to the initial weights and an empty optimizer: all turns do the same work."""

    @abstractmethod
    def value(self) -> Array:
        """Of the last call: the loss in training, else the output."""

    def finish(self) -> None:
        """Wait until all calls are done."""

    def context(self) -> AbstractContextManager[object]:
        """Held during a turn."""
        return nullcontext()

    def weights(self) -> Arrays:
        """The initial weights; only ours has to know them."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an implementation is, what its process needs, and what the tables call it."""

    module: str
    name: str
    title: str
    peer: bool = True
    single: Mapping[str, str] = field(default_factory=dict)
    """The environment with one thread."""

    def make(self, threads: int) -> Implementation:
        made = getattr(importlib.import_module(f"harness.{self.module}"), self.name)(threads)
        assert isinstance(made, Implementation)
        return made


XLA = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}

#: The peers run with the Python of `.peers`, the others with that of the harness.
IMPLEMENTATIONS = {
    "limits": Entry("limits", "Limits", "FMA limit", peer=False),
    "ours": Entry("ours", "Prepared", "nncompiler", peer=False),
    "checked": Entry("ours", "Checked", "nncompiler, checked call", peer=False),
    "torch": Entry("torch_eager", "TorchEager", "PyTorch eager"),
    "jax": Entry("jax_jit", "JaxJit", "JAX jit", single=XLA),
}
PEERS = tuple(name for name, entry in IMPLEMENTATIONS.items() if entry.peer)
