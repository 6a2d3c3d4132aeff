"""What is computed: a model, its data, and the same function in the words of each peer.

A workload is one file in `workloads/` with a `WORKLOAD`. It is imported in every worker, so it
imports a framework only inside the method that is named after it.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

#: Training steps in one call of the case 'loop'.
LOOP_STEPS = 10_000


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
class Adam:
    """Kingma and Ba 2015. `clip_norm`: gradients are scaled so that their common norm is at most
    that."""

    lr: float
    clip_norm: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @property
    def slots(self) -> int:
        return 2


Optimizer: TypeAlias = Sgd | Adam


@dataclass(frozen=True, slots=True)
class Torch:
    """A workload for PyTorch; `infer` and `loss` take the data by name.

    `infer` gives the output that is compared, or a tuple that begins with it. Parameters that have
    no counterpart in our model do not require gradients.
    """

    module: Any
    infer: Callable[..., Any]
    loss: Callable[..., Any]
    state: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    """The module's state from our parameters."""


@dataclass(frozen=True, slots=True)
class Jax:
    """A workload for JAX: pure functions of our parameters by name, and of the data by name.

    With `states`, names of what is not trained, `loss` gives the loss and their new values.
    """

    infer: Callable[..., Any]
    loss: Callable[..., Any]
    states: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed. `kind` is 'train' (one step: forward, backward, optimizer), 'infer', 'direct'
    (inference without convolutions by transforms of ours), or 'loop' (`LOOP_STEPS` training steps
    in one call)."""

    workload: str
    kind: str
    batch: int

    @property
    def infers(self) -> bool:
        return self.kind in ("infer", "direct")

    def __str__(self) -> str:
        return f"{self.workload}, {self.kind}, {self.batch}"


class Workload(ABC):
    """See `workloads/mlp.py` for an example."""

    #: The model's file, from the root of the repository.
    path: str
    #: (kind, batch) of each row.
    cases: tuple[tuple[str, int], ...]
    optimizer: Optimizer
    #: The data that inference takes; training takes all.
    inputs: tuple[str, ...]
    #: The output that is compared.
    output: str
    #: Relative error up to which losses and outputs agree.
    tolerance: float = 1e-4
    #: How much that error grows from one training step to the next.
    growth: float = 1.0

    @abstractmethod
    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        """One batch by the names of inputs and targets."""

    @abstractmethod
    def flops(self, kind: str, batch: int) -> int:
        """Operations in contractions of one step, a multiply-add being two."""

    @abstractmethod
    def torch(self) -> Torch: ...

    @abstractmethod
    def jax(self) -> Jax: ...


def contraction_flops(products: Iterable[int], kind: str, first: int = 0) -> int:
    """Of contractions with so many multiply-adds forward; in training each has two gradients, but
    for `first` multiply-adds, whose input needs none."""
    count = sum(products)
    return 2 * (count if kind == "infer" else 3 * count - first)


def dense_flops(sizes: tuple[int, ...], kind: str, batch: int) -> int:
    """Of dense layers in a row."""
    products = [batch * a * b for a, b in zip(sizes, sizes[1:], strict=False)]
    return contraction_flops(products, kind, products[0])


def names() -> list[str]:
    """All workloads, small ones first."""
    package = importlib.import_module("workloads")
    found = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(found, key=lambda n: (find(n).flops("train", 1), n))


def find(name: str) -> Workload:
    """The workload of that name."""
    workload = importlib.import_module(f"workloads.{name}").WORKLOAD
    assert isinstance(workload, Workload)
    return workload


def cases(names: Iterable[str], kinds: Iterable[str]) -> list[Case]:
    """All cases of these workloads and kinds."""
    every = [Case(name, kind, batch) for name in names for kind, batch in find(name).cases]
    return [case for kind in kinds for case in every if case.kind == kind]
