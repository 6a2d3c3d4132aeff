"""What is computed: a model, its data, and the same function in the words of each peer.

A workload is one file in `workloads/` with a `WORKLOAD`. It is imported in every worker, so it
imports a framework only inside the method that is named after it.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Sgd:
    """Gradient descent: m = momentum·m + g, W -= lr·m; without momentum there is no slot m."""

    lr: float
    momentum: float = 0.0

    @property
    def slots(self) -> int:
        """Tensors kept for each parameter."""
        return int(self.momentum != 0)


@dataclass(frozen=True, slots=True)
class Torch:
    """A workload for PyTorch; `infer` and `loss` take the data by name."""

    module: Any
    infer: Callable[..., Any]
    loss: Callable[..., Any]
    state: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    """The module's state from our parameters."""


@dataclass(frozen=True, slots=True)
class Jax:
    """A workload for JAX: pure functions of our parameters by name, and of the data by name."""

    infer: Callable[..., Any]
    loss: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `kind` is 'train' (forward, backward, optimizer) or 'infer'."""

    workload: str
    kind: str
    batch: int
    threads: int

    def __str__(self) -> str:
        name = "training step" if self.kind == "train" else "inference"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.workload}, {name}, batch {self.batch}, {threads}"


class Workload(ABC):
    """See `workloads/mlp.py` for an example."""

    #: The model's file, from the root of the repository.
    path: str
    #: (kind, batch) of each row.
    cases: tuple[tuple[str, int], ...]
    optimizer: Sgd
    #: The data that inference takes; training takes all.
    inputs: tuple[str, ...]
    #: The output that is compared.
    output: str

    @abstractmethod
    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        """One batch by the names of inputs and targets."""

    @abstractmethod
    def flops(self, kind: str, batch: int) -> int:
        """Operations in contractions, a multiply-add being two."""

    @abstractmethod
    def torch(self) -> Torch: ...

    @abstractmethod
    def jax(self) -> Jax: ...


def dense_flops(sizes: tuple[int, ...], kind: str, batch: int) -> int:
    """Of dense layers in a row; in training each has two gradients, the first layer only one."""
    products = [a * b for a, b in zip(sizes, sizes[1:], strict=False)]
    count = sum(products) if kind == "infer" else 3 * sum(products) - products[0]
    return 2 * batch * count


def names() -> list[str]:
    """All workloads."""
    package = importlib.import_module("workloads")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def find(name: str) -> Workload:
    """The workload of that name."""
    workload = importlib.import_module(f"workloads.{name}").WORKLOAD
    assert isinstance(workload, Workload)
    return workload
